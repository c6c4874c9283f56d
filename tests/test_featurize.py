"""featurize from the outside: what it takes, what it refuses, and that no interruption shows in the bytes."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from conftest import CLASSES, RATE, synthesise, unprivileged, write_video

from soundssl import files
from soundssl.commands import main
from soundssl.files import spooling
from soundssl.media import read_audio
from soundssl.ops.spectrogram import log_mel


def tone(path: Path, seconds: float = 1.2, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = synthesise("chirp", np.random.default_rng(seed), seconds)
    form = {".flac": "FLAC", ".ogg": "OGG"}.get(path.suffix.lower(), "WAV")
    soundfile.write(os.fsencode(path), sound, RATE, format=form)


@pytest.fixture
def call(capfd, monkeypatch):
    """Give a function that runs featurize in this process, workers apart, and returns status, stdout, stderr."""

    def run(*words: object, jobs: int = 1) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["featurize", *map(str, words), "-j", str(jobs)])
        out = capfd.readouterr()
        return ended.value.code or 0, out.out, out.err

    return run


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Write four recordings and no video."""
    folder = tmp_path_factory.mktemp("few") / "media"
    for i in range(4):
        tone(folder / f"{i}.wav", 1.2 + 0.1 * i, i)
    return folder


def keys(path: Path) -> list[str]:
    return list(files.Features(path).clips.key)


# --- what is written ---


def test_the_toy_set(toy):
    source, labels = files.Features(toy.features), files.Labels(toy.labels)
    names = sorted(path.name for path in toy.folder.iterdir())
    assert list(source.clips.key) == names == list(labels.key) and labels.classes == sorted(CLASSES)
    assert [labels.classes[i] for i in labels.label.argmax(1)] == [name.split("-")[0] for name in names]
    assert (labels.label.sum(1) == 1).all() and np.isinf(labels.end).all() and not labels.start.any()
    assert list(labels.split) == list(source.clips.split) == [str(int(name.split("-")[1][0]) % 3 + 1) for name in names]
    assert [Path(name).name for name in source.clips.source] == names
    for i, name in enumerate(names):
        frames = log_mel(np.concatenate(list(read_audio(toy.folder / name, RATE))))
        low, high = source.offset[i : i + 2]
        assert np.array_equal(source.frames[low:high], frames.astype(np.float16))
        count = int(source.image_offset[i + 1] - source.image_offset[i])
        assert count == (3 if name.endswith("mp4") else 0)
        levels = source.images[int(source.image_offset[i]) : int(source.image_offset[i + 1])].mean((1, 2, 3))
        assert levels == pytest.approx([10, 30, 50][:count], abs=4)
    assert not list(toy.features.parent.glob("*.parts")) and not list(toy.features.parent.glob("*.partial"))


def test_images_have_the_size_asked_for(toy, tmp_path, call):
    name = next(path for path in sorted(toy.folder.iterdir()) if path.suffix == ".mp4")
    status, _, _ = call(name, "--image-size", 64, "-o", tmp_path / "f.h5")
    source = files.Features(tmp_path / "f.h5")
    assert status == 0 and source.images.shape[1:] == (64, 64, 3) and source.attributes["image_size"] == 64
    _, _, said = call(name, "--image-size", 32, "-o", tmp_path / "f.h5")
    assert "image_size 32 instead of 64" in said and files.Features(tmp_path / "f.h5").images.shape[1] == 32
    status, _, said = call(name, "--image-size", 63, "-o", tmp_path / "g.h5")
    assert status == 2 and "63 is not a multiple of 4" in said


