"""separate: tracks that sum to their mixtures, in the table with them, whatever comes in and however often it stops."""

import json
import signal
import time

import numpy as np
import program
import pytest
import soundfile
import torch
from conftest import RATE, write_video
from separation_world import write_waves
from test_training import write_features

from soundssl import files, media, models
from soundssl.commands import main
from soundssl.files.features import FRONT_END
from soundssl.ops.spectrogram import WAVEFORM

TRACKS = 3


def write_separator(path, seed: int = 0, tracks: int = TRACKS, **config):
    """Write an untrained separator."""
    torch.manual_seed(seed)
    network = models.build_separator("tdcn-stft-small", tracks)
    front_end = {name: WAVEFORM.attributes()[name] for name in FRONT_END}  # as train writes it
    told = {
        "encoder": "tdcn-stft-small",
        "tracks": tracks,
        "consistency": "predicted",
        "net": models.stated("tdcn-stft-small"),
        "front_end": front_end,
        **config,
    }
    tensors = {f"encoder.{name}": value.numpy() for name, value in network.state_dict().items()}
    files.write_model(path, tensors, told, inputs=[], made_from="test")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write waves, a folder of media with a bad file in it, and two separators."""
    folder = tmp_path_factory.mktemp("separate")
    write_waves(folder / "toy.waves.h5")
    (folder / "media" / "deep").mkdir(parents=True)
    generator = np.random.default_rng(0)
    soundfile.write(folder / "media" / "a.wav", generator.normal(0, 0.1, 3 * RATE), RATE)
    soundfile.write(folder / "media" / "deep" / "silence.wav", np.zeros(2 * RATE), RATE)
    write_video(folder / "media" / "b.mp4", generator.normal(0, 0.1, 2 * RATE).astype("f4"))
    (folder / "media" / "c.wav").write_bytes(b"nonsense")
    write_separator(folder / "one.safetensors")
    write_separator(folder / "two.safetensors", seed=1, tracks=2)
    return folder


def separate(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["separate", *map(str, words), "--device", "cpu", "--precision", "float32", "--threads", "1", "-j", "1"])
    return ended.value.code or 0


def clip(source: files.Features, row: int) -> np.ndarray:
    return np.concatenate(list(source.blocks(row)))


def test_tracks_lie_beside_their_mixture_and_sum_to_it(world, capsys):
    assert separate(world / "toy.waves.h5", "-m", world / "one.safetensors", "-q") == 0
    output = world / "toy.separated.h5"
    assert capsys.readouterr().out.strip() == str(output)
    source, before = files.Features(output), files.Features(world / "toy.waves.h5")
    mixtures = np.flatnonzero(source.tracks.parent < 0)
    assert list(source.clips.key[mixtures]) == list(before.clips.key) and len(source.clips) == 8 * (1 + TRACKS)
    for number, row in enumerate(mixtures):
        assert np.array_equal(clip(source, row), clip(before, number))
        own = np.flatnonzero(source.tracks.parent == row)
        assert [source.clips.key[i] for i in own] == [f"clip-0{number}#{track}" for track in range(TRACKS)]
        assert source.tracks.track[own].tolist() == [0, 1, 2] and not source.tracks.processor[own].any()
        assert (source.clips.recording[own] == f"r{number}").all()
        assert (source.clips.split[own] == before.clips.split[number]).all()
        tracks = np.stack([clip(source, i) for i in own])
        assert np.abs(tracks.sum(0) - clip(source, row)).max() < 1e-5
        level = 10 * np.log10((tracks.astype("f8") ** 2).sum(1) / (clip(source, row).astype("f8") ** 2).sum())
        assert source.tracks.level[own] == pytest.approx(level, abs=1e-3)
        assert (source.tracks.silent[own] == (level < -30)).all()
    told = json.loads(source.attributes["processors"])
    assert [each["file"] for each in told] == ["one.safetensors"] and source.attributes["silence"] == -30


def test_the_network_is_what_separates(world):
    output = world / "own.h5"
    assert separate(world / "toy.waves.h5", "-m", world / "one.safetensors", "-o", output, "-q") == 0
    source, trained = files.Features(output), files.read_model(world / "one.safetensors")
    network = models.restore_separator(trained.config, trained.tensors).eval()
    with torch.no_grad():
        tracks = network(torch.from_numpy(clip(source, 0))[None])[0].numpy()
    found = np.stack([clip(source, row) for row in np.flatnonzero(source.tracks.parent == 0)])
    assert np.abs(tracks - found).max() < 1e-6


def test_long_recordings_are_separated_by_segments(world):
    output = world / "segments.h5"
    more = ["--length", 0.5, "--overlap", 0.1, "-q"]
    assert separate(world / "toy.waves.h5", "-m", world / "one.safetensors", "-o", output, *more) == 0
    source = files.Features(output)
    for row in np.flatnonzero(source.tracks.parent < 0):
        tracks = np.stack([clip(source, i) for i in np.flatnonzero(source.tracks.parent == row)])
        assert np.abs(tracks.sum(0) - clip(source, row)).max() < 1e-5


def test_media_and_several_processors(world, capsys):
    output, listen = world / "media.h5", world / "listen"
    pair = ["-m", world / "one.safetensors", "-m", world / "two.safetensors"]
    assert separate(world / "media", *pair, "-o", output, "--wav", listen) == 3
    said = capsys.readouterr().err
    assert "c.wav: not a media file; skipped" in said and "3 recordings, 15 tracks, 5 of them next to silent" in said
    assert files.verify(output) == []
    source = files.Features(output)
    assert [bool(digest) for digest in source.clips.made_from] == list(source.tracks.parent < 0)
    for row in np.flatnonzero(source.tracks.parent < 0):
        for processor, count in enumerate((TRACKS, 2)):
            own = np.flatnonzero((source.tracks.parent == row) & (source.tracks.processor == processor))
            key = source.clips.key[row]
            assert [source.clips.key[i] for i in own] == [f"{key}#{processor}.{track}" for track in range(count)]
            assert np.abs(sum(clip(source, i) for i in own) - clip(source, row)).max() < 1e-5
    heard = np.concatenate(list(media.read_audio(world / "media" / "b.mp4", RATE)))
    assert np.array_equal(clip(source, list(source.clips.key).index("b.mp4")), heard)
    silent = source.tracks.parent == list(source.clips.key).index("deep/silence.wav")
    assert source.tracks.silent[silent].all() and (source.tracks.level[silent] == -120).all()
    written = sorted(path.relative_to(listen).as_posix() for path in listen.rglob("*.wav"))
    assert len(written) == len(source.clips) and written[0] == "a.wav.mixture.wav"
    assert "deep/silence.wav.processor-1.track-0.wav" in written
    sound, rate = soundfile.read(listen / "a.wav.processor-0.track-2.wav", dtype="float32")
    assert rate == RATE and np.array_equal(sound, clip(source, list(source.clips.key).index("a.wav#0.2")))
    assert separate(world / "media", *pair, "-o", output) == 0 and "up to date" in capsys.readouterr().err


def test_tracks_of_an_earlier_separation_are_no_mixtures(world):
    first, second = world / "first.h5", world / "second.h5"
    assert separate(world / "toy.waves.h5", "-m", world / "one.safetensors", "-o", first, "-q") == 0
    assert separate(first, "-m", world / "two.safetensors", "-o", second, "-q") == 0
    assert len(files.Features(second).clips) == 8 * 3


@pytest.mark.parametrize(("source", "statuses"), [("toy.waves.h5", {0}), ("media", {0, 3})])
def test_parts_together_are_the_whole(world, tmp_path, monkeypatch, capsys, source, statuses):
    model, parts = ["-m", world / "one.safetensors", "-q"], [tmp_path / f"part-{k}.h5" for k in (1, 2, 3)]
    assert separate(world / source, *model, "-o", tmp_path / "whole.h5") in statuses
    for k, path in enumerate(parts[:2], 1):
        assert separate(world / source, *model, "--part", f"{k}/3", "-o", path) in statuses
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    assert separate(world / source, *model, "--part", "auto", "-o", parts[2]) in statuses
    assert separate(world / source, *model, "--part", "1/3", "-o", parts[2]) == 2
    assert "holds part 3/3, this is part 1/3" in capsys.readouterr().err
    for words in (["-o", tmp_path / "joined.h5"], ["-o", tmp_path / "copied.h5", "--copy"]):
        with pytest.raises(SystemExit) as ended:
            main(["featurize", *map(str, [*parts, *words]), "-q"])
        assert not ended.value.code
    whole = files.Features(tmp_path / "whole.h5")
    for name in ("joined.h5", "copied.h5"):
        found = files.Features(tmp_path / name)
        row = {key: i for i, key in enumerate(found.clips.key)}
        assert sorted(row) == sorted(whole.clips.key) and files.verify(tmp_path / name) == []
        for i, key in enumerate(whole.clips.key):
            assert np.array_equal(clip(whole, i), clip(found, row[key]))
            mixture = whole.tracks.parent[i]
            parent = found.tracks.parent[row[key]]
            assert (mixture < 0 and parent < 0) or whole.clips.key[mixture] == found.clips.key[parent]


def test_a_part_of_separated_waveforms_keeps_tracks_with_their_mixture(world, tmp_path):
    assert separate(world / "toy.waves.h5", "-m", world / "one.safetensors", "-o", tmp_path / "s.h5", "-q") == 0
    keys: list[str] = []
    for k in (1, 2):
        with pytest.raises(SystemExit) as ended:
            main(["featurize", str(tmp_path / "s.h5"), "--part", f"{k}/2", "-o", str(tmp_path / f"{k}.h5"), "-q"])
        assert not ended.value.code
        part = files.Features(tmp_path / f"{k}.h5")
        assert part.attributes["part"] == f"{k}/2"
        assert [key.partition("#")[0] for key in part.clips.key] == [
            part.clips.key[row if parent < 0 else parent] for row, parent in enumerate(part.tracks.parent)
        ]
        keys += list(part.clips.key)
    assert sorted(keys) == sorted(files.Features(tmp_path / "s.h5").clips.key)


@pytest.mark.parametrize(("source", "status"), [("toy.waves.h5", 0), ("media", 3)])
def test_a_killed_run_goes_on_to_the_same_bytes(world, tmp_path, source, status):
    pair = ["-m", world / "one.safetensors", "-m", world / "two.safetensors"]
    fixed = ["--device", "cpu", "--precision", "float32", "--threads", "1", "-j", "1", "--no-provenance"]
    whole, cut = tmp_path / "whole.h5", tmp_path / "cut.h5"
    assert separate(world / source, *pair, "-o", whole, "--no-provenance", "-q") == status
    words = ["separate", world / source, *pair, "-o", cut, *fixed]
    process = program.start(*words)
    journal = tmp_path / "cut.h5.parts" / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and '"parent"' in journal.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr
    assert not cut.exists()
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:-1]) + "\n")  # as if it had been killed between two tracks
    assert separate(world / source, *pair, "-o", cut, "--no-provenance", "-q") == status
    assert cut.read_bytes() == whole.read_bytes() and not journal.exists()


def test_the_wrong_files_are_refused(world, tmp_path, capsys):
    def refused(status: int, fact: str, *words: object) -> None:
        assert separate(*words, "-o", tmp_path / "x.h5", "-q") == status
        said = " ".join(capsys.readouterr().err.split()).replace("│ ", "")
        assert fact in said and not (tmp_path / "x.h5").exists(), said

    waves, good = world / "toy.waves.h5", world / "one.safetensors"
    encoder = write_separator(tmp_path / "e.safetensors", encoder="plain")
    refused(4, "e.safetensors is an encoder, not a separator; train one with --objective mixit", waves, "-m", encoder)
    end = {**files.read_model(good).config["front_end"], "sample_rate": 8000}
    other = write_separator(tmp_path / "o.safetensors", front_end=end)
    refused(4, "was trained on other waveforms: sample_rate 16000 instead of 8000", waves, "-m", other)
    spectrograms = write_features(tmp_path / "f.h5")
    refused(4, "holds logmel features; the command takes waveform features", spectrograms, "-m", good)
    refused(2, "does not exist; check the path", tmp_path / "nothing", "-m", good)
    refused(2, "1.0 s is more than half of --length 1.5 s", waves, "-m", good, "--length", 1.5, "--overlap", 1.0)
    refused(2, "is a file; name a folder", waves, "-m", good, "--wav", good)
    refused(1, "none of 1 inputs gave a clip", world / "media" / "c.wav", "-m", good)
    for path in (waves, good):
        assert separate(waves, "-m", good, "-o", path, "-q") == 2 and "is one of the inputs" in capsys.readouterr().err


def test_separated_files_become_spectrograms(world):
    assert separate(world / "toy.waves.h5", "-m", world / "one.safetensors", "-o", world / "s.h5", "-q") == 0
    with pytest.raises(SystemExit) as ended:
        main(["featurize", str(world / "s.h5"), "-o", str(world / "f.h5"), "-j", "1", "-q"])
    assert not ended.value.code
    before, after = files.Features(world / "s.h5"), files.Features(world / "f.h5")
    assert all(np.array_equal(a, b) for a, b in zip(before.tracks, after.tracks, strict=True))
    assert after.attributes["processors"] == before.attributes["processors"] and after.frames.shape[1] == 64
