"""Waveform features: the resampled sound itself, from which the same log-mel frames are made as from the media."""

import h5py
import numpy as np
import pytest
import soundfile
from conftest import RATE, write_video
from separation_world import write_classes
from test_tracks import write_tracks

from soundssl import files, media
from soundssl.commands import main


def featurize(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["featurize", *map(str, words), "-j", "1", "-q"])
    return ended.value.code or 0


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Write three recordings (one a video, one too short) and featurize them as waveforms."""
    folder = tmp_path_factory.mktemp("waveforms")
    (folder / "media").mkdir()
    generator = np.random.default_rng(0)
    soundfile.write(folder / "media" / "a.wav", generator.normal(0, 0.1, 2 * RATE), RATE, subtype="FLOAT")
    write_video(folder / "media" / "b.mp4", generator.normal(0, 0.1, 3 * RATE).astype("f4"))
    soundfile.write(folder / "media" / "short.wav", np.zeros(15599), RATE)
    path = folder / "waves.h5"
    assert featurize("--representation", "waveform", folder / "media", "-o", path) == 3
    return path


def test_the_sound_is_kept_sample_by_sample(waves):
    source, folder = files.Features(waves), waves.parent / "media"
    assert list(source.clips.key) == ["a.wav", "b.mp4"] and source.frames.dtype == np.float32
    for i, name in enumerate(source.clips.key):
        heard = np.concatenate(list(media.read_audio(folder / name, RATE)))
        assert np.array_equal(np.concatenate(list(source.blocks(i))), heard)
    with h5py.File(waves) as file:
        assert file["skipped/path"].asstr()[0].endswith("short.wav")
        assert file["skipped/reason"].asstr()[0].startswith("too short: 0.97 s of frames, a window takes 0.975 s")
        assert file.attrs["representation"] == "waveform" and len(file["images"]) == 3


def test_log_mel_of_waveforms_is_that_of_the_media(waves):
    direct, turned = waves.parent / "direct.h5", waves.parent / "turned.h5"
    assert featurize(waves.parent / "media", "-o", direct) == 3
    assert featurize(waves, "-o", turned) == 0
    one, two = files.Features(direct), files.Features(turned)
    one.check_front_end(two.front_end(), "turned")
    assert np.array_equal(one.frames[:], two.frames[:]) and np.array_equal(one.offset, two.offset)
    assert np.array_equal(one.images[:], two.images[:]) and list(one.clips.source) == list(two.clips.source)


def test_tracks_stay_beside_their_mixtures(tmp_path):
    made = write_tracks(tmp_path / "separated.h5", {"b": np.ones(16000, "f4"), "a": np.ones(32000, "f4")})
    assert featurize(made, "-o", tmp_path / "f.h5", "--no-provenance") == 0
    before, after = files.Features(made).tracks, files.Features(tmp_path / "f.h5").tracks
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True)) and before.parent.max() == 3
    frames = np.diff(files.Features(tmp_path / "f.h5").offset)
    assert frames.tolist() == [198] * 3 + [98] * 3


def test_log_mel_cannot_be_turned_back(toy, tmp_path, capsys):
    assert featurize(toy.features, "-o", tmp_path / "w.h5", "--representation", "waveform") == 4
    assert "holds logmel features; the command takes waveform features" in capsys.readouterr().err
    assert not (tmp_path / "w.h5").exists()


def test_a_finished_turn_is_up_to_date_and_an_input_is_no_output(waves, capsys):
    output = waves.parent / "again.h5"
    assert featurize(waves, "-o", output) == 0
    before = output.read_bytes()
    assert featurize(waves, "-o", output) == 0 and output.read_bytes() == before
    assert featurize(waves, "-o", waves) == 2
    assert "is one of the inputs" in capsys.readouterr().err


def test_waveforms_are_no_spectrograms_elsewhere(waves, tmp_path, capsys):
    for words in (
        ["sample-triplets", waves, "-o", tmp_path / "t.h5"],
        ["evaluate", "retrieval", waves, "--labels", write_classes(tmp_path / "labels.h5")],
    ):
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, words)))
        assert ended.value.code == 4 and "logmel features: make them with" in capsys.readouterr().err
