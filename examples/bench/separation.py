"""Time mixture invariant training against the loop over all assignments, its share of a training step, and separators.

Run with one thread: OMP_NUM_THREADS=1 python examples/bench/separation.py
"""

from functools import partial

import timing
import torch

from soundssl import device, models
from soundssl.ops import separation

RATE = 16_000  # samples a second
SMALL, LARGE = ("tdcn-stft-small", "conv-tasnet-small"), ("tdcn", "conv-tasnet")


def loop(mixtures: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """Compute the loss as it is written: of every assignment in turn, on the waveforms. Shape: [batch]."""
    losses = []
    for second in separation.assignments(tracks.shape[1]).float():
        estimate = torch.stack([1 - second, second]) @ tracks
        losses.append(separation.negative_snr(mixtures, estimate).mean(1))
    return torch.stack(losses).amin(0)


def learn(loss: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """Take the gradient of the mean loss with respect to the tracks."""
    return torch.autograd.grad(loss.mean(), tracks)[0]


def mixtures_and_tracks(batch: int, count: int, seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pairs of mixtures and tracks that have nearly found their sources."""
    sources = torch.randn(batch, count, round(seconds * RATE), device=timing.DEVICE)
    mixtures = torch.stack([sources[:, : count // 2].sum(1), sources[:, count // 2 :].sum(1)], 1)
    return mixtures, (sources + 0.3 * torch.randn_like(sources)).requires_grad_()


def quick(mixtures: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """Take the gradient of the loss as it is computed."""
    return learn(separation.mixit(mixtures, tracks)[0], tracks)


def slow(mixtures: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """Take the gradient of the loss as it is written."""
    return learn(loop(mixtures, tracks), tracks)


def losses(small: bool) -> list[dict]:
    """Measure the loss and its gradient against the loop over assignments."""
    seconds, repeats, rows = (0.1, 1, []) if small else (10.0, 3, [])
    for count in (2, 3) if small else (4, 8):
        given = mixtures_and_tracks(4, count, seconds)
        ours, peer = partial(quick, *given), partial(slow, *given)
        found = timing.interleave({"ours": ours, "peer": peer}, repeats)
        claim = f"MixIT and its gradient, {count} tracks, 4 x {seconds:g} s"
        row = timing.row(claim, found["ours"], f"all {2**count} assignments in turn", found["peer"])
        rows.append(row | timing.waits(ours))
    return rows


def shares(small: bool) -> list[dict]:
    """Measure the loss with its gradient within training steps of four examples, or one where a net takes gigabytes."""
    seconds, repeats, rows = (0.2, 1, []) if small else (3.0, 5, [])
    for name in SMALL if small else SMALL + LARGE:
        batch = 1 if small or name in LARGE else 4
        net = models.build_separator(name, 8).to(timing.DEVICE)
        optimiser = torch.optim.Adam(net.parameters())
        mixtures, _ = mixtures_and_tracks(batch, 8, seconds)
        times = []
        for _ in range(repeats + 1):
            start = timing.now()
            tracks = net(mixtures.sum(1))
            given = tracks.detach().requires_grad_()
            before = timing.now()
            slope = learn(separation.mixit(mixtures, given)[0], given)
            after = timing.now()
            tracks.backward(slope)
            optimiser.step()
            optimiser.zero_grad()
            times.append((1e3 * (after - before), 1e3 * (timing.now() - start)))
        loss, step = zip(*times[1:], strict=True)
        claim = f"MixIT within a step of {name}, {batch} x {seconds:g} s, 8 tracks"
        rows.append(timing.row(claim, loss, "the whole step", step))
    return rows


def separators(small: bool) -> list[dict]:
    """Measure separators against real time."""
    seconds, repeats, rows = (0.2, 1, []) if small else (10.0, 2, [])
    with device.start(str(timing.DEVICE), "auto", 1) as accelerator:
        for name in SMALL if small else SMALL + LARGE:
            net, sound = (
                accelerator.place(models.build_separator(name, 4)).eval(),
                torch.randn(1, round(seconds * RATE)).numpy(),
            )
            found = timing.interleave({"ours": lambda net=net, sound=sound: accelerator.run(net, sound)}, repeats)
            rows.append(timing.row(f"{name}, 4 tracks of {seconds:g} s", found["ours"], "real time", [1000 * seconds]))
    return rows


def measure(small: bool) -> list[dict]:
    """Measure losses, shares of a step, and separators."""
    return losses(small) + shares(small) + separators(small)


if __name__ == "__main__":
    timing.say(measure(small=False))
