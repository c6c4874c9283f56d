"""Time the changes of two views against the forward and backward pass that the encoder makes of the same windows.

Run with one thread: OMP_NUM_THREADS=1 python examples/bench/changes.py
"""

from functools import partial

import timing
import torch
from training import bare_step

from soundssl import device, models
from soundssl.objectives import pairs
from soundssl.ops import augment
from soundssl.ops.generators import PerExampleGenerator

COMPOSITIONS = ("crop,compression,noise", "crop,masks", "time,band,crop,reversal,compression,masks,noise,blur")


def change(windows: torch.Tensor, backgrounds: torch.Tensor, share: torch.Tensor, names: str) -> torch.Tensor:
    """Put a background into every window, then apply a composition."""
    mixed = augment.mix_back(windows, backgrounds, share)
    generator = PerExampleGenerator(torch.arange(len(windows), device=windows.device))
    return pairs.augmented(mixed, generator, pairs.Augmentation(augment=names))


def measure(small: bool) -> list[dict]:
    """Measure each composition, mix-back before it, on both views of a batch of 64 pairs."""
    count, repeats = (4, 1) if small else (128, 7)
    rows = []
    with device.start(str(timing.DEVICE), "auto", 1) as accelerator:
        encoder = accelerator.place(models.build("plain", 128)).train()
        windows, share = torch.randn(2, count, 96, 64), torch.full((count,), 0.05)
        windows, share = windows.to(accelerator.device), share.to(accelerator.device)
        peer = partial(bare_step, accelerator, encoder, windows[0])
        for names in COMPOSITIONS:
            ours = partial(change, windows[0], windows[1], share, names)
            found = timing.interleave({"ours": ours, "peer": peer}, repeats)
            claim = f"mix-back, {names.replace(',', ', ')}; {count} windows"
            row = timing.row(claim, found["ours"], "forward + backward of plain", found["peer"])
            rows.append(row | timing.waits(ours))
    return rows


if __name__ == "__main__":
    timing.say(measure(small=False))
