"""Array jobs: which part of the work this task takes, as the scheduler that started it says."""

from __future__ import annotations

import os
from dataclasses import dataclass

import typer


@dataclass(frozen=True)
class Scheduler:
    """Name the variables in which a scheduler tells a task its index, and, where it does, what the indices run over.

    `least` is the first index where no variable says it.
    """

    name: str
    index: str
    first: str = ""
    last: str = ""
    count: str = ""
    step: str = ""
    least: int = 1


SCHEDULERS = (
    Scheduler("SLURM", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "", "SLURM_ARRAY_TASK_COUNT",
              "SLURM_ARRAY_TASK_STEP"),
    Scheduler("SGE", "SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "", "SGE_TASK_STEPSIZE"),
    Scheduler("PBS", "PBS_ARRAY_INDEX"),
    Scheduler("Torque", "PBS_ARRAYID"),
    Scheduler("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", count="AWS_BATCH_JOB_ARRAY_SIZE", least=0),
    Scheduler("Kubernetes", "JOB_COMPLETION_INDEX", least=0),
)  # fmt: skip


def task(count: int | None = None) -> tuple[int, int]:
    """Return number, from 1, and total of this task of an array; `count` is the total where it was given.

    Raises BadParameter outside an array, without a total, and for a task that is none of so many.
    """
    found = next((one for one in SCHEDULERS if _number(one.index) is not None), None)
    if found is None:
        raise _refusal(
            f"auto needs an array job, whose scheduler sets {SCHEDULERS[0].index} or another of "
            f"{', '.join(one.index for one in SCHEDULERS[1:])}"
        )
    told = _count(found)
    total = told or count
    if total is None:
        raise _refusal(f"{found.name} does not tell how many tasks an array has; give --part auto/N")
    if count is not None and count != total:
        raise _refusal(f"auto/{count} disagrees with {found.name}, which tells {total} tasks; give auto alone")
    index, least = _number(found.index) or 0, _number(found.first)
    least = found.least if least is None else least
    number = (index - least) // (_number(found.step) or 1) + 1
    if not 1 <= number <= total:
        raise _refusal(
            f"{found.index} is {index}, which is none of {total} tasks from {least}; number them {least} to "
            f"{least + total - 1}"
        )
    return number, total


def _count(found: Scheduler) -> int | None:
    first, last = _number(found.first), _number(found.last)
    if first is not None and last is not None:
        return (last - first) // (_number(found.step) or 1) + 1
    return _number(found.count)


def _number(name: str) -> int | None:
    """Return the number in a variable, None where there is none; SGE writes `undefined` outside arrays."""
    value = os.environ.get(name, "") if name else ""
    return int(value) if value.isdecimal() else None


def _refusal(fact: str) -> typer.BadParameter:
    return typer.BadParameter(fact, param_hint="--part")
