"""Run soundssl as `python -m soundssl`, which is also what torchrun -m starts, or as the program `soundssl`."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import typing

INTERRUPTED = 130  # the exit status of what SIGINT has ended


class Closed(io.TextIOBase):
    """Stand for a standard output that was closed: what is printed there is an error, for it would be lost."""

    def write(self, text: str) -> int:
        """Raise OSError."""
        raise OSError(errno.EBADF, "standard output is closed; send it to a file or a pipe")

    @property
    def buffer(self) -> Closed:
        """What bytes are written to."""
        return self


def _stop(number, frame) -> None:
    raise SystemExit(INTERRUPTED)


def main() -> None:
    """Run the command line; an interrupt that comes while it is loaded ends it without a traceback."""
    before = signal.signal(signal.SIGINT, _stop)
    sys.stdout = sys.stdout or typing.cast(typing.TextIO, Closed())
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    from soundssl.commands import main as run

    try:
        signal.signal(signal.SIGINT, before)
        run()
    except KeyboardInterrupt:  # between the two, or where no command says more of it
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
