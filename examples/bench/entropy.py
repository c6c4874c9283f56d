"""Time the streamed clustering loss, with its gradients, against the direct formula, and assignment against faiss.

At 1024 embeddings and 100,000 clusters of 128 dimensions; the claim names the memory that each adds at its peak, taken
in processes of their own. Run with one thread: OMP_NUM_THREADS=1 python examples/bench/entropy.py [EMBEDDINGS]

With an embeddings file of 116,384 windows or more, only the assignment of windows to others of them is timed: those of
a recording, a few milliseconds apart, are all but equal, which is harder than what is drawn at random.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import numpy as np
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


def step(loss: Callable, embedding: torch.Tensor, weight: torch.Tensor) -> float:
    """Take a loss and its gradients; return the loss."""
    embedding.grad = weight.grad = None
    value = loss(embedding, weight)
    value.backward()
    return float(value.detach())


def data(batch: int, clusters: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clusters drawn at random and embeddings beside some of them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(clusters, 128, generator=generator)
    embedding = weight[torch.randint(clusters, (batch,), generator=generator)]
    embedding = embedding + 1.5 * torch.randn(batch, 128, generator=generator)
    return embedding.requires_grad_(), weight.requires_grad_()


def interleave(functions: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds of processor time that each function took, called in turn after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if repeat:
                times[name].append(1e3 * (time.process_time() - start))
    return times


def products(name: str, rows: int, clusters: int, times: int) -> Callable:
    """Return the floor: nothing but matrix products of all rows and clusters, so many times, by tiles of 2 MB."""
    height, width = min(1024, rows), min(512, clusters)
    embedding, weight = (tensor.detach() for tensor in data(height, width))
    room = torch.empty(height, width)

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
    before = status("VmRSS")
    step(loss, *given)
    print(status("VmHWM") - before)


def status(name: str) -> float:
    """Return a figure of this process in MB; the peak that `resource` gives is inherited from the parent."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def measure_loss(small: bool) -> list[dict]:
    """Time the streamed loss with its gradients against the direct formula."""
    batch, clusters, repeats = (32, 640, 1) if small else (1024, 100_000, 5)
    embedding, weight = data(batch, clusters)
    losses = {"direct": direct, **{name: streamed(name) for name in STREAMED}}
    values = {name: step(loss, embedding, weight) for name, loss in losses.items()}
    if max(abs(value - values["direct"]) for value in values.values()) > 0.02:
        raise ValueError(f"the losses differ: {values}")
    functions = {n: (lambda loss=loss: step(loss, embedding, weight)) for n, loss in losses.items()}
    floors = {f"floor {name}": products(name, batch, clusters, 5) for name in STREAMED}
    times = interleave({**functions, **floors}, repeats)
    memory = {name: added_memory(name, batch, clusters) for name in losses}
    return [
        _row(
            f"clustering loss, {batch} x {clusters}, {name} ({memory[name]:.0f} MB, not {memory['direct']:.0f})",
            times[name],
            "direct formula in float32",
            times["direct"],
            "five matrix products",
            times[f"floor {name}"],
        )
        for name in STREAMED
    ]


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
        embedding, weight = torch.from_numpy(every[drawn]).split([rows, clusters])
    index = faiss.IndexFlatIP(embedding.shape[1])
    index.add(F.normalize(weight).numpy())
    query, found = F.normalize(embedding).numpy(), {}
    assigners = {name: assignment.Assigner(weight, SCALE, dtype) for name, dtype in STREAMED.items()}

    def search() -> None:
        found["faiss"] = index.search(query, 1)[1][:, 0]

    def own(name: str) -> None:
        found[name] = assigners[name](embedding).cluster.numpy()

    floors = {f"floor {name}": products(name, rows, clusters, 1) for name in STREAMED}
    times = interleave({"faiss": search, **{n: (lambda n=n: own(n)) for n in STREAMED}, **floors}, repeats)
    exact = {
        name: (F.normalize(embedding.double()) * F.normalize(weight[torch.from_numpy(chosen)].double())).sum(1)
        for name, chosen in found.items()
    }
    if any(not torch.allclose(cosine, exact["faiss"], rtol=0, atol=EQUAL) for cosine in exact.values()):
        raise ValueError("the assignments differ")
    claim = f"assignment of {rows} {'embeddings' if source is None else 'windows'} to {clusters} clusters, "
    peer, floor = "faiss flat, no confidences", "one matrix product"
    return [_row(claim + name, times[name], peer, times["faiss"], floor, times[f"floor {name}"]) for name in STREAMED]


def measure(small: bool) -> list[dict]:
    """Measure loss and assignment, one thread."""
    torch.set_num_threads(1)
    return measure_loss(small) + measure_assignment(small)


def _row(claim: str, ours: list[float], peer: str, theirs: list[float], floor: str, least: list[float]) -> dict:
    taken, other, bound = (median(times) for times in (ours, theirs, least))
    return {
        "claim": claim,
        "ours_ms": taken,
        "ours_spread_ms": _spread(ours),
        "peer": peer,
        "peer_ms": other,
        "peer_spread_ms": _spread(theirs),
        "ratio": other / taken,
        "floor": floor,
        "floor_ms": bound,
        "share_of_floor": bound / taken,
    }


def _spread(times: list[float]) -> float:
    """Return the distance between the quartiles, 0 of a single time."""
    if len(times) < 2:
        return 0.0
    low, _, high = quantiles(times, n=4)
    return high - low


def main() -> None:
    """Measure loss and assignment, or the assignment of the embeddings in a file, or print what one step adds."""
    if len(sys.argv) == 4:
        _print_added_memory(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        return
    torch.set_num_threads(1)
    for row in measure_assignment(False, Path(sys.argv[1])) if len(sys.argv) == 2 else measure(small=False):
        print(
            "{claim}: {ours_ms:.0f} ms; {peer}: {peer_ms:.0f} ms; {ratio:.2f} times; "
            "{floor}: {share_of_floor:.0%} of its speed".format(**row)
        )


if __name__ == "__main__":
    main()
