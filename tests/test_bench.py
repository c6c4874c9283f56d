"""The benches still run, at tiny sizes, and their rows are complete; their times are of no matter here."""

import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent.parent / "examples" / "bench"


def test_every_bench_runs_and_states_a_ratio():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, "run.py", "--small"]
    done = subprocess.run(words, cwd=BENCH, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert len(rows) >= 6 and all(" times" in row for row in rows)
