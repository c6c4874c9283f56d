"""Curves for TensorBoard: what a log says, in the folder that TensorBoard shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soundssl import files
from soundssl.dependencies import needed

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NO_FIGURES = {"stage", "step", "time"}


class CurvesLog(files.Log):
    """Append lines to a log, and their figures to a folder of curves; steps count on over the stages.

    `stages` are the numbers of steps of all stages. Raises DependencyError without the package tensorboard.
    """

    def __init__(self, path: str | os.PathLike, folder: str | os.PathLike, stages: Sequence[int]) -> None:
        super().__init__(path)
        self.folder, self.stages = Path(folder), list(stages)
        with needed("TensorBoard's curves", "tensorboard", "pip install 'soundssl[tensorboard]'"):
            import tensorboard  # noqa: F401
            from torch.utils.tensorboard import SummaryWriter
        self._open = SummaryWriter
        self._writer: SummaryWriter | None = None

    def cut_back(self, known: Callable[[dict], bool]) -> dict | None:
        """Keep the leading lines for which `known` holds; TensorBoard drops what an earlier run wrote beyond them."""
        last = super().cut_back(known)
        self._begin(last)
        return last

    def write(self, line: dict) -> None:
        """Append one line, and its figures."""
        super().write(line)
        writer = self._writer or self._begin(None)
        for name, figure in line.items():
            if name not in NO_FIGURES and isinstance(figure, int | float):
                writer.add_scalar(name.replace(".", "/", 1), figure, self._step(line))
        writer.flush()

    def _begin(self, last: dict | None) -> SummaryWriter:
        if self._writer:
            self._writer.close()
        self._writer = self._open(str(self.folder), purge_step=1 + (self._step(last) if last else 0))
        return self._writer

    def _step(self, line: dict) -> int:
        return sum(self.stages[: line["stage"]]) + line["step"]
