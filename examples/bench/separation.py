"""Time mixture invariant training against the loop over all assignments, its share of a training step, and separators.

Run with one thread: OMP_NUM_THREADS=1 python examples/bench/separation.py
"""

import time
from statistics import median

import torch
from training import interleave

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
    sources = torch.randn(batch, count, round(seconds * RATE))
    mixtures = torch.stack([sources[:, : count // 2].sum(1), sources[:, count // 2 :].sum(1)], 1)
    return mixtures, (sources + 0.3 * torch.randn_like(sources)).requires_grad_()


def losses(small: bool) -> list[dict]:
    """Measure the loss and its gradient against the loop over assignments."""
    seconds, repeats, rows = (0.1, 1, []) if small else (10.0, 3, [])
    for count in (2, 3) if small else (4, 8):
        mixtures, tracks = mixtures_and_tracks(4, count, seconds)
        found = interleave(
            {
                "ours": lambda: learn(separation.mixit(mixtures, tracks)[0], tracks),  # noqa: B023 - called at once
                "peer": lambda: learn(loop(mixtures, tracks), tracks),  # noqa: B023
            },
            repeats,
        )
        claim = f"MixIT and its gradient, {count} tracks, 4 x {seconds:g} s"
        rows.append(row(claim, found, f"all {2**count} assignments in turn"))
    return rows


def shares(small: bool) -> list[dict]:
    """Measure the loss with its gradient within training steps of four examples, or one where a net takes gigabytes."""
    seconds, repeats, rows = (0.2, 1, []) if small else (3.0, 5, [])
    for name in SMALL if small else SMALL + LARGE:
        batch = 1 if small or name in LARGE else 4
        net = models.build_separator(name, 8)
        optimiser = torch.optim.Adam(net.parameters())
        mixtures, _ = mixtures_and_tracks(batch, 8, seconds)
        times = []
        for _ in range(repeats + 1):
            start = time.process_time()
            tracks = net(mixtures.sum(1))
            given = tracks.detach().requires_grad_()
            before = time.process_time()
            slope = learn(separation.mixit(mixtures, given)[0], given)
            after = time.process_time()
            tracks.backward(slope)
            optimiser.step()
            optimiser.zero_grad()
            times.append((1e3 * (after - before), 1e3 * (time.process_time() - start)))
        loss, step = (median(each) for each in zip(*times[1:], strict=True))
        claim = f"MixIT within a step of {name}, {batch} x {seconds:g} s, 8 tracks"
        rows.append(row(claim, {"ours": loss, "peer": step}, "the whole step"))
    return rows


def separators(small: bool) -> list[dict]:
    """Measure separators against real time."""
    seconds, repeats, rows = (0.2, 1, []) if small else (10.0, 2, [])
    with device.start("cpu", "auto", 1) as accelerator:
        for name in SMALL if small else SMALL + LARGE:
            net, sound = (
                accelerator.place(models.build_separator(name, 4)).eval(),
                torch.randn(1, round(seconds * RATE)).numpy(),
            )
            found = interleave({"ours": lambda net=net, sound=sound: accelerator.run(net, sound)}, repeats)
            found["peer"] = 1000 * seconds
            rows.append(row(f"{name}, 4 tracks of {seconds:g} s", found, "real time"))
    return rows


def row(claim: str, found: dict[str, float], peer: str) -> dict:
    """Return a row of the table."""
    ours, theirs = found["ours"], found["peer"]
    return {"claim": claim, "ours_ms": ours, "peer": peer, "peer_ms": theirs, "ratio": theirs / ours}


def measure(small: bool) -> list[dict]:
    """Measure losses, shares of a step, and separators."""
    return losses(small) + shares(small) + separators(small)


if __name__ == "__main__":
    for each in measure(False):
        print("{claim}: {ours_ms:.1f} ms; {peer}: {peer_ms:.1f} ms; {ratio:.1f} times".format(**each))
