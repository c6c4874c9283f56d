"""Short recordings and others that give no clip: said once a kind, with the remedy; filled up, or repeated."""

import numpy as np
import pytest
import soundfile
from conftest import RATE, synthesise
from test_featurize import call, keys, tone  # noqa: F401

from soundssl import datasets, files
from soundssl.extraction import Recipe, skipping
from soundssl.extraction.decode import media_source
from soundssl.ops import spectrogram
from soundssl.ops.spectrogram import log_mel
from soundssl.progress import Progress

REMEDY = "featurize --short pad fills such up with silence, --short tile repeats them"


@pytest.fixture
def classes(tmp_path):
    """Write one long and one short recording of one class, five short ones of another, and a file that is none."""
    folder = tmp_path / "classes"
    tone(folder / "dog" / "0.wav", 1.2)
    tone(folder / "dog" / "1.wav", 0.31)
    for i in range(5):
        tone(folder / "cat" / f"{i}.wav", 0.1 * i + 0.2)
    (folder / "words.wav").write_text("words")
    return folder


def test_short_recordings_are_one_line_with_count_names_and_remedy(classes, tmp_path, call):  # noqa: F811
    output = tmp_path / "f.h5"
    status, _, error = call("--dataset", "folders", classes, "-o", output)
    first, *others, last = error.splitlines()
    names = [classes / "cat" / f"{i}.wav" for i in range(3)]
    assert status == 3 and first == (
        f"soundssl featurize: {names[0]}: too short: 0.18 s of frames, a window takes 0.96 s; skipped, and 5 more for "
        f"such a reason: {names[1]}, {names[2]} and others, all named in {output}; {REMEDY}"
    )
    assert others == [
        f"soundssl featurize: {classes}/words.wav: not a media file; skipped",
        "soundssl featurize: no clip is left of 1 class: cat (5)",
    ]
    assert "7 inputs skipped" in last
    with files.reading.open_checked(output, ["features"]) as file:
        assert len(file["skipped/path"]) == 7, "all of them"


def test_a_run_that_goes_on_says_all_of_it_again(classes, tmp_path, call):  # noqa: F811
    words = ("--dataset", "folders", classes, "-o", tmp_path / "f.h5", "--update")
    first = call(*words)[2]
    tone(classes / "dog" / "2.wav", 1.4)
    again = call(*words)[2]
    assert "and 5 more for such a reason" in again and "no clip is left of 1 class: cat (5)" in again
    assert set(first.splitlines()[:3]) <= set(again.splitlines())


@pytest.mark.parametrize("short", ["pad", "tile"])
def test_short_recordings_are_filled_up_or_repeated(classes, tmp_path, call, short):  # noqa: F811
    output = tmp_path / "f.h5"
    status, _, error = call(classes, "-o", output, "--short", short, "--store", "float32")
    source = files.Features(output)
    assert status == 3 and source.attributes["short"] == short and "too short" not in error
    assert len(source.clips) == 7
    sound, _ = soundfile.read(classes / "dog" / "1.wav", dtype="float32")
    samples = spectrogram.FrontEnd().samples(96)
    wanted = np.resize(sound, samples) if short == "tile" else np.pad(sound, (0, samples - len(sound)))
    row = list(source.clips.key).index("dog/1.wav")
    found = source.frames[source.offset[row] : source.offset[row + 1]]
    assert found.shape == (96, 64) and np.array_equal(found, log_mel(wanted))


def test_tiles_are_whole_copies_and_what_is_long_enough_stays():
    generator = np.random.default_rng(0)
    for length, samples in ((1, 5), (3, 10), (4, 8), (7, 7), (9, 5), (160, 16000)):
        sound = generator.normal(size=length).astype(np.float32)
        blocks = np.split(sound, sorted(generator.integers(0, length + 1, 3)))  # some of them empty
        found = np.concatenate(list(spectrogram.tiled(blocks, samples)))
        assert np.array_equal(found, sound if length >= samples else np.resize(sound, samples))
    assert list(spectrogram.tiled([], 5)) == [], "nothing cannot be repeated"


def test_no_sound_at_all_cannot_be_repeated(tmp_path, call):  # noqa: F811
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), RATE)
    status, _, error = call(tmp_path / "none.wav", "-o", tmp_path / "f.h5", "--short", "tile")
    assert status == 1 and "--short pad" not in error


def test_a_way_that_is_none_is_refused(tmp_path, call):  # noqa: F811
    soundfile.write(tmp_path / "a.wav", synthesise("chirp", np.random.default_rng(0), 1.2), RATE)
    status, _, error = call(tmp_path / "a.wav", "-o", tmp_path / "f.h5", "--short", "loop")
    assert status == 2 and "'loop' is not one of 'skip', 'pad', 'tile'" in " ".join(error.split())


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, message: str) -> None:
        self.lines.append(message)


def told(reasons: dict[str, str], clips: list[datasets.Clip], **about) -> list[str]:
    source = media_source({clip.key: clip for clip in clips}, Recipe(**about), "float32")
    heard = Heard()
    skipping.tell([{"key": key, "path": key, "reason": reason} for key, reason in reasons.items()], source, heard)
    return heard.lines


def test_reasons_are_of_one_kind_where_only_numbers_and_their_own_name_differ(tmp_path):
    reasons = {
        "a": "truncated: 1.5 of 10 s",
        "b": "no audio stream",
        "c": "truncated: 22 of 30.25 s",
        "d": "OSError: d",
    }
    clips = [datasets.Clip(key, tmp_path / key) for key in reasons]
    assert told(reasons, clips) == [
        "a: truncated: 1.5 of 10 s; skipped, and 1 more for such a reason: c",
        "b: no audio stream; skipped",
        "d: OSError: d; skipped",
    ]
    assert told({}, clips) == []


def test_long_names_are_shortened_and_told_what_to_do(tmp_path):
    (line,) = told({"x" * 5000: "cannot be read (File name too long)"}, [datasets.Clip("a", tmp_path)])
    assert len(line) < 250 and line.endswith("; in a list, write one path a line")


def test_every_class_without_a_clip_is_named(tmp_path):
    of = {"a": ("dog", "cat"), "b": ("cat",), "c": ("bird",), "d": None}
    clips = [datasets.Clip(key, tmp_path / key, classes=names) for key, names in of.items()]
    assert told(dict.fromkeys("ab", "empty file"), clips)[-1] == "no clip is left of 2 classes: cat (2), dog (1)"
    assert len(told(dict.fromkeys("bd", "empty file"), clips)) == 1
