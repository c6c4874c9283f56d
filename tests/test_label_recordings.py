"""Labels that name recordings by their paths say of the clips of a file what they said of the recordings."""

import os

import builder
import numpy as np
import pytest
import soundfile
from cluster_world import run
from conftest import RATE, synthesise

from soundssl import files
from soundssl.labels import Index, Timeline, joined

SPANS = [("a.wav", "media/a.wav", 0.0, 3.0), ("a.wav", "media/a.wav", 2.0, 3.0), ("b.wav", "./media/b.wav", 0.0, 4.0)]
CLASSES = ["dog", "cat"]


@pytest.fixture
def features(tmp_path):
    """Three clips of two recordings, two of which overlap, and a clip that another path is the key of."""
    keys = [f"{name}@{start:g}-{start + length:g}" for name, _, start, length in SPANS]
    frames = {key: np.zeros((round(100 * length), 64)) for key, (*_, length) in zip(keys, SPANS, strict=True)}
    frames["media/c.wav"] = np.zeros((200, 64))
    made = builder.features(
        tmp_path / "f.h5", frames, source=[*(path for _, path, *_ in SPANS), "c.wav"],
        start=np.array([*(start for *_, start, _ in SPANS), 0.0]), recording=["a.wav", "a.wav", "b.wav", "c.wav"],
    )  # fmt: skip
    return files.Features(made)


def test_windows_of_clips_hear_what_their_recordings_say(features, tmp_path):
    """Over random segments and events: the word on a moment of a clip is that on the moment of its recording."""
    generator, count = np.random.default_rng(0), 12
    path = np.array(["media/a.wav", os.path.abspath("media/b.wav"), "media/c.wav", "elsewhere.wav"], object)
    for number in range(10):
        start = generator.uniform(0, 6, count).round(1)
        key, label = path[generator.integers(0, 4, count)], generator.integers(-1, 2, (count, 2)).astype("i1")
        end = np.where(generator.random(count) < 0.2, np.inf, start + generator.uniform(0, 3, count).round(1))
        of = generator.integers(0, count, 20)  # events lie within their segments
        late = np.sort(generator.uniform(0, 4, (2, 20)), 0)
        onset, offset = np.minimum(start[of] + late, end[of])
        rows = list(zip(of.tolist(), generator.integers(0, 2, 20).tolist(), onset, offset, strict=True))
        segments = list(zip(key, start, end, strict=True))
        name = tmp_path / f"{number}.labels.h5"
        given = files.Labels(builder.labels(name, segments, CLASSES, label, events=rows, split=["x"] * count))
        clip = generator.integers(0, 4, 60)
        length = np.array([*(length for *_, length in SPANS), 2.0])[clip]
        begin = generator.uniform(0.0, length - 0.5)
        within = begin, begin + 0.5
        moved = joined(given, features)
        found = Timeline(moved, moved.events, features.clips.key).of_windows(clip, *within)
        named = ["media/a.wav", "media/a.wav", os.path.abspath("media/b.wav"), "media/c.wav"]
        offset = features.clips.start[clip]
        wanted = Timeline(given, given.events, named).of_windows(clip, *(each + offset for each in within))
        np.testing.assert_array_equal(found, wanted)
        assert len(moved.label) == len(moved.key) == len(moved.weight) == len(moved.split)
        assert (moved.start[moved.key != "elsewhere.wav"] >= 0).all()
        assert (key == "elsewhere.wav").sum() == (moved.key == "elsewhere.wav").sum()


def test_labels_of_clips_stay_as_they_are(features, tmp_path):
    keys = [str(key) for key in features.clips.key]
    given = files.Labels(builder.labels(tmp_path / "l.h5", builder.whole(keys), ["dog"], [[1]] * 4))
    assert joined(given, features) is given
    other = files.Labels(builder.labels(tmp_path / "m.h5", builder.whole(["x", "c"]), ["dog"], [[1]] * 2))
    assert joined(other, features) is other


def test_a_segment_says_nothing_of_clips_beyond_it(features, tmp_path):
    given = files.Labels(builder.labels(tmp_path / "l.h5", [("media/a.wav", 0.5, 1.5)], ["dog"], [[1]]))
    assert Index(joined(given, features), features.clips.key).of_clips()[:, 0].tolist() == [1, -1, -1, -1]


def test_answers_about_detections_train_the_next_recogniser(toy, tmp_path, monkeypatch):
    """Featurize a folder, detect, review, and train and score on the answers, whose recordings are named by paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "media").mkdir()
    generator = np.random.default_rng(3)
    for name in ("tone", "noise"):
        for number in range(3):
            soundfile.write(f"media/{name}-{number}.wav", synthesise(name, generator), RATE)
    learn = ("--objective", "classification", "--steps", 2, "--batch-size", 4, "--size", 8, "-q", "--device", "cpu")
    assert run("train", toy.features, "--labels", toy.labels, *learn, "-o", "first.safetensors").status == 0
    done = run("detect", "media", "-m", "first.safetensors", "--threshold", 0, "--top", 1, "-o", "d.csv", "-j", 1)
    assert done.status == 0, done.err
    lines = [line.split(",") for line in (tmp_path / "d.csv").read_text().splitlines()[1:]]
    sheet = ["asked,file,start,end,class"]
    for path, start, end, asked, *_ in lines:
        sheet.append(f"{asked},{path},{start},{end},{'tone' if 'tone' in path else 'noise'}")
    (tmp_path / "s.csv").write_text("\n".join(sheet) + "\n")
    done = run("label-clusters", "d.csv", "--answers", "s.csv", "-o", "answers.h5")
    assert done.status == 0, done.err
    assert set(files.Labels("answers.h5").key) == {line[0] for line in lines}
    for name, words in (("whole.h5", ()), ("cut.h5", ("--clip", 1.5))):
        assert run("featurize", "media", *words, "-o", name, "-j", 1, "-q").status == 0
        done = run("evaluate", "retrieval", name, "--labels", "answers.h5", "--bootstrap", 0)
        assert done.status == 0 and set(done.rows()) >= {"mAP"}, done.err
    done = run("train", "cut.h5", "--labels", "answers.h5", *learn, "-o", "next.safetensors")
    assert done.status == 0, done.err
