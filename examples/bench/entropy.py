"""Time the streamed clustering loss, with its gradients, against the direct formula, and assignment against faiss.

At 1024 embeddings and 100,000 clusters of 128 dimensions; the claim names the memory that each adds at its peak, taken
in processes of their own. Run with one thread: OMP_NUM_THREADS=1 python examples/bench/entropy.py [EMBEDDINGS]

With an embeddings file of 116,384 windows or more, only the assignment of windows to others of them is timed: those of
a recording, a few milliseconds apart, are all but equal, which is harder than what is drawn at random. With DEVICE=cuda
also a step of 4096 embeddings at a million clusters, and how fast the card multiplies and copies.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import timing
import torch
import torch.nn.functional as F

from soundssl.files import Embeddings
from soundssl.ops import assignment, entropy

SCALE, GAMMA = 60.0, 1.1
EQUAL = 1e-6  # cosines that faiss, which multiplies in float32, may not tell apart
STREAMED = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def direct(embedding: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the loss as the formula says, all logits at once; autograd takes the gradients."""
    logarithm = torch.log_softmax(SCALE * F.normalize(embedding) @ F.normalize(weight).T, 1)
    probability = logarithm.exp()
    marginal = probability.mean(0).clamp(min=torch.finfo(torch.float32).tiny)
    return -(probability * logarithm).sum(1).mean() + GAMMA * (marginal * marginal.log()).sum()


def streamed(name: str) -> Callable:
    """Return the streamed loss with products in the number type of that name."""
    return lambda embedding, weight: entropy.entropies(embedding, weight, SCALE, GAMMA, STREAMED[name]).loss


