"""The spool of an unfinished run: it goes on after a torn line, and only the keys say how what it holds is laid out."""

import errno
import os
import signal
import threading
import time

import numpy as np
import pytest

from soundssl import SoundsslError, files
from soundssl.files import copying
from soundssl.files.spooling import Store
from soundssl.ops.spectrogram import FrontEnd

ATTRIBUTES = {**FrontEnd().attributes(), "resampler": "none", "image_rate": 0.0}


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
    for spoil in ("two", "rubbish"):
        store = Store(output, ATTRIBUTES, "f2", "one")
        fill(store, "b", 3, files.Spool(store.folder, "worker-0", "f2"))
        store.close()
        if spoil == "rubbish":
            (store.folder / "journal.jsonl").write_text('{"made_from": "one"}\n\0\0\0\n')
        store = Store(output, ATTRIBUTES, "f2", "one" if spoil == "rubbish" else "two")
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


def test_what_the_system_writes_and_reads_piece_by_piece_is_whole(tmp_path, monkeypatch):
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:777], at))  # as they may
    monkeypatch.setattr(os, "preadv", lambda file, room, at: read(file, [room[0][:555]], at))
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


def test_frames_that_find_no_room_end_the_run_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "BLOCK", 128)
    store = Store(tmp_path / "a.h5", ATTRIBUTES, "f2", "one")
    fill(store, "b", 50, files.Spool(store.folder, "worker-0", "f2"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.h5'"):
        store.lay_out(["b"], [], (1, 1), "soundssl test")
    monkeypatch.undo()
    spool = files.Spool(store.folder, "worker-1", "f2")
    spool.start()
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.h5\.parts/worker-1-.*\.frames'"):
        spool.add_frames(np.zeros((1, 64), "f2"))
    monkeypatch.undo()
    assert (
        sorted(os.listdir(tmp_path)) == ["a.h5.lock", "a.h5.parts"]
        and len(store.lay_out(["b"], [], (1, 1), "soundssl test")) == 1
    )
    assert len(files.Features(tmp_path / "a.h5").frames) == 50


def test_what_the_disk_refuses_while_others_write_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "BLOCK", 128)
    monkeypatch.setattr(copying, "SETTLED", 128)
    store = Store(tmp_path / "a.h5", ATTRIBUTES, "f2", "one")
    fill(store, "b", 50, files.Spool(store.folder, "worker-0", "f2"))
    calls, write = [], os.fsync

    def broken(file):  # once: the system tells of what it could not write to who asks first, and to nobody else
        calls.append(file)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        write(file)

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=r"Input/output error: '.*a\.h5'"):
        store.lay_out(["b"], [], (1, 1), "soundssl test")
    assert sorted(os.listdir(tmp_path)) == ["a.h5.lock", "a.h5.parts"]


def test_nothing_is_written_when_the_run_has_ended_however_often_it_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "BLOCK", 128)
    store = Store(tmp_path / "a.h5", ATTRIBUTES, "f2", "one")
    fill(store, "b", 50, files.Spool(store.folder, "worker-0", "f2"))
    writing, write, first = [], os.pwrite, threading.Lock()
    timers = [threading.Timer(0.1 * i, os.kill, (os.getpid(), signal.SIGINT)) for i in (1, 2, 3)]

    def slow(file, data, at):
        if first.acquire(blocking=False):
            for timer in timers:
                timer.start()
        writing.append(at)
        time.sleep(1)
        writing.remove(at)
        return write(file, data, at)

    monkeypatch.setattr(os, "pwrite", slow)
    with pytest.raises(KeyboardInterrupt):
        store.lay_out(["b"], [], (1, 1), "soundssl test")
    assert not any(timer.is_alive() for timer in timers)
    assert not writing and sorted(os.listdir(tmp_path)) == ["a.h5.lock", "a.h5.parts"]
