"""Mutated files of every kind that is read: each ends in a result or in one line. The bench reads many more."""

import random
import shutil
from pathlib import Path

BENCH = Path(__file__).parent.parent / "examples" / "bench"
COUNT = 300


def test_mutated_files_end_in_a_result_or_a_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import fuzz

    (tmp_path / "whole").mkdir()
    sources = fuzz.write_files(tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "embeddings.h5", tmp_path / "whole.h5")
    for source in sources:
        fuzz.read(source.rename(tmp_path / source.name), tmp_path / "output.h5")  # as they are, all can be read
    data = {source.name: (tmp_path / source.name).read_bytes() for source in sources}
    there = {path.name for path in tmp_path.iterdir()}
    faults = []
    for seed in range(COUNT):
        name = sources[seed % len(sources)].name
        (tmp_path / name).write_bytes(fuzz.mutate(data[name], random.Random(seed)))
        if said := fuzz.attempt(tmp_path / name, tmp_path / "output.h5"):
            faults.append(f"seed {seed}, {name}: {said}")
        (tmp_path / name).write_bytes(data[name])
    assert not faults, "\n".join(faults)
    assert {path.name for path in tmp_path.iterdir()} - there <= {"output.h5", "output.h5.lock", "output.h5.parts"}
