"""Time the exact nearest-neighbour search in blocks, and its form leaving out groups, against faiss's flat index.

Run with one thread (OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1): python examples/bench/neighbors.py
"""

from functools import partial

import numpy as np
import timing

from soundssl.ops import neighbors


def measure(small: bool) -> list[dict]:
    """Time the searches in turn on random unit vectors; milliseconds a search, median over repeats."""
    queries, rows, size, k, repeats = (32, 3000, 16, 5, 2) if small else (2048, 200_000, 128, 20, 5)
    generator = np.random.default_rng(0)
    base = neighbors.unit(generator.standard_normal((rows, size), dtype=np.float32))
    query = neighbors.unit(generator.standard_normal((queries, size), dtype=np.float32))
    own, other = np.arange(queries) % (rows // 10), np.arange(rows) // 10
    found = {}
    search = faiss_search(base, k)
    searches = {
        "faiss": lambda: search(query),
        "blocks": lambda: neighbors.nearest_in_blocks(query, base, k),
        "blocks leaving out the own group": lambda: neighbors.nearest(query, base, k, own, other),
    }

    def keep(name: str) -> None:
        found[name] = searches[name]()

    times = timing.interleave({name: partial(keep, name) for name in searches}, repeats)
    if not np.allclose(found["faiss"][0], found["blocks"][0], atol=1e-5):
        raise ValueError("the searches find different neighbours")
    theirs = times.pop("faiss")
    claim = f"{k} nearest of {rows} for {queries} queries of {size} dimensions"
    return [timing.row(f"{claim}, {name}", taken, "faiss flat", theirs) for name, taken in times.items()]


def faiss_search(base: np.ndarray, k: int):
    """Return a search among rows already added to faiss's flat inner-product index."""
    import faiss

    index = faiss.IndexFlatIP(base.shape[1])
    index.add(base)
    return lambda query: index.search(query, k)


if __name__ == "__main__":
    timing.say(measure(small=False))
