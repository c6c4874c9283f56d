"""How long a training will take, told once from its first steps, so that nobody finds out after an hour."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

FIRST = 10  # steps after which it is told
WARMING = 2  # of them that are not counted: what they take, memory and kernels, is taken once
LONG = 3600.0  # seconds from which it is told how to take less


class Estimate:
    """Tell after the first steps of a run how long all that are left take, at the pace of those steps.

    `work` are the examples of every step that is left, stage by stage: (steps, examples a step); a step is taken to
    cost what its examples do. `remedy` is said where it is long.
    """

    def __init__(
        self, work: Sequence[tuple[int, int]], remedy: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.work, self.remedy, self.clock = list(work), remedy, clock
        self.taken, self.since = 0, 0.0

    def step(self) -> str:
        """Note a step, and return the line to say where it is time for it, else nothing.

        >>> seconds = iter([0.0, 40.0])
        >>> estimate = Estimate([(100, 64)], clock=lambda: next(seconds))
        >>> [line for line in (estimate.step() for _ in range(12)) if line]
        ['5.0 s a step: about 8 minutes for the 100 steps']
        """
        self.taken += 1
        steps = sum(steps for steps, _ in self.work)
        if steps <= FIRST or self.taken not in (WARMING, FIRST):
            return ""
        if self.taken == WARMING:
            self.since = self.clock()
            return ""
        pace = (self.clock() - self.since) / (FIRST - WARMING)
        examples = sum(steps * batch for steps, batch in self.work)
        whole = pace * examples / self.work[0][1]
        line = f"{pace:.{1 if pace >= 1 else 2}f} s a step: about {duration(whole)} for the {steps} steps"
        return f"{line}; {self.remedy}" if self.remedy and whole >= LONG else line


def duration(seconds: float) -> str:
    """Return a time in words, in the unit in which it is a small number.

    >>> duration(42), duration(500), duration(9000), duration(90), duration(260000)
    ('42 seconds', '8 minutes', '2.5 hours', '90 seconds', '3.0 days')
    """
    for unit, length, least in (("day", 86400, 2), ("hour", 3600, 1.5)):
        if seconds >= least * length:
            return f"{seconds / length:.1f} {unit}s"
    if seconds >= 120:
        return f"{seconds / 60:.0f} minutes"
    return f"{max(1, seconds):.0f} second{'s' if seconds >= 1.5 else ''}"
