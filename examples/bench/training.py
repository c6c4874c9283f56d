"""Time a whole training step against the bare forward and backward pass of its encoder, and bfloat16 against float32.

Run with one thread: OMP_NUM_THREADS=1 python examples/bench/training.py
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import toy

from soundssl import curriculum, device, models, objectives, training


def bare_step(accelerator, encoder, windows) -> None:
    """Embed windows and take the gradients of the sum of squares."""
    encoder.zero_grad(set_to_none=True)
    with accelerator.autocast():
        loss = encoder(windows).float().square().sum()
    loss.backward()


def whole_steps(accelerator, encoder, inputs, stage):
    """Return a function that draws a batch, takes the loss, its gradients and a step of Adam, as `train` does."""
    mixture, examples = training.build_stage(stage, encoder, inputs, {}, 0)
    accelerator.place(mixture).train()
    optimizer = torch.optim.AdamW(mixture.parameters(), lr=1e-3, fused=True)
    loaders = training.load(examples, 0, stage, 0, 0, accelerator, workers=0)

    def step() -> None:
        training.take_step(mixture, optimizer, loaders, accelerator, 0.5)

    return step


def interleave(functions: dict, repeats: int, rounds: int = 1) -> dict[str, float]:
    """Return the median milliseconds of each function, called in turn after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            for _ in range(rounds):
                function()
            if repeat:
                times[name].append(1e3 * (time.process_time() - start) / rounds)
    return {name: median(found) for name, found in times.items()}


def measure(small: bool, name: str = "plain") -> list[dict]:
    """Measure one encoder; `small` takes a batch of two triplets."""
    batch, repeats = (2, 1) if small else (64, 7)
    rows = []
    with tempfile.TemporaryDirectory() as folder, device.start("cpu", "auto", 1) as accelerator:
        features = toy.write_features(Path(folder) / "f.h5", 40, 500)
        drawn = toy.write_triplets(Path(folder) / "t.h5", features, 4096)
        inputs = objectives.Inputs(features, np.ones(40, bool), triplets=drawn)
        encoder = accelerator.place(models.build(name, 128)).train()
        stage = curriculum.Stage({"triplet": {"weight": 1.0}}, steps=1000, batch_size=batch)
        windows = torch.randn(3 * batch, 96, 64)
        step = whole_steps(accelerator, encoder, inputs, stage)
        found = interleave({"ours": step, "peer": lambda: bare_step(accelerator, encoder, windows)}, repeats)
        rows.append(_row(f"training step of {name}, {batch} triplets", found, "bare forward + backward"))
    rows += precision(small, name, 3 * batch, repeats)
    return rows


def precision(small: bool, name: str, batch: int, repeats: int) -> list[dict]:
    """Measure training and inference in the precision chosen for this processor against float32 in default order."""
    windows = torch.randn(batch, 96, 64)
    train, infer = {}, {}
    with device.start("cpu", "auto", 1) as chosen, device.start("cpu", "float32", 1) as plain:
        for key, accelerator in (("ours", chosen), ("peer", plain)):
            encoder = accelerator.place(models.build(name, 128))
            train[key] = lambda a=accelerator, e=encoder: bare_step(a, e.train(), windows)
            infer[key] = lambda a=accelerator, e=encoder: a.run(e.eval(), windows.numpy())
    kind = str(chosen.dtype).removeprefix("torch.")
    return [
        _row(f"training of {name} in {kind}, {batch} windows", interleave(train, repeats), "float32"),
        _row(f"inference of {name} in {kind}, {batch} windows", interleave(infer, repeats), "float32"),
    ]


def _row(claim: str, found: dict[str, float], peer: str) -> dict:
    ours, theirs = found["ours"], found["peer"]
    return {"claim": claim, "ours_ms": ours, "peer": peer, "peer_ms": theirs, "ratio": theirs / ours}


if __name__ == "__main__":
    for encoder_name in ("plain", "resnet18-half"):
        for row in measure(False, encoder_name):
            print("{claim}: {ours_ms:.1f} ms; {peer}: {peer_ms:.1f} ms; {ratio:.2f} times".format(**row))