def step(loss: Callable, embedding: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Take a loss and its gradients; return the loss."""
    embedding.grad = weight.grad = None
    value = loss(embedding, weight)
    value.backward()
    return value.detach()


def data(batch: int, clusters: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings beside some of the clusters, and these, drawn at random, on the device."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(clusters, 128, generator=generator)
    embedding = weight[torch.randint(clusters, (batch,), generator=generator)]
    embedding = embedding + 1.5 * torch.randn(batch, 128, generator=generator)
    return embedding.to(timing.DEVICE).requires_grad_(), weight.to(timing.DEVICE).requires_grad_()


def products(name: str, rows: int, clusters: int, times: int) -> Callable:
    """Return the floor: nothing but matrix products of all rows and clusters, so many times, by tiles.

    Of 2 MB, which a processor's cache holds; of 512 MB on a GPU, which is busy with no less.
    """
    height, width = min(1024, rows), min(131_072 if timing.DEVICE.type == "cuda" else 512, clusters)
    width = -(-clusters // -(-clusters // width))  # all tiles alike: no more columns than there are
    embedding, weight = (tensor.detach() for tensor in data(height, width))
    room = embedding.new_empty(height, width)

    def multiply() -> None:
        with entropy.products(STREAMED[name], embedding.device) as product:
            for _ in range(times * -(-clusters // width) * -(-rows // height)):
                product(embedding, weight.T, room)

    return multiply


def added_memory(name: str, batch: int, clusters: int) -> float:
    """Return the MB that one step adds to the peak of a process that holds embeddings and weights."""
    words = [sys.executable, __file__, name, str(batch), str(clusters)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def _print_added_memory(name: str, batch: int, clusters: int) -> None:
    torch.set_num_threads(1)
    loss = direct if name == "direct" else streamed(name)
    step(loss, *data(8, 64))
    given = data(batch, clusters)
    before = timing.held()
    step(loss, *given)
    print(timing.peak() - before)


def measure_loss(small: bool) -> list[dict]:
    """Time the streamed loss with its gradients against the direct formula."""
    batch, clusters, repeats = (32, 640, 1) if small else (1024, 100_000, 5)
    embedding, weight = data(batch, clusters)
    losses = {"direct": direct, **{name: streamed(name) for name in STREAMED}}
    values = {name: float(step(loss, embedding, weight)) for name, loss in losses.items()}
    if max(abs(value - values["direct"]) for value in values.values()) > 0.02:
        raise ValueError(f"the losses differ: {values}")
    functions = {name: partial(step, loss, embedding, weight) for name, loss in losses.items()}
    floors = {f"floor {name}": products(name, batch, clusters, 5) for name in STREAMED}
    times = timing.interleave({**functions, **floors}, repeats)
    memory = {name: added_memory(name, batch, clusters) for name in losses}
    floor, peer = "five matrix products", "direct formula in float32"
    return [
        timing.row(
            f"clustering loss, {batch} x {clusters}, {name} ({memory[name]:.0f} MB, not {memory['direct']:.0f})",
            *(times[name], peer, times["direct"], floor, times[f"floor {name}"]),
        )
        | timing.waits(functions[name])
        for name in STREAMED
    ]


def measure_card(small: bool) -> list[dict]:
    """Time a step of a batch for which the direct formula finds no room, and what the card does at the most."""
    batch, clusters, repeats = (32, 640, 1) if small else (4096, 1_000_000, 5)
    embedding, weight = data(batch, clusters)
    other = torch.empty_like(weight)
    name = "bfloat16"
    found = timing.interleave(
        {
            "ours": partial(step, streamed(name), embedding, weight),
            "products": products(name, batch, clusters, 5),
            "copy": lambda: other.copy_(weight.detach()),
        },
        repeats,
    )
    flops, size = 5 * 2 * batch * clusters * weight.shape[1], 2 * weight.nbytes
    rate, bandwidth = (
        amount / np.median(found[each]) for amount, each in ((flops / 1e9, "products"), (size / 1e6, "copy"))
    )
    claim = f"clustering loss, {batch} x {clusters}, {name}"
    peer = f"five matrix products, {rate:,.0f} TFLOP/s; memory copies {bandwidth:,.0f} GB/s"
    waits = timing.waits(partial(step, streamed(name), embedding, weight))
    return [timing.row(claim, found["ours"], peer, found["products"]) | waits]


def measure_assignment(small: bool, source: Path | None = None) -> list[dict]:
    """Time the assignment, with its confidences, against a search for the one nearest in faiss's flat index.

    Raises ValueError where clusters differ whose cosines, in float64, do not agree to `EQUAL`.
    """
    import faiss

    rows, clusters, repeats = (64, 640, 1) if small else (16_384, 100_000, 3)
    if source is None:
        embedding, weight = (tensor.detach() for tensor in data(rows, clusters))
    else:
        every = Embeddings(source).embedding[:].astype(np.float32)
        drawn = np.random.default_rng(0).permutation(len(every))[: rows + clusters]
        embedding, weight = torch.from_numpy(every[drawn]).to(timing.DEVICE).split([rows, clusters])
    index = faiss.IndexFlatIP(embedding.shape[1])
    index.add(F.normalize(weight).cpu().numpy())
    query, found = F.normalize(embedding).cpu().numpy(), {}
    assigners = {name: assignment.Assigner(weight, SCALE, dtype) for name, dtype in STREAMED.items()}

    def search() -> None:
        found["faiss"] = index.search(query, 1)[1][:, 0]

    def own(name: str) -> None:
        found[name] = assigners[name](embedding).cluster.cpu().numpy()

    floors = {f"floor {name}": products(name, rows, clusters, 1) for name in STREAMED}
    times = timing.interleave({"faiss": search, **{name: partial(own, name) for name in STREAMED}, **floors}, repeats)
    units = [F.normalize(each.double()).cpu() for each in (embedding, weight)]
    exact = {name: (units[0] * units[1][torch.from_numpy(chosen)]).sum(1) for name, chosen in found.items()}
    if any(not torch.allclose(cosine, exact["faiss"], rtol=0, atol=EQUAL) for cosine in exact.values()):
        raise ValueError("the assignments differ")
    claim = f"assignment of {rows} {'embeddings' if source is None else 'windows'} to {clusters} clusters, "
    where = " on one processor thread" if timing.DEVICE.type == "cuda" else ""
    peer, floor = f"faiss flat{where}, no confidences", "one matrix product"
    sides = {name: (times[name], peer, times["faiss"], floor, times[f"floor {name}"]) for name in STREAMED}
    return [timing.row(claim + name, *found) for name, found in sides.items()]


def measure(small: bool) -> list[dict]:
    """Measure loss and assignment, one thread."""
    torch.set_num_threads(1)
    card = measure_card(small) if small or timing.DEVICE.type == "cuda" else []
    return measure_loss(small) + card + measure_assignment(small)


def main() -> None:
    """Measure loss and assignment, or the assignment of the embeddings in a file, or print what one step adds."""
    if len(sys.argv) == 4:
        _print_added_memory(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        return
    torch.set_num_threads(1)
    timing.say(measure_assignment(False, Path(sys.argv[1])) if len(sys.argv) == 2 else measure(small=False))


if __name__ == "__main__":
    main()