def test_names_and_folders_of_all_kinds(tmp_path, call, monkeypatch):
    media = tmp_path / "media"
    names = [
        "a.WAV",
        "deep/er/b.flac",
        "with space.wav",
        "new\nline.ogg",
        "wrong.mp4",
        "noextension",
        "ü/é.wav",
        "12:30.wav",
    ]
    for name in [*names, os.fsdecode(b"latin\xe9.wav")]:
        tone(media / name)
    (media / "notes.txt").write_text("x")
    status, out, err = call(media, "-o", tmp_path / "f.h5")
    assert (status, out) == (0, "") and "9 clips" in err
    assert keys(tmp_path / "f.h5") == sorted([*names, "latin%E9.wav"])
    monkeypatch.chdir(media)
    listed = b"\0".join(os.fsencode(os.path.relpath(path, media)) for path in media.rglob("*") if path.suffix != ".txt" and path.is_file())  # fmt: skip  # noqa: E501
    monkeypatch.setattr(sys, "stdin", open(_file(tmp_path / "list", listed)))  # noqa: SIM115
    assert call("-0", "-", "-o", tmp_path / "g.h5")[0] == 0
    assert keys(tmp_path / "g.h5") == keys(tmp_path / "f.h5")
    monkeypatch.setattr(sys, "stdin", open(_file(tmp_path / "list", b"a.WAV\r\nwith space.wav\n\n")))  # noqa: SIM115
    status, out, _ = call("-")
    assert (status, out) == (0, "features.h5\n") and keys(media / "features.h5") == ["a.WAV", "with space.wav"]


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_spans_of_a_table(tmp_path, call):
    tone(tmp_path / "long.wav", 6.0)
    (tmp_path / "t.csv").write_text(
        "path,start,end,label\nlong.wav,1.5,4,a;b\nlong.wav,4.5,,\nlong.wav,0,2,b\nlong.wav,,,c\n"
    )
    assert call("--dataset", "csv", tmp_path / "t.csv", "--store", "float32")[:2] == (0, f"{tmp_path}/t.features.h5\n")
    source, labels = files.Features(tmp_path / "t.features.h5"), files.Labels(tmp_path / "t.labels.h5")
    assert list(source.clips.key) == ["long.wav", "long.wav@0-2", "long.wav@1.5-4", "long.wav@4.5-"]
    assert list(source.clips.start) == [0, 0, 1.5, 4.5] and set(source.clips.recording) == {"long.wav"}
    whole, _ = soundfile.read(tmp_path / "long.wav", dtype="float32")
    for i, (start, end) in enumerate(((0, 6), (0, 2), (1.5, 4), (4.5, 6))):
        frames = log_mel(whole[int(start * RATE) : int(end * RATE)])
        assert np.array_equal(source.frames[source.offset[i] : source.offset[i + 1]], frames)
    assert labels.classes == ["a", "b", "c"]
    assert labels.label.tolist() == [[0, 0, 1], [0, 1, 0], [1, 1, 0], [-1, -1, -1]]


# --- what is skipped ---


