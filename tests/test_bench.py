"""The benches still run, at tiny sizes, and their rows are complete; their times are of no matter here."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parent.parent / "examples" / "bench"


LONG = ("startup", "featurize", "ranks", "entropy")  # which start many processes, or learn for long


@pytest.mark.parametrize(("long", "least"), [(False, 12), pytest.param(True, 4, marks=pytest.mark.slow)])
def test_every_bench_runs_and_states_a_ratio(tmp_path, monkeypatch, long, least):
    monkeypatch.syspath_prepend(str(BENCH))
    import run

    names = [name for name in run.BENCHES if (name in LONG) == long]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, "run.py", *names, "--small", "-o", str(tmp_path / "rows.json")]
    done = subprocess.run(words, cwd=BENCH, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    assert len(lines) == len(rows) >= least and all(" times" in line for line in lines)
    for row in rows:
        assert {"claim", "ours_ms", "peer", "peer_ms", "ratio"} <= set(row)
        assert row["ratio"] == pytest.approx(row["peer_ms"] / row["ours_ms"])
        if "floor" in row:
            assert row["share_of_floor"] == pytest.approx(row["floor_ms"] / row["ours_ms"])


def test_waits_for_a_gpu_are_counted_and_the_mode_is_as_before(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import timing

    def step() -> None:
        for message in (
            "called a synchronizing CUDA operation",
            "of no matter",
            "called a synchronizing CUDA operation",
        ):
            warnings.warn(message, stacklevel=1)

    assert timing.waits(step) == {}, "on a processor nobody waits"
    modes = []
    monkeypatch.setattr(timing, "DEVICE", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with pytest.warns(UserWarning):  # of the first call, which is not counted
        assert timing.waits(step, rounds=3) == {"waits": 2.0}
    assert modes == ["warn", 0]
    row = timing.row("a step", [1.0], "a peer", [2.0]) | {"waits": 2.0}
    assert timing.line(row).endswith("2.00 times   waits for the GPU: 2")


def test_one_file_in_a_thousand_is_broken_and_the_others_are_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import corrupt
    import memory

    memory.write_small(tmp_path, 2000)
    assert corrupt.break_some(tmp_path) == 2
    sizes = [path.stat().st_size for path in sorted(tmp_path.rglob("*.flac"))]
    assert len(sizes) == 2000 and sum(size != max(sizes) for size in sizes) == 2
