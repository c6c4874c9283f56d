"""How long work tells somebody how far it is: functions of the library take a `Progress`; this one tells nobody."""

from __future__ import annotations

import contextlib
from typing import Protocol


class Advance(Protocol):
    """Note that `steps` more are done; `note` is shown beside them."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Note it."""


class Progress:
    """Take messages and the pace of work, and tell nobody; `commands.terminal.Terminal` tells a person."""

    def say(self, message: str) -> None:
        """Take a message of one line that can be missed."""

    def warn(self, message: str) -> None:
        """Take a message of one line that is not to be missed, also where nobody wants the others."""

    def track(self, description: str, total: int | None, unit: str) -> contextlib.AbstractContextManager[Advance]:
        """Yield what takes the steps of one piece of work, `total` of them in all where that is known."""
        return contextlib.nullcontext(lambda steps=1, note="": None)


SILENT = Progress()
