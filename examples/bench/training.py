"""Time a whole training step against the bare forward and backward pass of its encoder, and bfloat16 against float32.

Run with one thread: OMP_NUM_THREADS=1 python examples/bench/training.py. With DEVICE=cuda also ResNet-50.
"""

import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import timing
import torch
import toy

from soundssl import curriculum, device, models, objectives, training

# Steps that are timed together: on a GPU many more than the workers have batches ready for.
ROUNDS = 50 if timing.DEVICE.type == "cuda" else 1
ENCODERS = ("plain", "resnet50") if timing.DEVICE.type == "cuda" else ("plain",)


def bare_step(accelerator, encoder, windows) -> None:
    """Embed windows and take the gradients of the sum of squares."""
    encoder.zero_grad(set_to_none=True)
    with accelerator.autocast():
        loss = encoder(windows).float().square().sum()
    loss.backward()


def whole_steps(accelerator, encoder, inputs, stage):
    """Return a function that draws a batch, takes the loss, its gradients and a step of Adam, as `train` does."""
    loss, examples = training.build_stage(stage, encoder, inputs, {}, 0)
    accelerator.place(loss).train()
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-3, fused=True)
    workers = training.loader_workers(accelerator)
    loaders = training.load(examples, 0, stage, 0, 0, accelerator, workers)

    def step() -> None:
        training.take_step(loss, optimizer, loaders, accelerator, 0.5)

    return step


def measure(small: bool, names: tuple[str, ...] = ENCODERS) -> list[dict]:
    """Measure encoders; `small` takes a batch of two triplets."""
    batch, repeats = (2, 1) if small else (256 if timing.DEVICE.type == "cuda" else 64, 7)
    return [row for name in names for row in [*steps(name, batch, repeats), *precision(name, 3 * batch, repeats)]]


def steps(name: str, batch: int, repeats: int) -> list[dict]:
    """Measure a whole step against the bare one."""
    with tempfile.TemporaryDirectory() as folder, device.start(str(timing.DEVICE), "auto", 1) as accelerator:
        features = toy.write_features(Path(folder) / "f.h5", 40, 500)
        drawn = toy.write_triplets(Path(folder) / "t.h5", features, 4096)
        inputs = objectives.Inputs(features, np.ones(40, bool), triplets=drawn)
        encoder = accelerator.place(models.build(name, 128)).train()
        stage = curriculum.Stage({"triplet": {"weight": 1.0}}, steps=1000, batch_size=batch)
        windows = torch.randn(3 * batch, 96, 64).to(accelerator.device)
        step = whole_steps(accelerator, encoder, inputs, stage)
        bare = partial(bare_step, accelerator, encoder, windows)
        found = timing.interleave({"ours": step, "peer": bare}, repeats, ROUNDS)
        waits = timing.waits(step, ROUNDS)
    speed = f"{3e3 * batch / median(found['ours']):,.0f} windows/s"
    claim = f"training step of {name}, {batch} triplets ({speed})"
    return [timing.row(claim, found["ours"], "bare forward + backward", found["peer"]) | waits]


def precision(name: str, batch: int, repeats: int) -> list[dict]:
    """Measure training and inference in the precision chosen for this device against float32 in default order."""
    train, infer, where = {}, {}, str(timing.DEVICE)
    with device.start(where, "auto", 1) as chosen, device.start(where, "float32", 1) as plain:
        windows = torch.randn(batch, 96, 64)
        there = windows.to(chosen.device)
        for key, accelerator in (("ours", chosen), ("peer", plain)):
            encoder = accelerator.place(models.build(name, 128))
            train[key] = lambda a=accelerator, e=encoder: bare_step(a, e.train(), there)
            infer[key] = lambda a=accelerator, e=encoder: a.run(e.eval(), windows.numpy())
    kind, rows = str(chosen.dtype).removeprefix("torch."), []
    for what, functions in (("training", train), ("inference", infer)):
        found = timing.interleave(functions, repeats)
        claim = f"{what} of {name} in {kind}, {batch} windows ({1e3 * batch / median(found['ours']):,.0f} windows/s)"
        rows.append(timing.row(claim, found["ours"], "float32", found["peer"]))
    return rows


if __name__ == "__main__":
    timing.say(measure(small=False, names=("plain", "resnet18-half", *ENCODERS[1:])))
