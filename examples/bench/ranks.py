"""Time a step of the clustering loss, with Adam, by two processes that share the clusters, against one process.

By the clock, since what the second processor brings is the claim; both take 1024 embeddings a step. It needs two cores.
Run with one thread a process: OMP_NUM_THREADS=1 python examples/bench/ranks.py
"""

import random
import subprocess
import sys
import time

import timing
import torch
from torch import nn

from soundssl import device
from soundssl.objectives import clustering

ROUNDS = 3  # of the two sides in turn


class Identity(nn.Module):
    """Take embeddings as they are."""

    size = 128

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return the embeddings. Shape: `[batch, size]`."""
        return embedding


def print_steps(batch: int, clusters: int, steps: int) -> None:
    """Print the milliseconds of each step but the first, in one of the processes or the only one."""
    with device.start("cpu", "auto", 1) as accelerator:
        device.seed(0)
        objective = clustering.Objective(Identity(), None, clustering.Options(clusters, start="random"))
        module = accelerator.wrap(objective)
        optimizer = torch.optim.AdamW(objective.parameters(), fused=True)
        for step in range(steps + 1):
            windows = {"window": torch.randn(batch // accelerator.world_size, Identity.size)}
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with accelerator.autocast():
                loss, _ = module(windows, 1.0)
            loss.backward()
            optimizer.step()
            if step and accelerator.main:
                print("step", 1e3 * (time.perf_counter() - start))


def steps_of(processes: int, batch: int, clusters: int, steps: int) -> list[float]:
    """Return the milliseconds of each step taken by so many processes."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    launch += ["--master-port", str(random.randint(20000, 60000))]
    words = [sys.executable, *(launch if processes > 1 else []), __file__, *map(str, (batch, clusters, steps))]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [float(line.split()[1]) for line in shown.splitlines() if line.startswith("step ")]


def measure(small: bool) -> list[dict]:
    """Measure both sides in turn."""
    batch, clusters, steps, rounds = (32, 640, 1, 1) if small else (1024, 200_000, 4, ROUNDS)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, found in times.items():
            found += steps_of(processes, batch, clusters, steps)
    half = [each / 2 for each in times[1]]
    claim = f"clustering step, {batch} x {clusters}, two processes (clock)"
    return [timing.row(claim, times[2], "one process", times[1], "half the work", half)]


def main() -> None:
    """Measure, or take steps as one of the processes."""
    if len(sys.argv) == 4:
        print_steps(*map(int, sys.argv[1:]))
        return
    timing.say(measure(small=False))


if __name__ == "__main__":
    main()
