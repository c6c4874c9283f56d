"""SIGINT and SIGTERM: work that may finish its step is asked to stop, other work says how it goes on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from soundssl.commands.terminal import Terminal


class Signals:
    """Note SIGINT and SIGTERM while a body runs, instead of ending it; `asked` says whether one came.

    Ask between two steps whether to stop, and end the command with `status` where work was stopped.
    """

    received = 0

    def __enter__(self) -> Signals:
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, frame) -> None:
        self.received = number

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Return whether a signal came."""
        return bool(self.received)

    @property
    def status(self) -> int:
        """The exit status: 128 and the signal's number; that of SIGTERM where another process was asked to stop."""
        return 128 + (self.received or signal.SIGTERM)


@contextlib.contextmanager
def resumable(terminal: Terminal) -> Iterator[None]:
    """Say of work that SIGINT or SIGTERM ends that the same command goes on from there."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        terminal.warn("interrupted; the same command goes on from here")
        raise
