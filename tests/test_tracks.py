"""Separated tracks in a features file: written beside their mixtures, found again, also after turning into log-mel."""

import h5py
import numpy as np
import pytest

from soundssl import files
from soundssl.files import Spool, Store
from soundssl.files.copying import BLOCK
from soundssl.ops.spectrogram import WAVEFORM, FrontEnd

ATTRIBUTES = {**WAVEFORM.attributes(), "resampler": "none", "image_rate": 0.0}
LEVELS = (-1.0, -40.0)


def write_tracks(path, mixtures: dict[str, np.ndarray], parts: int = 2):
    """Write mixtures as a spool holds them, each with tracks that share it out, the last of them silent."""
    store = Store(path, ATTRIBUTES, "f4", "one")
    spool = Spool(store.folder, "worker-0", "f4")
    for key, waveform in mixtures.items():
        about = {"recording": key, "split": "1", "source": f"{key}.wav", "start": 0.0}
        for track in (None, *range(parts)):
            spool.start()
            spool.add_frames(waveform if track is None else waveform * (track == 0))
            entry = {"key": key, **about, **spool.finish()}
            if track is not None:
                entry |= {"key": f"{key}#{track}", "parent": key, "track": track, "processor": 0}
                entry |= {"level": LEVELS[track], "silent": int(track > 0)}
            store.add(entry)
    store.lay_out(list(store.done), [], (1, 1), None)
    return path


def test_tracks_know_their_mixture(tmp_path):
    generator = np.random.default_rng(0)
    waves = {key: generator.normal(size=n).astype("f4") for key, n in (("b", 20000), ("a", 16000))}
    source = files.Features(write_tracks(tmp_path / "separated.h5", waves))
    assert list(source.clips.key) == ["a", "a#0", "a#1", "b", "b#0", "b#1"]
    assert source.tracks.parent.tolist() == [-1, 0, 0, -1, 3, 3] and source.tracks.track.tolist() == [-1, 0, 1] * 2
    assert source.tracks.processor.tolist() == [-1, 0, 0] * 2 and source.tracks.silent.tolist() == [0, 0, 1] * 2
    assert source.tracks.level.tolist() == [0, -1, -40] * 2
    assert source.waveform and source.bands == 1 and source.frames.shape == (3 * 36000,)
    assert np.array_equal(source.frames[source.offset[4] : source.offset[5]], waves["b"])
    everything = np.concatenate([waves["a"], waves["a"], waves["a"] * 0, waves["b"], waves["b"], waves["b"] * 0])
    assert source.mean == pytest.approx(everything.mean(), abs=1e-6)
    assert source.deviation == pytest.approx(everything.std(), abs=1e-5)
    assert source.frames_of(0.5) == 8000 and source.seconds(8000) == 0.5


def test_a_finished_clip_is_read_back_from_the_spool(tmp_path):
    waveform = np.arange(BLOCK // 2, dtype="f4")
    store = Store(tmp_path / "w.h5", ATTRIBUTES, "f4", "one")
    spool = Spool(store.folder, "worker-0", "f4")
    for key in ("first", "second"):
        spool.start()
        spool.add_frames(waveform + (key == "second"))
        store.add({"key": key, **spool.finish()})
    blocks = list(store.frames_of("second"))
    assert len(blocks) > 1 and np.array_equal(np.concatenate(blocks), waveform + 1)
    store.discard()


def test_files_without_tracks_say_so(tmp_path):
    store = Store(tmp_path / "w.h5", ATTRIBUTES, "f4", "one")
    spool = Spool(store.folder, "worker-0", "f4")
    spool.start()
    spool.add_frames(np.zeros(16000, "f4"))
    store.add({"key": "a", "recording": "a", "split": "", "source": "a", "start": 0.0, **spool.finish()})
    store.lay_out(["a"], [], (1, 1), None)
    source = files.Features(tmp_path / "w.h5")
    assert (source.tracks.parent == -1).all() and not source.tracks.silent.any()
    with h5py.File(tmp_path / "w.h5") as file:
        assert "clip/silent" not in file


def test_a_parent_that_is_not_there_is_damage(tmp_path):
    path = write_tracks(tmp_path / "separated.h5", {"a": np.ones(16000, "f4")})
    with h5py.File(path, "r+") as file:
        file["clip/parent"][1] = 7
    with pytest.raises(
        files.FormatError, match=r"clip/parent has numbers from -1 to 7, clip/key has 3 rows; make it again"
    ):
        files.Features(path)


def test_the_wrong_representation_is_refused_with_a_remedy(tmp_path):
    source = files.Features(write_tracks(tmp_path / "separated.h5", {"a": np.ones(16000, "f4")}))
    source.require("waveform", "separation needs")
    with pytest.raises(files.FormatError, match=r"holds waveform features; the encoder takes logmel features: make"):
        source.require("logmel", "the encoder takes")


def test_the_waveform_front_end_states_every_constant():
    assert set(WAVEFORM.attributes()) == set(FrontEnd().attributes())
    assert WAVEFORM.frame_rate == WAVEFORM.sample_rate and WAVEFORM.bands == 1
