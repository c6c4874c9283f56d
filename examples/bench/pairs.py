"""Time and weigh the scores of all pairs, loss and backward pass, against the concatenation of all pairs.

128 dimensions, 512 hidden units, float32. Memory is what the largest resident size grows by from before the forward to
after the backward pass, each form in a process of its own.
Run with one thread (OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1): python examples/bench/pairs.py
"""

import json
import subprocess
import sys
from functools import partial
from statistics import median

import timing
import torch

from soundssl.ops import pairs

SIZE, HIDDEN = 128, 512


def arguments(batch: int) -> list[torch.Tensor]:
    """Draw embeddings and the weights of a fresh head, on the device."""
    generator = torch.Generator().manual_seed(0)
    embeddings = [torch.randn(batch, SIZE, generator=generator) for _ in range(2)]
    weights = [torch.empty(HIDDEN, SIZE).uniform_(-0.06, 0.06, generator=generator) for _ in range(2)]
    last = [torch.empty(HIDDEN).uniform_(-0.04, 0.04, generator=generator) for _ in range(2)]
    return [each.to(timing.DEVICE).requires_grad_() for each in (*embeddings, *weights, *last, torch.zeros(()))]


def concatenated(a, b, weight_a, weight_b, bias, output, output_bias) -> torch.Tensor:
    """Score every pair by itself, as the paper writes it: concatenate, two layers."""
    rows, columns = len(a), len(b)
    joined = torch.cat([a[:, None].expand(-1, columns, -1), b[None].expand(rows, -1, -1)], 2)
    return torch.relu(joined @ torch.cat([weight_a, weight_b], 1).T + bias) @ output + output_bias


def plain_loss(scores: torch.Tensor, positive: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
    """Take the balanced cross-entropy by torch's own."""
    target = torch.zeros_like(scores).scatter_(1, positive[:, None], 1.0)
    weight = target / len(scores) + legal.float() / legal.sum()
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, target, weight, reduction="sum")


FORMS = {"ours": (pairs.scores, pairs.balanced_cross_entropy), "peer": (concatenated, plain_loss)}


def learn(form: str, parts: list[torch.Tensor], positive: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
    """Take loss and gradients once; return the loss."""
    score, cross_entropy = FORMS[form]
    loss = cross_entropy(score(*parts), positive, legal)
    loss.backward()
    return loss


def truth(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the column of each row's positive, and which pairs are negatives: all others."""
    legal = ~torch.eye(batch, dtype=torch.bool, device=timing.DEVICE)
    return torch.arange(batch, device=timing.DEVICE), legal


def step(form: str, batch: int) -> dict:
    """Take loss and gradients once; return seconds, megabytes, the loss and the norm of each gradient."""
    parts, known = arguments(batch), truth(batch)
    before, start = timing.peak(), timing.now()
    loss = learn(form, parts, *known)
    seconds = timing.now() - start
    added = timing.peak() - before
    norms = [loss.item(), *(float(part.grad.norm()) for part in parts)]
    return {"seconds": seconds, "megabytes": added, "norms": norms}


def apart(form: str, batch: int) -> dict:
    """Take a step in a process of its own, after one at 16 pairs that loads the libraries.

    On a GPU a second one, for its time: in the first, memory is taken and kernels are loaded.
    """
    code = f"import json, pairs; pairs.step({form!r}, 16); found = pairs.step({form!r}, {batch}); "
    if timing.DEVICE.type == "cuda":
        code += f"found['seconds'] = pairs.step({form!r}, {batch})['seconds']; "
    code += "print(json.dumps(found))"
    folder = __file__.rpartition("/")[0] or "."
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compare(batch: int, repeats: int) -> list[dict]:
    """Measure both forms in turn in one row. Raises ValueError where results differ."""
    found: dict[str, list[dict]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        for form in FORMS:
            found[form].append(apart(form, batch))
    for ours, theirs in zip(found["ours"][0]["norms"], found["peer"][0]["norms"], strict=True):
        if abs(ours - theirs) > 1e-5 * abs(theirs) + 1e-9:
            raise ValueError(f"losses or norms of gradients differ: {ours:g} and {theirs:g}")
    times = {form: [1e3 * each["seconds"] for each in runs] for form, runs in found.items()}
    megabytes = {form: max(median(each["megabytes"] for each in runs), 0.1) for form, runs in found.items()}
    claim = f"coincidence of all pairs, batch {batch}, forward and backward"
    return [
        {
            **timing.row(claim, times["ours"], "concatenation", times["peer"]),
            **timing.waits(partial(learn, "ours", arguments(batch), *truth(batch))),
            "ours_added_mb": megabytes["ours"],
            "peer_added_mb": megabytes["peer"],
            "memory_ratio": megabytes["peer"] / megabytes["ours"],
        }
    ]


def measure(small: bool) -> list[dict]:
    """Compare at 256 and 1024 pairs; at 4096 the concatenation would take 100 GB: its numbers are extrapolated."""
    if small:
        return compare(48, 1)
    rows = compare(256, 3) + compare(1024, 3)
    return [*rows, _large(rows[-1], apart("ours", 4096))]


def _large(row: dict, large: dict) -> dict:
    """Return the row of the large batch; its peer is extrapolated from that of a quarter of it."""
    memory, claim = 16 * row["peer_added_mb"], "coincidence of all pairs, batch 4096, forward and backward"
    peer = "concatenation (16 times that of 1024)"
    return {
        **timing.row(claim, [1e3 * large["seconds"]], peer, [16 * row["peer_ms"]]),
        "ours_added_mb": large["megabytes"],
        "peer_added_mb": memory,
        "memory_ratio": memory / large["megabytes"],
    }


if __name__ == "__main__":
    timing.say(measure(small=False))
