"""Table: what every evaluation scores, values of windows and the labels of their clips."""

from __future__ import annotations

from typing import Any

import numpy as np

from soundssl.ops.groups import group_means

STORED = 2e-3  # by how much the length of a vector may be off where float16 stores it


class Table:
    """Hold values of windows, and what is known of the clips that they lie in.

    Where windows have labels of their own, or a clip has one value, each is a clip of one window: leave `clip` out.

    Shape: `value` `[windows]` or `[windows, size]`: embeddings, scores of classes, clusters (-1: none) or the labels
    given, as the evaluation wants; `clip` `[windows]` rows; `label` `[clips, classes]` in {1, 0, -1}; `recording`
    `[clips]`, numbers or strings, default: each clip its own; `split` `[clips]`, default: none. `test`, `train` and
    `validation`, bool `[clips]`, say which clips are scored, which they are set against (to learn from, or as
    neighbours) and which decide when to stop. Default of `test`: all; of `train`: all others, or all; of `validation`:
    none. `taught`, as `label`, is what clips are learnt from and stopped by where that is not what they are scored by;
    `sides` puts it in place. Raises ValueError where these do not fit.
    """

    def __init__(
        self,
        value: np.ndarray,
        label: np.ndarray,
        classes: list[str],
        *,
        clip: np.ndarray | None = None,
        recording: np.ndarray | None = None,
        split: np.ndarray | None = None,
        test: np.ndarray | None = None,
        train: np.ndarray | None = None,
        validation: np.ndarray | None = None,
        taught: np.ndarray | None = None,
    ) -> None:
        clips = len(label)
        self.value, self.label, self.classes = value, np.asarray(label), list(classes)
        self.clip = np.arange(len(value)) if clip is None else np.asarray(clip)
        self.recording = np.arange(clips) if recording is None else np.asarray(recording)
        self.split = np.full(clips, "") if split is None else np.asarray(split)
        self.test = np.ones(clips, bool) if test is None else test
        self.train = train if train is not None else self.test if self.test.all() else ~self.test
        self.validation, self.taught = validation, taught
        self._check()

    def _check(self) -> None:
        clips = len(self.label)
        if self.label.ndim != 2 or self.label.shape[1] != len(self.classes):
            raise ValueError(f"labels {list(self.label.shape)} do not fit {len(self.classes)} classes")
        if self.taught is not None and self.taught.shape != self.label.shape:
            raise ValueError(f"labels to learn from {list(self.taught.shape)} are none of {list(self.label.shape)}")
        if self.clip.shape != (len(self.value),):
            raise ValueError(f"values {list(self.value.shape)} need a clip number each, not {list(self.clip.shape)}")
        if len(self.clip) and not 0 <= self.clip.min() <= self.clip.max() < clips:
            raise ValueError(f"values of clips {self.clip.min()} to {self.clip.max()} need as many labels, not {clips}")
        columns = {"recordings": self.recording, "splits": self.split, "test": self.test, "train": self.train}
        for name, column in {**columns, "validation": self.validation}.items():
            if column is not None and column.shape != (clips,):
                raise ValueError(f"{name} {list(column.shape)} do not fit {clips} clips")

    def sides(
        self, test: np.ndarray | None = None, train: np.ndarray | None = None, validation: np.ndarray | None = None
    ) -> Table:
        """Return the table with other clips to score, to learn from and to stop by; defaults as in the table.

        Where clips have labels of their own to learn from, those of the sides hold, and clips that have none are in no
        side. Raises ValueError where such a clip would be scored too.
        """
        columns: dict[str, Any] = {"clip": self.clip, "recording": self.recording, "split": self.split}
        sides = {"test": test, "train": train, "validation": validation}
        made = Table(self.value, self.label, self.classes, **columns, **sides)
        if self.taught is None:
            return made
        learnt = made.train if made.validation is None else made.train | made.validation
        if (made.test & learnt).any():
            raise ValueError(
                f"{int((made.test & learnt).sum())} clips are scored and learnt from, by different labels; name other "
                "splits for the one than for the other"
            )
        label = np.where(learnt[:, None], self.taught, self.label)
        known = (label >= 0).any(1)
        sides = {"test": made.test & known, "train": made.train & known}
        held = None if made.validation is None else made.validation & known
        return Table(self.value, label, self.classes, **columns, **sides, validation=held)

    @property
    def windows(self) -> np.ndarray:
        """Number of windows of each clip. Shape: `[clips]`."""
        return np.bincount(self.clip, minlength=len(self.label))

    @property
    def of_clips(self) -> bool:
        """Whether every clip has one value, in order."""
        return np.array_equal(self.clip, np.arange(len(self.label)))

    @property
    def of_length_one(self) -> bool:
        """Whether all values are vectors scaled to length one, within what float16 stores of them."""
        self.require_vectors()
        length = np.linalg.norm(self.value.astype(np.float32), axis=1)
        return bool(len(length)) and bool((np.abs(length - 1.0) < STORED).all())

    def clip_means(self) -> np.ndarray:
        """Average the windows of each clip; a clip without windows gets zeros. Shape: `[clips, size]`."""
        self.require_vectors()
        if self.of_clips:
            return self.value
        return group_means(self.value, self.clip, len(self.label))

    def pooled(self, how: str) -> Table:
        """Return the table with one vector a clip: the `mean` of its windows, or all of them, `concat`.

        Windows are concatenated in their order; a clip with fewer than the longest has zeros behind them.
        """
        self.require_vectors()
        if how == "mean":
            value = self.clip_means()
        elif how == "concat":
            order = np.argsort(self.clip, kind="stable")
            clip, count = self.clip[order], self.windows
            place = np.arange(len(clip)) - np.repeat(np.cumsum(count) - count, count)
            value = np.zeros((len(self.label), int(count.max(initial=1)), self.value.shape[1]), self.value.dtype)
            value[clip, place] = self.value[order]
            value = value.reshape(len(value), -1)
        else:
            raise ValueError(f"windows are pooled by mean or concat, not {how!r}")
        columns: dict[str, Any] = {"recording": self.recording, "split": self.split}
        sides = {"test": self.test, "train": self.train, "validation": self.validation}
        return Table(value, self.label, self.classes, **columns, **sides)

    def scored(self) -> Table:
        """Return the table of the clips to test alone."""
        if self.test.all():
            return self
        kept, number = self.test[self.clip], np.cumsum(self.test) - 1
        columns = {"recording": self.recording[self.test], "split": self.split[self.test]}
        label = self.label[self.test]
        return Table(self.value[kept], label, self.classes, clip=number[self.clip[kept]], **columns)

    def parts(self) -> list[tuple[str, np.ndarray]]:
        """Return what there is of train, test and validation, by name; raise ValueError where two share a clip."""
        named = {"train": self.train, "test": self.test, "validation": self.validation}
        parts = [(name, part) for name, part in named.items() if part is not None]
        taken = np.zeros(len(self.label), bool)
        for name, part in parts:
            if (part & taken).any():
                raise ValueError(f"{int((part & taken).sum())} {name} clips are in another part too")
            taken |= part
        return parts

    def require_vectors(self) -> None:
        """Raise ValueError unless the values are vectors."""
        if self.value.ndim != 2:
            raise ValueError(f"values {list(self.value.shape)} are no vectors; [windows, size] is needed")

    def require_one_window(self) -> None:
        """Raise ValueError unless every clip has one value."""
        if not self.of_clips:
            raise ValueError(f"{len(self.value)} values and {len(self.label)} labels do not fit: one a clip is needed")
