"""The spool of an unfinished run: it goes on after a torn line, and only the keys say how what it holds is laid out."""

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from soundssl import SoundsslError, files
from soundssl.files import copying, spooling
from soundssl.files.spooling import Store
from soundssl.ops.spectrogram import FrontEnd

ATTRIBUTES = {**FrontEnd().attributes(), "resampler": "none", "image_rate": 0.0}
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)]),
}


def fill(store: Store, key: str, frames: int, spool) -> None:
    spool.start()
    spool.add_frames(np.full((frames, 64), len(key), "f2"))
    about = {"key": key, "recording": key, "split": "", "source": key, "start": 0.0}
    store.add({**about, **spool.finish()})


def test_a_store_goes_on_after_a_torn_line_and_begins_afresh_otherwise(tmp_path):
    output = tmp_path / "a.h5"
    store = Store(output, ATTRIBUTES, "f2", "one")
    spool = files.Spool(store.folder, "worker-0", "f2")
    fill(store, "b", 3, spool)
    spool.start()
    spool.add_frames(np.zeros((100, 64), "f2"))
    spool.abandon()
    fill(store, "aa", 2, spool)
    store.close()
    with open(store.folder / "journal.jsonl", "a") as file:
        file.write('{"key": "torn')
    again = Store(output, ATTRIBUTES, "f2", "one")
    assert set(again.done) == {"b", "aa"}
    with pytest.raises(SoundsslError, match=r"another run is writing .*a\.h5; let it end"):
        Store(output, ATTRIBUTES, "f2", "one")
    fill(again, "c", 1, files.Spool(again.folder, "worker-0", "f2"))
    assert len(again.lay_out(["b", "aa", "c"], [], (2, 2), "soundssl test")) == 3
    assert os.listdir(tmp_path) == ["a.h5"]
    source = files.Features(output)
    assert list(source.clips.key) == ["aa", "b", "c"] and list(source.frames[:][:, 0]) == [2, 2, 1, 1, 1, 1]
    for spoil in ("two", "rubbish", "another version"):
        store = Store(output, ATTRIBUTES, "f2", "one")
        fill(store, "b", 3, files.Spool(store.folder, "worker-0", "f2"))
        store.close()
        journal = store.folder / "journal.jsonl"
        if spoil == "rubbish":
            journal.write_text('{"made_from": "one"}\n\0\0\0\n')
        if spoil == "another version":
            journal.write_text(journal.read_text().replace('"entries": 2, ', ""))
        store = Store(output, ATTRIBUTES, "f2", "two" if spoil == "two" else "one")
        assert store.done == {} and os.listdir(store.folder) == ["journal.jsonl"]
        store.discard()


