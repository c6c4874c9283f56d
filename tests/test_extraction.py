"""Extraction and separation from Python: what they do with ordinary defaults, whom they tell, what they raise."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
import typer
from conftest import RATE, synthesise
from separation_world import write_classes, write_waves
from test_separate import write_separator

from soundssl import SoundsslError, datasets, extraction, files, separation
from soundssl.commands.evaluate import separation as evaluate_separation
from soundssl.commands.featurize import featurize
from soundssl.commands.separate import separate
from soundssl.datasets import Shard
from soundssl.ops.spectrogram import WAVEFORM
from soundssl.progress import Progress


class Heard(Progress):
    """Keep what a function says, and the steps it takes."""

    def __init__(self):
        self.said, self.warned, self.steps = [], [], 0

    def say(self, message):
        self.said.append(message)

    def warn(self, message):
        self.warned.append(message)

    @contextmanager
    def track(self, description, total, unit):
        def advance(steps=1, note=""):
            self.steps += steps

        yield advance


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write recordings of two classes, one of them silent, and a file that is none; waves, classes and a separator."""
    folder = tmp_path_factory.mktemp("extraction")
    for i, name in enumerate(("low/a.wav", "low/b.wav", "high/c.wav")):
        (folder / "media" / name).parent.mkdir(parents=True, exist_ok=True)
        sound = synthesise("chirp", np.random.default_rng(i), 1.2 + 0.3 * i) * (name != "low/b.wav")
        soundfile.write(folder / "media" / name, sound, RATE)
    (folder / "media" / "bad.wav").write_text("words")
    write_waves(folder / "w.waves.h5")
    write_classes(folder / "l.h5")
    write_separator(folder / "s.safetensors")
    return folder


def test_featurize_and_its_command_write_the_same(world, capfd):
    listener = Heard()
    made = extraction.featurize(world / "media", world / "a.h5", progress=listener)
    assert capfd.readouterr() == ("", ""), "the library tells nobody but its listener"
    assert (made.clips, made.silent, made.stood) == (3, 1, False)
    assert made.skipped == ((f"{world}/media/bad.wav", "not a media file"),)
    assert made.hours == pytest.approx(len(files.Features(world / "a.h5").frames) / 100 / 3600)
    assert str(made) == "3 clips, 0.00 hours, 1 inputs skipped, 1 silent"
    assert listener.warned == [f"{world}/media/bad.wav: not a media file; skipped"] and listener.steps == 4
    assert extraction.featurize([world / "media"], world / "a.h5").stood
    with pytest.raises(typer.Exit) as ended:
        featurize([world / "media"], output=world / "b.h5", no_provenance=True)
    assert ended.value.exit_code == 3
    assert (world / "a.h5").read_bytes() == (world / "b.h5").read_bytes()
    featurize([world / "media"], output=world / "b.h5")
    assert "is up to date" in capfd.readouterr().err


def test_clips_of_a_collection_have_labels(world, tmp_path):
    clips = extraction.collect([world / "media"], "folders")
    made = extraction.featurize(clips, tmp_path / "f.h5", labels=tmp_path / "l.h5", jobs=1)
    labels = files.Labels(tmp_path / "l.h5")
    assert made.clips == 3 and labels.classes == ["high", "low"] and labels.label.tolist() == [[1, 0], [0, 1], [0, 1]]
    mine = {clip.key: clip for clip in datasets.load("folders", world / "media") if clip.classes == ("low",)}
    extraction.featurize(mine, tmp_path / "g.h5", extraction.Recipe(short="pad"), store="float32", jobs=1)
    assert files.Features(tmp_path / "g.h5").frames.dtype == np.float32


def test_shards_are_joined_to_the_whole(world, tmp_path):
    for number in (1, 2):
        extraction.featurize(world / "media", tmp_path / f"{number}.h5", shard=Shard(number, 2), jobs=1)
    extraction.featurize(world / "media", tmp_path / "whole.h5", jobs=1)
    shards = [tmp_path / "2.h5", tmp_path / "1.h5"]
    assert files.join("features", shards, tmp_path / "refers.h5") == 3
    assert files.join("features", shards, tmp_path / "copy.h5", copy=True) == 3
    whole = files.Features(tmp_path / "whole.h5")
    assert np.array_equal(files.Features(tmp_path / "copy.h5").frames[:], whole.frames[:])
    assert set(files.Features(tmp_path / "refers.h5").clips.key) == set(whole.clips.key)
    with pytest.raises(files.Unusable, match=r"1\.h5 holds part 1/2, this is part 2/2; name an output for each part"):
        extraction.featurize(world / "media", tmp_path / "1.h5", shard=Shard(2, 2))


