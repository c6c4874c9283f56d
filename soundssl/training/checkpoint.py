"""The private state from which a stopped training goes on, beside its output."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from soundssl import SoundsslError, files


class Checkpoint:
    """Keep the private state from which a stopped run goes on, in `OUTPUT.resume`."""

    def __init__(self, output: Path, made_from: str, every: float) -> None:
        self.path, self.made_from, self.every = output.with_name(output.name + ".resume"), made_from, every
        self.saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state of an interrupted run of the same command, None where there is none."""
        if not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)  # gigabytes, copied once
        except Exception as error:
            raise SoundsslError(f"{self.path} cannot be read ({error}); delete it to begin afresh") from error
        return state if state["made_from"] == self.made_from else None

    def save(self, **state: Any) -> None:
        """Write the state whole or not at all."""
        with files.replace(self.path) as partial, files.telling(partial) as file:
            torch.save({"made_from": self.made_from, **state}, file)
        self.saved = time.monotonic()

    def due(self) -> bool:
        """Return whether it is time to save."""
        return time.monotonic() - self.saved >= self.every

    def remove(self) -> None:
        """Remove the state of a finished run."""
        self.path.unlink(missing_ok=True)

    def clear_finished(self) -> None:
        """Remove the state of the same command, left by a run that was killed between its output and clearing up."""
        if self.load() is not None:
            self.remove()
