"""How many windows a second an encoder takes on this machine, embedding and training."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import nn

from soundssl import models
from soundssl.device import Accelerator

LEAST = 0.5  # seconds measured at least, after one batch that is not counted


class Speed(NamedTuple):
    """Hold windows a second: through the net alone, and in steps of Adam."""

    forward: float
    training: float


def measure(name: str, accelerator: Accelerator, batch: int = 8, least: float = LEAST) -> Speed:
    """Measure an encoder on windows of its paper's size; raise ValueError for an unknown name."""
    row = models.net(name)
    net = accelerator.place(models.build(name, models.net(name).size, row.bands, row.frames))
    windows = torch.randn(batch, row.frames, row.bands).to(accelerator.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-6)

    def embed() -> None:
        with torch.inference_mode(), accelerator.autocast():
            net(windows).float().sum().item()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            loss = nn.functional.normalize(net(windows).float(), dim=1).sum()
        loss.backward()
        optimizer.step()
        loss.item()  # waits until all is done

    rates = []
    for work in (embed, step):
        net.train(work is step)
        work()
        begin, count = time.perf_counter(), 0
        while not count or time.perf_counter() - begin < least:
            work()
            count += 1
        rates.append(count * batch / (time.perf_counter() - begin))
    return Speed(*rates)