def test_waveforms_are_turned_and_separated(world, tmp_path):
    extraction.featurize(world / "media", tmp_path / "w.h5", extraction.Recipe(WAVEFORM), jobs=1)
    extraction.featurize(world / "media", tmp_path / "direct.h5", jobs=1)
    made = extraction.featurize(tmp_path / "w.h5", tmp_path / "turned.h5", jobs=1)
    assert made.clips == 3 and made.skipped == ()
    frames = [files.Features(tmp_path / name).frames[:] for name in ("direct.h5", "turned.h5")]
    assert np.array_equal(*frames)


def test_separate_and_its_command_write_the_same(world, capfd):
    listener = Heard()
    found = separation.separate(world / "w.waves.h5", world / "s.safetensors", world / "one.h5", progress=listener)
    assert capfd.readouterr() == ("", "")
    assert (found.recordings, found.tracks, found.skipped, found.stood) == (8, 24, (), False)
    assert listener.steps == 16 and listener.said[0].startswith("computing on ")
    again = separation.separate([world / "w.waves.h5"], [world / "s.safetensors"], world / "one.h5")
    assert again.stood
    separate([world / "w.waves.h5"], [world / "s.safetensors"], output=world / "two.h5", no_provenance=True)
    assert (world / "one.h5").read_bytes() == (world / "two.h5").read_bytes()
    assert separation.export(world / "one.h5", world / "listen") == 32
    with pytest.raises(files.Unusable, match=r"one\.h5 is a file; name a folder"):
        separation.export(world / "one.h5", world / "one.h5")


def test_recordings_of_media_are_separated(world, tmp_path):
    found = separation.separate(world / "media" / "low", world / "s.safetensors", tmp_path / "s.h5", jobs=1)
    assert (found.recordings, found.tracks, found.silent) == (2, 6, 3)


def test_a_separator_is_scored_and_its_command_shows_it(world, tmp_path, capfd):
    scored = separation.score(
        world / "w.waves.h5", world / "s.safetensors", labels=world / "l.h5", count=3, seconds=0.5
    )
    assert len(scored.examples) == 3 and scored.examples[0][0].shape == (2, 8000)
    separation.plot(tmp_path / "p.png", scored.examples)
    evaluate_separation(world / "w.waves.h5", world / "s.safetensors", labels=world / "l.h5", count=3, seconds=0.5)
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["value"] for row in rows] == [pytest.approx(row["value"], rel=1e-5) for row in scored.rows]


@pytest.mark.parametrize(
    ("error", "fact", "inputs", "options"),
    [
        (files.Unusable, "nothing is said of classes", "media", {"labels": "labels.h5"}),
        (SoundsslError, "not a media file; leave out --strict", "media", {"strict": True}),
        (SoundsslError, "none of 1 inputs gave a clip", "media/bad.wav", {}),
        (SoundsslError, "no media files in", "empty", {}),
        (files.FormatError, "holds logmel features; the command takes waveform", "logmel.h5", {}),
    ],
)
def test_what_cannot_be_featurized_is_said(world, tmp_path, error, fact, inputs, options):
    (world / "empty").mkdir(exist_ok=True)
    extraction.featurize(world / "media", world / "logmel.h5")
    options = {name: tmp_path / value if name == "labels" else value for name, value in options.items()}
    with pytest.raises(error, match=fact):
        extraction.featurize(world / inputs, tmp_path / "f.h5", **options)
    assert not (tmp_path / "f.h5").exists()


def test_an_input_is_no_output(world, tmp_path):
    shutil.copytree(world / "media", tmp_path / "media")
    with pytest.raises(files.Unusable, match=r"a\.wav is one of the inputs; name another output"):
        extraction.featurize(tmp_path / "media", tmp_path / "media" / "low" / "a.wav")
    with pytest.raises(files.Unusable, match=r"s\.safetensors is one of the inputs; name another output"):
        separation.separate(world / "w.waves.h5", world / "s.safetensors", world / "s.safetensors")
    with pytest.raises(files.Missing, match="media is not a folder; name the folder of the collection"):
        extraction.collect([world / "none" / "media"], "folders")


def test_what_cannot_be_separated_is_said(world, tmp_path):
    encoder = write_separator(tmp_path / "e.safetensors", encoder="plain")
    with pytest.raises(files.FormatError, match=r"e\.safetensors is an encoder, not a separator"):
        separation.separate(world / "w.waves.h5", encoder, tmp_path / "s.h5")
    with pytest.raises(ValueError, match=r"an overlap of 6\.0 s is more than half of 10\.0 s"):
        separation.separate(world / "w.waves.h5", world / "s.safetensors", tmp_path / "s.h5", overlap=6.0)
    assert not (tmp_path / "s.h5").exists()