def test_one_bad_file_is_named_kept_and_costs_nothing_else(few, tmp_path, call):
    media = tmp_path / "media"
    shutil.copytree(few, media)
    (media / "bad.wav").write_text("words")
    (media / "dead.wav").symlink_to(tmp_path / "none")
    tone(media / "short.wav", 0.5)
    write_video(media / "mute.mp4", None, pictures=1.5)
    write_video(media / "loud.mp3", np.zeros(2 * RATE), codec=None, sound_codec="mp3", fmt="mp3")
    data = (media / "loud.mp3").read_bytes()
    (media / "loud.mp3").write_bytes(data[: len(data) // 2])
    status, out, err = call(media, "-o", tmp_path / "f.h5")
    assert (status, out) == (3, "")
    reasons = {
        "bad.wav": "not a media file",
        "dead.wav": "a link to what does not exist",
        "mute.mp4": "no audio stream",
        "short.wav": "too short: 0.48 s of frames, a window takes 0.96 s",
        "loud.mp3": "truncated: ",
    }
    for name, reason in reasons.items():
        assert f"soundssl featurize: {media}/{name}: {reason}" in err
    assert len(err.splitlines()) == len(reasons) + 1, "not a word of the codecs' own"
    assert err.endswith("soundssl featurize: 4 clips, 0.00 hours, 5 inputs skipped\n")
    with files.reading.open_checked(tmp_path / "f.h5", ["features"]) as file:
        skipped = dict(zip(file["skipped/path"].asstr()[:], file["skipped/reason"].asstr()[:], strict=True))
    assert {Path(path).name for path in skipped} == set(reasons)
    assert skipped[f"{media}/bad.wav"] == "not a media file"
    assert call(few, "-o", tmp_path / "g.h5")[0] == 0
    a, b = files.Features(tmp_path / "f.h5"), files.Features(tmp_path / "g.h5")
    assert list(a.clips.key) == list(b.clips.key) and np.array_equal(a.frames[:], b.frames[:])
    assert call(media, "-o", tmp_path / "h.h5", "--allow-skipped")[0] == 0
    status, _, err = call(media, "-o", tmp_path / "i.h5", "--strict")
    assert status == 1 and err.endswith("; leave out --strict to go on without it\n")
    assert not (tmp_path / "i.h5").exists()


def test_nothing_but_bad_files_writes_nothing(tmp_path, call):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.wav").write_text("words")
    status, out, err = call(tmp_path / "media", "-o", tmp_path / "f.h5")
    assert (status, out) == (1, "") and err.endswith("none of 1 inputs gave a clip; nothing was written\n")
    assert os.listdir(tmp_path) == ["media"]
    (tmp_path / "media" / "a.wav").unlink()
    assert call(tmp_path / "media", "-o", tmp_path / "f.h5")[::2] == (
        1, f"soundssl featurize: no media files in {tmp_path}/media\n",
    )  # fmt: skip


# --- what is refused ---


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ("{media}/0.wav {media}/0.wav", "0.wav is named twice; name it once"),
        ("{media} {copy}", "have the same key 0.wav; give a folder above both"),
        ("{media}/none.wav", "none.wav does not exist; check the path"),
        ("{media} -o {media}", "media is a folder; name the file to write in it"),
        ("{media} -o {media}/none/f.h5", "none is not a folder; make it first"),
        ("{media} -o {media}/0.wav", "0.wav would be HDF5, not sound; name it 0.h5"),
        ("{media} --labels l.h5", "Invalid value for --labels: only --dataset knows classes"),
        ("{media} --root {media}", "Invalid value for --root: only --dataset csv"),
        ("{media} --dataset esc5", "Invalid value for --dataset: choose from esc50, csv, folders"),
        ("{media} --dataset csv", "media is a folder, not a file; name the file in it"),
        ("{media}/0.wav --dataset folders", "0.wav is not a folder; name the folder of the collection, or give a"),
        ("{copy}/t.csv --dataset csv --labels l.h5", "the collection says nothing of classes; leave it out"),
        ("{copy} --dataset folders -o {copy}/x.h5 --labels {copy}/x.h5", "x.h5 is also the features file"),
        ("{copy} --dataset folders -o {copy}/x.h5 --labels {copy}/c/4.wav", "4.wav would be HDF5, not sound"),
        ("{media} --store f2", "'f2' is not one of 'float16', 'float32'"),
    ],
)
def test_usage_errors_come_before_any_work(few, tmp_path, call, words, fact):
    shutil.copytree(few, tmp_path / "copy")
    tone(tmp_path / "copy" / "c" / "4.wav")
    (tmp_path / "copy" / "t.csv").write_text("path\n0.wav\n")
    before = sorted(tmp_path.rglob("*"))
    output = [] if "-o" in words else ["-o", tmp_path / "f.h5"]
    status, out, err = call(*words.format(media=few, copy=tmp_path / "copy").split(), *output)
    assert (status, out) == (2, "") and fact in " ".join(err.split())
    assert sorted(tmp_path.rglob("*")) == before and (few / "0.wav").read_bytes()[:4] == b"RIFF"


def test_an_output_that_cannot_be_written(few, tmp_path):
    tmp_path.chmod(0o500)
    done = unprivileged("featurize", few, "-o", tmp_path / "f.h5")
    wanted = f"soundssl featurize: {tmp_path} cannot be written to; check its permissions\n"
    assert (done.returncode, done.stderr) == (2, wanted)


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(few, tmp_path, call, monkeypatch):
    def full(*_):  # as HDF5 says it
        raise OSError(errno.ENOSPC, "Can't synchronously write data (file write failed: errno = 28)")

    monkeypatch.setattr(h5py.Dataset, "__setitem__", full)
    status, _, error = call(few, "-o", tmp_path / "f.h5", "-q")
    fact = f"{tmp_path}/f.h5: No space left on device; make room, and give the same command again"
    assert (status, error) == (1, f"soundssl featurize: {fact}\n")
    monkeypatch.undo()
    status, _, error = call(few, "-o", tmp_path / "f.h5")
    assert status == 0 and "inputs were done before" in error


# --- again, and again ---


def test_equal_runs_are_equal_bytes_whatever_the_jobs(few, tmp_path, call):
    for name, jobs in (("a", 1), ("b", 2)):
        assert call(few, "-o", tmp_path / name, "--no-provenance", jobs=jobs)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_finished_run_is_touched_and_changed_options_begin_again(few, tmp_path, call):
    output = tmp_path / "f.h5"
    assert call(few, "-o", output)[0] == 0
    os.utime(output, (1, 1))
    first = output.read_bytes()
    status, _, err = call(few, "-o", output)
    assert (status, err) == (0, f"soundssl featurize: {output} is up to date; --force makes it again\n")
    assert output.read_bytes() == first and output.stat().st_mtime > 1
    assert call(few, "-o", output, "--no-clobber")[0] == 2
    assert call(few, "-o", output, "--store", "float32")[0] == 0
    assert files.Features(output).frames.dtype == np.float32
    assert "up to date" not in call(few, "-o", output, "--store", "float32", "--force")[2]


