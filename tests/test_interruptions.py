"""Runs that were killed, repeated or given more: what they end in are the bytes of one fresh run."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, synthesise

from soundssl import files
from soundssl.commands import main
from soundssl.extraction import features

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "bench"))
import chaos


def tone(path: Path, seconds: float = 1.2, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, synthesise("chirp", np.random.default_rng(seed), seconds), RATE)


@pytest.fixture
def call(capfd):
    """Give a function that runs featurize in this process, one worker apart, and returns status and stderr."""

    def run(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["featurize", *map(str, words), "-j", "1", "--no-provenance"])
        return ended.value.code or 0, capfd.readouterr().err

    return run


@pytest.fixture
def media(tmp_path):
    """Write three recordings, one with a name of its own class, and a file that is none."""
    for i in range(3):
        tone(tmp_path / "media" / f"{i}.wav", 1.2 + 0.3 * i, i)
    (tmp_path / "media" / "bad.wav").write_text("words")
    return tmp_path / "media"


def test_an_update_decodes_what_is_new_and_ends_in_the_bytes_of_a_fresh_run(media, tmp_path, call, monkeypatch):
    output = tmp_path / "f.h5"
    assert call(media, "-o", output, "--update")[0] == 3, "with nothing to take over, it is a run like any other"
    tone(media / "new.wav", 2.0, 7)
    (media / "0.wav").unlink()
    tone(media / "1.wav", 1.6, 8)  # another sound of that name
    os.utime(media / "1.wav", ns=(1, 1))
    status, error = call(media, "-o", output)
    assert f"{output} is made again: its inputs have changed; --update takes over the rest" in error
    (media / "2.wav").unlink()

    decoded: list[str] = []
    original = features.decode

    def spy(store, source, *others):
        decoded.extend(key for key in source.clips if key not in store.done)
        original(store, source, *others)

    monkeypatch.setattr(features, "decode", spy)
    status, error = call(media, "-o", output, "--update")
    assert (status, decoded) == (3, []) and f"3 of 3 inputs are taken over from {output}" in error
    tone(media / "newer.wav", 1.3, 9)
    assert call(media, "-o", output, "--update")[0] == 3 and decoded == ["newer.wav"]
    fresh = tmp_path / "again.h5"
    assert call(media, "-o", fresh)[0] == 3
    assert output.read_bytes() == fresh.read_bytes()
    status, error = call(media, "-o", output, "--update")
    assert status == 0 and "is up to date; --force makes it again" in error


def test_changed_options_begin_again_and_are_named(media, tmp_path, call):
    output = tmp_path / "f.h5"
    call(media, "-o", output)
    status, error = call(media, "-o", output, "--update", "--short", "pad", "--store", "float32")
    assert status == 3 and f"{output} is made again: short pad instead of skip, dtype f4 instead of f2" in error
    store = files.Store(output, {"short": "skip", "frame_rate": 100.0}, "f2", "others")
    store.add({"key": "0.wav", "reason": "none"})
    store.close()
    status, error = call(media, "-o", output, "--short", "skip", "--frame-hop", "0.02")
    assert "what a run left unfinished is begun again: frame_rate 50.0 instead of 100.0" in error
    assert set(os.listdir(tmp_path)) == {"media", "f.h5"}


def test_what_may_be_read_another_time_is_tried_again(media, tmp_path, call):
    output = tmp_path / "f.h5"
    (media / "later.wav").symlink_to(tmp_path / "none.wav")
    assert "a link to what does not exist" in call(media, "-o", output)[1]
    tone(tmp_path / "none.wav")
    error = call(media, "-o", output, "--update")[1]
    assert "4 of 5 inputs are taken over" in error and "later.wav" in files.Features(output).clips.key


def test_clips_of_long_recordings_are_taken_over_too(tmp_path, call):
    tone(tmp_path / "media" / "long.wav", 12.5, 1)
    words = ("--clip", "1", "--short", "pad", "--channel", "each")
    for name in ("a.h5", "b.h5"):
        assert call(tmp_path / "media", "-o", tmp_path / name, *words)[0] == 0
    tone(tmp_path / "media" / "more.wav", 2.1, 2)
    assert "1 of 2 inputs are taken over" in call(tmp_path / "media", "-o", tmp_path / "a.h5", *words, "--update")[1]
    assert call(tmp_path / "media", "-o", tmp_path / "b.h5", *words)[0] == 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    source = files.Features(tmp_path / "a.h5")
    assert list(source.clips.key)[:2] == ["long.wav@0-1[1]", "long.wav@1-2[1]"] and len(source.clips) == 16
    assert list(source.clips.start[:13]) == list(range(13)) and set(source.clips.recording) == {"long.wav", "more.wav"}


def test_a_spool_that_lost_its_end_is_decoded_again(media, tmp_path, call):
    call(media, "-o", tmp_path / "fresh.h5")
    output = tmp_path / "f.h5"
    store = files.Store(output, {}, "f2", "x")
    spool = files.Spool(store.folder, "worker-0", "f2")
    spool.start()
    spool.add_frames(np.zeros((5, 64), "f2"))
    store.add({"key": "a", "spans": [{"key": "a", **spool.finish()}]})
    store.close()
    again = files.Store(output, {}, "f2", "x")
    assert set(again.done) == {"a"}
    again.close()
    [path] = store.folder.glob("*.frames")
    path.write_bytes(path.read_bytes()[:-1])
    again = files.Store(output, {}, "f2", "x")
    assert again.done == {}
    again.discard()


def test_random_kills_change_nothing(tmp_path):
    killed, histories = chaos.chaos(tmp_path, kills=3, count=8, seconds=1.5, seed=0)
    assert killed == 3 and histories >= 1
