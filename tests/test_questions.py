"""Every question names a file that exists and seconds in it, however the clips were made: cut, separated, joined."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cluster_world import run
from conftest import RATE
from test_cluster import write_embeddings
from test_separate import write_separator

from soundssl import clustering, files, labelling, models

SECONDS = 8.0


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Write noise whose level changes every half second, so that a place is known by its level."""
    folder = tmp_path_factory.mktemp("heard")
    generator = np.random.default_rng(0)
    for name in ("north/a.wav", "south/a.wav"):
        level = np.repeat(10 ** generator.uniform(-2.5, 0, round(2 * SECONDS)), RATE // 2)
        (folder / name).parent.mkdir()
        soundfile.write(folder / name, 0.2 * level * generator.uniform(-1, 1, len(level)), RATE)
    return folder


def write_model(path: Path, features: Path) -> Path:
    """Write an untrained model for the front end of a features file."""
    source = files.Features(features)
    network = models.build("plain", 8, source.bands, source.window)
    config = {
        **{"encoder": "plain", "size": 8, "bands": source.bands, "frames": source.window},
        **{"norm": "batch", "unit_length": True},
        **{"front_end": source.front_end(), "heads": {}},
    }
    tensors = {f"encoder.{name}": value.numpy() for name, value in network.state_dict().items()}
    files.write_model(path, tensors, config, inputs=[], made_from="test")
    return path


def done(*words: object) -> None:
    found = run(*words, "-q")
    assert found.status == 0, found.err


def features_of(how: str, recordings: Path, folder: Path) -> Path:
    """Return features of the recordings, cut into clips, separated first, or joined of two."""
    path = folder / "f.h5"
    if how == "cut":
        done("featurize", recordings, "--clip", 3, "-o", path)
    elif how == "separated":
        model = write_separator(folder / "s.safetensors")
        done("separate", recordings, "-m", model, "-o", folder / "s.h5", "--device", "cpu", "--precision", "float32")
        done("featurize", folder / "s.h5", "-o", path)
    else:
        for part in ("1/2", "2/2"):
            done("featurize", recordings, "--part", part, "--clip", 3, "-o", folder / f"{part[0]}.part.h5")
        done("featurize", folder / "1.part.h5", folder / "2.part.h5", "-o", path)
    return path


@pytest.mark.parametrize("how", ["cut", "separated", "joined"])
def test_a_question_names_a_file_and_the_seconds_in_it(recordings, tmp_path, how):
    features = features_of(how, recordings, tmp_path)
    model = write_model(tmp_path / "m.safetensors", features)
    on = ["--device", "cpu", "--precision", "float32", "--threads", 1]
    if how == "joined":  # embeddings are joined as well, of each part
        for part in "12":
            done("embed", tmp_path / f"{part}.part.h5", "-m", model, "-o", tmp_path / f"{part}.e.h5", *on)
        done("embed", tmp_path / "1.e.h5", tmp_path / "2.e.h5", "-o", tmp_path / "e.h5")
    else:
        done("embed", features, "-m", model, "-o", tmp_path / "e.h5", *on)
    done("cluster", tmp_path / "e.h5", "--method", "kmeans", "--k", 6, "-o", tmp_path / "c.h5", *on)
    done("label-clusters", tmp_path / "c.h5", "--questions", tmp_path / "q.csv")
    with open(tmp_path / "q.csv", newline="") as sheet:
        lines = list(csv.DictReader(sheet))
    assert len(lines) >= 3
    source, levels = files.Features(features), []
    rows = {str(key): i for i, key in enumerate(source.clips.key)}
    for line in lines:
        row = rows[line["clip"]]
        start, end = float(line["start"]), float(line["end"])
        sound, rate = soundfile.read(line["file"])
        assert 0 <= start < end <= len(sound) / rate and source.clips.recording[row] in line["file"]
        first = source.offset[row] + round((start - source.clips.start[row]) * 100)
        heard = np.log(np.sqrt((sound[round(start * rate) : round(end * rate)] ** 2).mean()))
        levels.append(heard - np.log(np.sqrt(np.mean(np.exp(2 * source.frames[first : first + 96])))))
    if how != "separated":  # a track is quieter than the mixture that is listened to
        assert np.std(levels) < 0.1
    for each in clustering.largest(tmp_path / "c.h5"):
        for window in each["nearest"]:
            assert Path(window["file"]).is_file()
            assert window["second"] == window["start"] + source.clips.start[rows[window["clip"]]]


def test_the_picture_shows_sound_where_it_is_found_and_names_where_not(recordings, tmp_path, monkeypatch):
    from soundssl.clustering import picture

    features = features_of("cut", recordings, tmp_path)
    model = write_model(tmp_path / "m.safetensors", features)
    on = ["--device", "cpu", "--precision", "float32", "--threads", 1]
    done("embed", features, "-m", model, "-o", tmp_path / "e.h5", *on)
    words = ["cluster", tmp_path / "e.h5", "--method", "kmeans", "--k", 3, "-o", tmp_path / "c.h5", *on]
    done(*words, "--picture", tmp_path / "c.png")
    nearest = clustering.largest(tmp_path / "c.h5")[0]["nearest"]
    shown = picture._spectrograms(nearest, 0.96)
    assert len(shown) == len(nearest) and all(frames.shape[1] == 64 for frames in shown)
    assert picture._spectrograms([{**nearest[0], "file": "gone.wav"}], 0.96) == []
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_shows_the_frames_of_any_front_end(recordings, tmp_path, monkeypatch):
    from soundssl.clustering import picture
    from soundssl.reports import pictures

    features = tmp_path / "f.h5"
    done("featurize", recordings, "--clip", 3, "--preset", "bird", "--bands", 80, "-o", features)
    on = ["--device", "cpu", "--precision", "float32", "--threads", 1]
    done("embed", features, "-m", write_model(tmp_path / "m.safetensors", features), "-o", tmp_path / "e.h5", *on)
    done("cluster", tmp_path / "e.h5", "--method", "kmeans", "--k", 2, "-o", tmp_path / "c.h5", *on)
    shown = []
    monkeypatch.setattr(pictures, "clusters", lambda *given: shown.append(given))
    found = clustering.largest(tmp_path / "c.h5")
    picture.plot(tmp_path / "c.png", tmp_path / "c.h5", found)
    source, (_, _, _, _, categories, scale) = files.Features(features), shown[0]
    assert (scale.fmin, scale.fmax) == (150.0, 15000.0)
    for category, each in zip(categories, found, strict=True):
        assert len(category.frames) == len(category.titles) == len(each["nearest"])
        for frames, window in zip(category.frames, each["nearest"], strict=True):
            first = source.offset[list(source.clips.key).index(window["clip"])] + source.frames_of(
                window["start"] + 1e-9
            )
            first -= window["start"] < 1e-6  # frames_of is one at the least
            assert np.array_equal(frames, source.frames[first : first + source.window])
    features.unlink()  # then the recordings are there still, as VGGish has them
    picture.plot(tmp_path / "c.png", tmp_path / "c.h5", found)
    assert shown[1][5].fmax == 7500.0 and shown[1][4][0].frames[0].shape[1] == 64
    assert picture._stored(source, [{"row": 3}], 0.96) == []


def test_clusters_of_earlier_versions_name_their_clips(tmp_path):
    rows = clustering.read_rows(write_embeddings(tmp_path / "e.h5", np.eye(8, dtype="f4").repeat(4, 0)))
    centres = clustering.fit(rows, 4, clustering.Options("kmeans"))
    about = clustering.attributes(rows, centres) | {"used": 4}
    with files.create(tmp_path / "c.h5", "clusters", inputs=[], made_from="", attributes=about) as sink:
        clustering.write(Older(sink), rows, centres)
    windows = labelling.read_windows(tmp_path / "c.h5")
    [question] = windows.questions(np.array([5]))
    assert (question.file, question.clip, question.start) == ("clip-001", "clip-001", 10.0)


class Older:
    """Write what earlier versions did: no file to listen to."""

    def __init__(self, sink) -> None:
        self.sink = sink

    def __getattr__(self, name: str):
        return getattr(self.sink, name)

    def write(self, name: str, values) -> None:
        if name not in ("clip/source", "clip/start"):
            self.sink.write(name, values)
