"""A full disk, everywhere the same: one line with the file and the remedy, status 1; then the same command goes on."""

import contextlib
import os
import re
import resource
import subprocess
import sys
import time

import builder
import numpy as np
import pytest
import soundfile
from cluster_world import run

from soundssl import files

PLAIN = ("--device", "cpu", "--precision", "float32", "--threads", 1, "-q")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}


@contextlib.contextmanager
def room(size):
    """Let no file grow beyond a size, as on a disk that is full; Python ignores the signal, and gets an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write features of noise, embeddings of planted rows, labels, and a model of one step."""
    folder = tmp_path_factory.mktemp("full")
    generator = np.random.default_rng(0)
    clips = {f"clip-{i:02}": generator.normal(0, 1, (400, 64)) for i in range(6)}
    builder.features(folder / "f.h5", clips)
    builder.features(folder / "g.h5", {"other": generator.normal(0, 1, (400, 64))})
    rows = generator.normal(0, 1, (600, 16)).astype("f4")
    builder.embeddings(folder / "e.h5", rows, clip=np.arange(600) // 60, start=np.arange(600) % 60 * 0.96)
    soundfile.write(folder / "a.wav", generator.normal(0, 0.1, 16000 * 20), 16000)
    assert run("sample-triplets", folder / "f.h5", "--count", 50, "-o", folder / "t.h5", "-q").status == 0
    words = ("--triplets", folder / "t.h5", "--steps", 2, "--batch-size", 4, "--size", 4, *PLAIN)
    assert run("train", folder / "f.h5", *words, "-o", folder / "m.safetensors").status == 0
    return folder


COMMANDS = {
    "featurize": ("a.wav -j 1 -q", "h5"),
    "joined": ("g.h5 f.h5 --copy -q", "h5"),
    "sample-triplets": ("f.h5 --count 4000 -q", "h5"),
    "train": ("f.h5 --triplets t.h5 --steps 3 --batch-size 4 --size 4", "safetensors"),
    "state": ("f.h5 --triplets t.h5 --steps 3 --batch-size 4 --size 4 --checkpoint-every 0", "safetensors"),
    "embed": ("f.h5 -m m.safetensors --hop 0.2", "h5"),
    "matrix": ("f.h5 -m m.safetensors --hop 0.2", "npy"),
    "table": ("f.h5 -m m.safetensors --hop 0.2", "csv"),
    "cluster": ("e.h5 --k 20 --steps 3", "h5"),
}
VERBS = {"joined": "featurize", "state": "train", "matrix": "embed", "table": "embed"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(name, world, tmp_path, capfd):
    words, ending = COMMANDS[name]
    verb = VERBS.get(name, name)
    given = [world / word if (world / word).exists() else word for word in words.split()]
    given = (verb, *given, *(PLAIN if verb in ("train", "embed", "cluster") else ()), "-o", tmp_path / f"out.{ending}")
    least = 900 if verb == "embed" else 3000
    with room(least):
        done = run(*given)
    assert done.status == 1 and done.err.count("\n") == 1, done.err
    assert re.search(rf"out\.{ending}\S*: File too large; make room, and give the same command again\n", done.err), (
        done.err
    )
    assert capfd.readouterr().err == ""
    left = {path.name for path in tmp_path.iterdir()}
    assert f"out.{ending}" not in left and not any(each.endswith(".partial") for each in left), left
    done = run(*given)
    assert done.status == 0, done.err
    assert (tmp_path / f"out.{ending}").stat().st_size > least


def test_nothing_is_said_when_the_program_ends(world, tmp_path):
    words = [sys.executable, "-m", "soundssl", "sample-triplets", world / "f.h5", "--count", "4000", "-q"]
    done = subprocess.run(
        [*map(str, words), "-o", str(tmp_path / "t.h5")],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "t.h5: File too large; make room" in done.stderr


def test_rows_that_find_no_room_are_told_with_the_file(tmp_path):
    with room(50_000), pytest.raises(OSError, match=r"File too large: '.*e\.h5'"):
        builder.embeddings(tmp_path / "e.h5", np.zeros((10_000, 64), "f4"))
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    builder.embeddings(tmp_path / "e.h5", np.zeros((10, 64), "f4"))
    assert files.Embeddings(tmp_path / "e.h5").embedding.shape == (10, 64)


def test_joins_of_equal_files_give_equal_bytes(world, tmp_path):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for part in ("f.h5", "g.h5"):
            (tmp_path / name / part).write_bytes((world / part).read_bytes())
        parts = [tmp_path / name / part for part in ("f.h5", "g.h5")]
        done = run("featurize", *parts, "--no-provenance", "-o", tmp_path / name / "j.h5", "-q")
        assert done.status == 0, done.err
        made.append((tmp_path / name / "j.h5").read_bytes())
        time.sleep(1.1)  # HDF5 would note the second
    assert made[0] == made[1]


def test_a_picture_is_plotted_also_where_the_clusters_stand(world, tmp_path):
    pytest.importorskip("matplotlib")
    words = ("cluster", world / "e.h5", "--k", 5, "--steps", 3, "-o", tmp_path / "c.h5", *PLAIN)
    assert run(*words).status == 0
    before = (tmp_path / "c.h5").read_bytes()
    done = run(*words, "--picture", tmp_path / "c.png")
    assert done.status == 0 and (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG"), done.err
    assert (tmp_path / "c.h5").read_bytes() == before
