"""Timing: functions in turn, on a processor or a GPU, to a row of the table.

DEVICE=cuda in the environment puts on the GPU what can be put there; the default is cpu. Of a processor the CPU time of
this process is taken, of a GPU the clock's, once it has done all that it was given; and of a step it is said how often
the processor waits for the GPU in it.
"""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles

import torch

CLAIM = 60  # characters of a claim in the table, at least
WAIT = "synchronizing CUDA operation"  # what torch says of one
DEVICE = torch.device(os.environ.get("DEVICE", "cpu"))


def now() -> float:
    """Return seconds that only differences of mean something."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def interleave(functions: dict[str, Callable], repeats: int, rounds: int = 1) -> dict[str, list[float]]:
    """Return the milliseconds that each function took, called in turn after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = now()
            for _ in range(rounds):
                function()
            if repeat:
                times[name].append(1e3 * (now() - start) / rounds)
    return times


def waits(function: Callable, rounds: int = 1) -> dict[str, float]:
    """Return under `waits` how often a call waits for the GPU, for a row of the table; nothing where there is none."""
    if DEVICE.type != "cuda":
        return {}
    function()  # the first call loads kernels, and waits for them
    now()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for _ in range(rounds):
                function()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return {"waits": sum(WAIT in str(each.message) for each in found) / rounds}


def row(
    claim: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    floor: str | None = None,
    least: Sequence[float] = (),
) -> dict:
    """Return a row of the table from milliseconds of both sides, and of the floor where there is one."""
    found = {
        "claim": claim,
        "ours_ms": median(ours),
        "ours_spread_ms": _spread(ours),
        "peer": peer,
        "peer_ms": median(theirs),
        "peer_spread_ms": _spread(theirs),
        "ratio": median(theirs) / median(ours),
    }
    if floor is not None:
        found |= {"floor": floor, "floor_ms": median(least), "share_of_floor": median(least) / median(ours)}
    return found


def _spread(times: Sequence[float]) -> float:
    """Return the distance between the quartiles, 0 of a single time."""
    if len(times) < 2:
        return 0.0
    low, _, high = quantiles(times, n=4, method="inclusive")
    return high - low


def peak() -> float:
    """Return the most MB that this process has held so far: resident, or on the GPU.

    The peak that `resource` gives is inherited from the parent.
    """
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return _status("VmHWM")


def held() -> float:
    """Return the MB that this process holds now: resident, or on the GPU."""
    return torch.cuda.memory_allocated() / 2**20 if DEVICE.type == "cuda" else _status("VmRSS")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def line(row: dict) -> str:
    """Say in one line what was measured."""
    words = [f"{row['claim']:<{CLAIM}} {_figure(row, 'ours')}   {row['peer']}: {_figure(row, 'peer')}"]
    words.append(f"{row['ratio']:.2f} times")
    if "floor" in row:
        words.append(f"{row['share_of_floor']:.0%} of the speed of {row['floor']}")
    if "memory_ratio" in row:
        words.append(f"{row['ours_added_mb']:.0f} MB, not {row['peer_added_mb']:.0f}")
    if "waits" in row:
        words.append(f"waits for the GPU: {row['waits']:g}")
    return "   ".join(words)


def _figure(row: dict, side: str) -> str:
    """Return the milliseconds of a side, with the distance between the quartiles where it is known."""
    spread = f" ± {row[f'{side}_spread_ms']:.3g}" if f"{side}_spread_ms" in row else ""
    return f"{row[f'{side}_ms']:.3f}{spread} ms"


def say(rows: list[dict]) -> None:
    """Print a line a row."""
    print("\n".join(map(line, rows)), flush=True)