def test_parts_of_a_finished_output_are_cleared_up(few, tmp_path, call, monkeypatch):
    output, parts = tmp_path / "f.h5", tmp_path / "f.h5.parts"

    def killed(folder):
        next(path for path in folder.iterdir() if path.name != "journal.jsonl").unlink()
        raise SystemExit(137)

    monkeypatch.setattr(spooling, "remove_spool", killed)
    assert call(few, "-o", output)[0] == 137
    monkeypatch.undo()
    first = output.read_bytes()
    assert parts.is_dir() and keys(output) == ["0.wav", "1.wav", "2.wav", "3.wav"]
    with files.alone(output):  # another run is at work there
        assert "is up to date" in call(few, "-o", output)[2] and parts.is_dir()
    assert "is up to date" in call(few, "-o", output)[2] and not parts.exists()
    assert output.read_bytes() == first
    parts.mkdir()
    (parts / "journal.jsonl").write_text(json.dumps({"made_from": "what another command began"}) + "\n")
    assert "is up to date" in call(few, "-o", output)[2] and parts.is_dir()


def test_an_output_among_the_media_is_no_input(few, tmp_path, call):
    media = tmp_path / "media"
    shutil.copytree(few, media)
    for name in ("f.h5", "plain"):
        assert call(media, "-o", media / name)[0] == 0
        assert "is up to date" in call(media, "-o", media / name)[2]
    assert keys(media / "f.h5") == ["0.wav", "1.wav", "2.wav", "3.wav"]


def test_a_lost_labels_file_is_made_again_without_decoding(few, tmp_path, call):
    media = tmp_path / "media"
    shutil.copytree(few, media / "class")
    (media / "bad.wav").write_text("words")
    output, labels = tmp_path / "f.h5", tmp_path / "l.h5"
    words = (media, "--dataset", "folders", "-o", output, "--labels", labels)
    assert call(*words)[0] == 3
    first = files.Labels(labels)
    labels.unlink()
    status, _, err = call(*words)
    assert status == 0 and f"{labels} is made again" in err
    again = files.Labels(labels)
    assert list(again.key) == list(first.key) and np.array_equal(again.label, first.label)
    assert "is made again" not in call(*words)[2]


def start(*words: object) -> subprocess.Popen:
    """Begin a run of the command line in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "soundssl", "featurize", *map(str, words)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Write recordings that take some seconds to decode, and what a run without interruption makes of them."""
    folder = tmp_path_factory.mktemp("many")
    sound = np.random.default_rng(0).normal(0, 0.1, 44100 * 30).astype(np.float32)
    (folder / "media").mkdir()
    soundfile.write(folder / "media" / "00.flac", sound, 44100)
    for i in range(1, 12):
        os.link(folder / "media" / "00.flac", folder / "media" / f"{i:02}.flac")
    main_words = [folder / "media", "-o", folder / "fresh.h5", "--no-provenance", "-j", "1"]
    assert start(*main_words).wait() == 0
    return folder


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["KILL", "INT", "TERM"],
)
def test_a_run_that_was_ended_goes_on_to_the_same_bytes(many, tmp_path, number, status):
    output = tmp_path / "f.h5"
    journal = tmp_path / "f.h5.parts" / "journal.jsonl"
    words = (many / "media", "-o", output, "--no-provenance")
    process = start(*words, "-j", "2")
    while process.poll() is None and not (journal.is_file() and journal.read_text().count("\n") > 3):
        time.sleep(0.01)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # Ctrl-C reaches the workers too
    error = process.communicate(timeout=60)[1]
    assert process.returncode == status and not output.exists()
    assert error == (
        "" if number == signal.SIGKILL else "soundssl featurize: interrupted; the same command goes on from here\n"
    )
    process = start(*words, "-j", "1")
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and error.startswith("soundssl featurize: going on: "), error
    assert output.read_bytes() == (many / "fresh.h5").read_bytes()
    assert os.listdir(tmp_path) == ["f.h5"]
