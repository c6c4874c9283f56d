"""separate with an on-screen model: probabilities of tracks, the two estimates, pictures of attention, bad input."""

import numpy as np
import pytest
import soundfile
from cluster_world import run
from conftest import RATE, write_video
from separation_world import write_waves
from test_onscreen import train
from test_separate import write_separator

from soundssl import files
from soundssl.ops import separation


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("separate")
    waves = write_waves(folder / "waves.h5", pictures=True)
    assert train(waves, folder / "m.safetensors").status == 0
    write_separator(folder / "blind.safetensors", tracks=2)
    (folder / "media").mkdir()
    generator = np.random.default_rng(0)
    write_video(folder / "media" / "b.mp4", generator.normal(0, 0.1, 2 * RATE).astype("f4"))
    soundfile.write(folder / "media" / "a.wav", generator.normal(0, 0.1, RATE), RATE)
    return folder


def separate(*words):
    return run("separate", *words, "--device", "cpu", "--precision", "float32", "--threads", 1, "-j", 1)


def test_every_track_has_its_probability_and_the_estimates_are_its_sums(world):
    assert separate(world / "waves.h5", "-m", world / "m.safetensors", "-o", world / "all.h5").status == 0
    done = separate(world / "waves.h5", "-m", world / "m.safetensors", "-o", world / "on.h5", "--onscreen")
    assert done.status == 0, done.err
    tracks, both = files.Features(world / "all.h5"), files.Features(world / "on.h5")
    seen = tracks.tracks.onscreen
    assert (seen[tracks.recorded] == -1).all() and ((seen > 0) & (seen < 1))[~tracks.recorded].all()
    assert both.attributes["estimates"] == "on-screen, off-screen"

    def of(source, row):
        return np.concatenate(list(source.blocks(row)))

    for row in np.flatnonzero(both.recorded):
        own = np.flatnonzero(tracks.tracks.parent == tracks.clips.key.tolist().index(both.clips.key[row]))
        expected = sum(seen[i] * of(tracks, i) for i in own)
        on, off = (of(both, i) for i in np.flatnonzero(both.tracks.parent == row))
        np.testing.assert_allclose(on, expected, atol=1e-4)
        np.testing.assert_allclose(on + off, of(both, row), atol=1e-6)
        kept = both.tracks.onscreen[both.tracks.parent == row]
        assert kept == pytest.approx([seen[own].max(), 0])
    again = separate(world / "all.h5", "-m", world / "m.safetensors", "-o", world / "twice.h5")
    assert again.status == 0 and len(files.Features(world / "twice.h5").clips) == len(tracks.clips)
    assert run("featurize", world / "all.h5", "-o", world / "f.h5", "-q", "-j", 1).status == 0
    np.testing.assert_array_equal(files.Features(world / "f.h5").tracks.onscreen, seen)


def test_from_media_files_straight_to_wav_and_nothing_of_a_sound_is_on_screen(world):
    words = [world / "media", "-m", world / "m.safetensors", "-o", world / "media.h5", "--onscreen"]
    done = separate(*words, "--wav", world / "listen")
    assert done.status == 0 and "1 of 2 recordings have no pictures; all of their sound is off screen" in done.err
    names = {path.name for path in (world / "listen").iterdir()}
    kinds = ("mixture", "on-screen", "off-screen")
    assert names == {f"{name}.{kind}.wav" for name in ("a.wav", "b.mp4") for kind in kinds}
    assert not soundfile.read(world / "listen" / "a.wav.on-screen.wav")[0].any()
    source = files.Features(world / "media.h5")
    assert source.images.shape[1] == 32, "as large as the model was trained on"


def test_attention_is_drawn_over_the_pictures(world):
    pytest.importorskip("matplotlib")
    words = ["-m", world / "m.safetensors", "-o", world / "seen.h5", "--attention", world / "looks"]
    done = separate(world / "waves.h5", *words)
    assert done.status == 0 and "8 pictures in" in done.err
    assert sorted(path.name for path in (world / "looks").iterdir()) == [f"clip-{i:02}.png" for i in range(8)]
    again = separate(world / "waves.h5", *words)
    assert "up to date" in again.err and "8 pictures in" in again.err


@pytest.mark.parametrize("more", [["--onscreen"], ["--attention", "looks"]])
def test_a_separator_that_cannot_see_is_refused(world, more):
    done = separate(world / "waves.h5", "-m", world / "blind.safetensors", "-o", world / "x.h5", *more)
    assert (done.status, "has no on-screen classifier; train one with" in done.err) == (4, True), done.err


def test_pictures_are_of_one_model(world):
    model = world / "m.safetensors"
    done = separate(world / "waves.h5", "-m", model, "-m", model, "-o", world / "x.h5", "--attention", world / "looks")
    assert (done.status, "pictures are of one model" in done.err) == (2, True), done.err


def test_further_kinds_of_a_track_follow_its_number():
    generator = np.random.default_rng(0)
    waveform = generator.normal(size=3000).astype(np.float32)
    starts = []

    def run_on(segment, start):
        starts.append(start)
        tracks = np.stack([0.75 * segment, 0.25 * segment])
        both = np.stack([tracks, tracks * np.array([[2], [3]])], 1)
        return both[generator.permutation(2)]

    parts = [tracks for _, tracks in separation.overlap_add_at([waveform], run_on, 1000, 200)]
    whole = np.concatenate(parts, -1)
    assert starts == [0, 800, 1600, 2000] and whole.shape == (2, 2, 3000)
    factor = whole[:, 1] / whole[:, 0]
    assert np.allclose(factor, factor[:, :1], atol=1e-3) and set(np.round(factor[:, 0])) == {2.0, 3.0}