def test_blocks_that_are_laid_out_at_a_time_do_not_matter(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    frames = {f"{i:02}": generator.normal(i, 1, (count, 64)).astype("f2") for i, count in enumerate([5, 0, 1, 300, 47])}
    every = np.concatenate(list(frames.values()))
    for name, block in (("a.h5", copying.BLOCK), ("b.h5", 7 * 128), ("c.h5", 1)):
        monkeypatch.setattr(copying, "BLOCK", block)
        monkeypatch.setattr(copying, "OPEN_FILES", max(1, block // 128))
        store = Store(tmp_path / name, ATTRIBUTES, "f2", "one")
        spools = [files.Spool(store.folder, f"worker-{i}", "f2") for i in range(2)]
        for key in reversed(frames):
            spool = spools[int(key) % 2]
            spool.start()
            spool.add_frames(frames[key])
            store.add({"key": key, "recording": key, "split": "", "source": key, "start": 0.0, **spool.finish()})
        store.lay_out(list(frames), [], (1, 1), None)
        source = files.Features(tmp_path / name)
        assert np.array_equal(source.frames[:], every), "in the order of the keys, whoever was first"
        assert source.mean == pytest.approx(every.mean(0, "f8"), rel=1e-6)
        assert source.deviation == pytest.approx(every.std(0, "f8"), rel=1e-6)


def test_a_file_without_provenance_is_named_by_its_frames(tmp_path, monkeypatch):
    names = []
    for name, values in (("a.h5", (1, 2)), ("b.h5", (2, 1)), ("c.h5", (1, 2))):  # of one mean and one deviation
        monkeypatch.setattr(copying, "BLOCK", 128 if name == "c.h5" else 1 << 20)
        store = Store(tmp_path / name, ATTRIBUTES, "f2", "one")
        spool = files.Spool(store.folder, "worker-0", "f2")
        for key, value in zip("xy", values, strict=True):
            spool.start()
            spool.add_frames(np.full((10, 64), value, "f2"))
            store.add({"key": key, "recording": key, "split": "", "source": key, "start": 0.0, **spool.finish()})
        store.lay_out(["x", "y"], [], (1, 1), None)
        names.append(files.attributes_of(tmp_path / name)["uuid"])
    assert names[0] == names[2] != names[1]


class Halting(io.FileIO):
    """Read and write fewer bytes at a time than asked, as systems may."""

    def write(self, data) -> int:
        return super().write(data[:777])

    def readinto(self, block) -> int:
        return super().readinto(block[:555])


def test_what_the_system_writes_and_reads_little_by_little_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(
        spooling, "open", lambda name, mode, **others: (Halting if mode == "xb" else open)(name, mode), raising=False
    )
    monkeypatch.setattr(copying, "open", lambda name, mode, **_: Halting(name, mode), raising=False)
    frames = np.random.default_rng(0).normal(0, 1, (300, 64)).astype("f2")
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype="u1")
    store = Store(tmp_path / "a.h5", ATTRIBUTES, "f2", "one")
    spool = files.Spool(store.folder, "worker-0", "f2")
    spool.start()
    for half in np.array_split(frames, 2):
        spool.add_frames(half)
    spool.add_images(images)
    about = {"key": "a", "recording": "a", "split": "", "source": "a", "start": 0.0}
    store.add({**about, **spool.finish()})
    store.lay_out(["a"], [], (8, 8), "soundssl test")
    source = files.Features(tmp_path / "a.h5")
    assert np.array_equal(source.frames[:], frames) and np.array_equal(source.images[:], images)


def test_frames_that_find_no_room_end_the_run_and_leave_no_file(tmp_path):
    program = """if True:
        import resource, sys
        import numpy as np
        from soundssl import files
        from test_spooling import ATTRIBUTES, fill

        store = files.Store(sys.argv[1], ATTRIBUTES, "f2", "one")
        spool = files.Spool(store.folder, "worker-0", "f2")
        fill(store, "b", 5000, spool)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5100 * 128, resource.RLIM_INFINITY))
        for write in (lambda: fill(store, "c", 5000, spool), lambda: store.lay_out(["b"], [], (1, 1), None)):
            try:
                write()
            except OSError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (500 * 128, resource.RLIM_INFINITY))
    """
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.h5"], capture_output=True, text=True, env=ENVIRONMENT
    )
    spool, output = done.stdout.splitlines()
    assert re.fullmatch(r".*File too large: '.*a\.h5\.parts/worker-0-.*\.frames'", spool), done.stderr
    assert re.fullmatch(r".*File too large: '.*a\.h5'", output), done.stderr
    assert os.listdir(tmp_path) == ["a.h5.parts"] or sorted(os.listdir(tmp_path)) == ["a.h5.lock", "a.h5.parts"]
    store = Store(tmp_path / "a.h5", ATTRIBUTES, "f2", "one")
    assert len(store.lay_out(["b"], [], (1, 1), "soundssl test")) == 1
    assert len(files.Features(tmp_path / "a.h5").frames) == 5000


def test_what_the_disk_refuses_at_the_end_ends_the_run(tmp_path, monkeypatch):
    store = Store(tmp_path / "a.h5", ATTRIBUTES, "f2", "one")
    fill(store, "b", 50, files.Spool(store.folder, "worker-0", "f2"))

    def broken(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=r"Input/output error: '.*a\.h5'"):
        store.lay_out(["b"], [], (1, 1), "soundssl test")
    assert "a.h5" not in os.listdir(tmp_path)
