"""Parts and joins: every input in one part, the parts together what one run makes, and no row that silently is zero."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import torch
import typer
from conftest import RATE, synthesise, write_video

from soundssl import files, models
from soundssl.commands import arrays, main
from soundssl.commands.options import part_of
from soundssl.datasets import belongs
from soundssl.files.statistics import merge_summaries, statistics_of

NOT_OURS = ("part/file", "part/uuid")


@pytest.fixture
def call(capfd):
    """Give a function that runs the command line in this process and returns status, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, words)))
        out = capfd.readouterr()
        return ended.value.code or 0, out.out, out.err

    return run


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """Write recordings, a video and a file that is none; what one run makes of them, and what three parts make."""
    folder = tmp_path_factory.mktemp("parted")
    (folder / "media").mkdir()
    for i, name in enumerate("abcdef"):
        sound = synthesise("chirp", np.random.default_rng(i), 1.2 + 0.3 * i)
        soundfile.write(folder / "media" / f"{name}.wav", sound, RATE)
    write_video(folder / "media" / "g.mp4", synthesise("tone", np.random.default_rng(6), 2.0), codec="mpeg4")
    (folder / "media" / "bad.wav").write_text("words")
    lines = [["-o", folder / "whole.h5"], *(["-o", folder / f"part-{k}.h5", "--part", f"{k}/3"] for k in (1, 2, 3))]
    for line in lines:
        with pytest.raises(SystemExit) as ended:
            main(["featurize", *map(str, [folder / "media", *line]), "-j", "1", "--allow-skipped", "-q"])
        assert not ended.value.code
    return folder


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-?.h5"))


def columns(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        found: dict[str, np.ndarray] = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return found


# --- parts ---


def test_every_clip_is_in_one_part_and_new_clips_move_no_others():
    keys = [f"folder/{i}.wav" for i in range(200)]
    for count in (1, 2, 7):
        member = [[belongs(key, (k, count)) for k in range(1, count + 1)] for key in keys]
        assert all(sum(row) == 1 for row in member)
        assert min(map(sum, zip(*member, strict=True))) > 100 / count
    assert belongs("a.wav", None)


@pytest.mark.parametrize("wrong", ["0/3", "4/3", "3", "a/3", "/3", "3/", "-1/3", "1/0"])
def test_a_part_that_is_none_is_refused(wrong, call, parted):
    status, _, err = call("featurize", parted / "media", "-o", parted / "x.h5", "--part", wrong)
    assert status == 2 and f"{wrong!r} is not K/N with K from 1 to N" in " ".join(err.split())


def test_auto_reads_the_array_of_the_scheduler(monkeypatch, call, parted):
    status, _, err = call("featurize", parted / "media", "-o", parted / "x.h5", "--part", "auto")
    assert status == 2 and "auto needs an array job, whose scheduler sets SLURM_ARRAY_TASK_ID" in " ".join(err.split())
    names = ("ID", "MIN", "COUNT", "STEP")
    for values, wanted in (((0, 0, 4, 1), (1, 4)), ((7, 5, 3, 1), (3, 3)), ((9, 3, 4, 2), (4, 4))):
        for name, value in zip(names, values, strict=True):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        assert part_of("auto") == wanted


@pytest.mark.parametrize(
    ("variables", "text", "wanted"),
    [
        ({"SGE_TASK_ID": 7, "SGE_TASK_FIRST": 3, "SGE_TASK_LAST": 9, "SGE_TASK_STEPSIZE": 2}, "auto", (3, 4)),
        ({"SGE_TASK_ID": "undefined", "PBS_ARRAY_INDEX": 3}, "auto/8", (3, 8)),
        ({"PBS_ARRAYID": 8}, "auto/8", (8, 8)),
        ({"JOB_COMPLETION_INDEX": 0}, "auto/8", (1, 8)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": 7}, "auto/8", (8, 8)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": 1, "AWS_BATCH_JOB_ARRAY_SIZE": 4}, "auto", (2, 4)),
        ({"SLURM_ARRAY_TASK_ID": 2, "SLURM_ARRAY_TASK_MIN": 1, "SLURM_ARRAY_TASK_COUNT": 4}, "auto/4", (2, 4)),
        ({"PBS_ARRAY_INDEX": 3}, "auto", "PBS does not tell how many tasks an array has; give --part auto/N"),
        ({"PBS_ARRAY_INDEX": 0}, "auto/8", "PBS_ARRAY_INDEX is 0, which is none of 8 tasks from 1; number them 1 to 8"),
        ({"JOB_COMPLETION_INDEX": 8}, "auto/8", "none of 8 tasks from 0; number them 0 to 7"),
        ({"SGE_TASK_ID": 1, "SGE_TASK_FIRST": 1, "SGE_TASK_LAST": 4}, "auto/8", "auto/8 disagrees with SGE, which"),
        ({}, "auto/0", "'auto/0' is not K/N"),
        ({}, "auto/x", "'auto/x' is not K/N"),
    ],
)
def test_auto_reads_the_arrays_of_other_schedulers(monkeypatch, variables, text, wanted):
    for scheduler in arrays.SCHEDULERS:
        monkeypatch.delenv(scheduler.index, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    if isinstance(wanted, tuple):
        assert part_of(text) == wanted
    else:
        with pytest.raises(typer.BadParameter, match=wanted):
            part_of(text)


def test_info_of_a_folder_names_the_parts_that_are_missing(call, parted, tmp_path):
    for name in ("part-1.h5", "part-3.h5"):
        shutil.copy(parted / name, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no file of ours")
    status, out, _ = call("info", tmp_path)
    [about] = json.loads(out)["parts"]
    assert status == 0 and about == {"kind": "features", "of": 3, "there": [1, 3], "missing": [2], "twice": []}
    shutil.copy(parted / "part-3.h5", tmp_path / "again.h5")
    status, out, _ = call("info", tmp_path, "--table")
    assert "2" in out and "missing" in out and json.loads(call("info", tmp_path)[1])["parts"][0]["twice"] == [3]
    (tmp_path / "empty").mkdir()
    status, _, err = call("info", tmp_path / "empty")
    assert status == 4 and "empty holds no part of a larger file; name a file, or the folder of parts" in err
    status, _, err = call("info", tmp_path, "--verify")
    assert status == 2 and "reads one file" in err


def test_parts_have_different_names_and_a_part_may_be_empty(call, parted, tmp_path):
    words = ("featurize", parted / "media", "--allow-skipped", "-j", "1")
    shutil.copy(parted / "part-1.h5", tmp_path / "f.h5")
    status, _, err = call(*words, "-o", tmp_path / "f.h5", "--part", "2/3")
    assert status == 2 and "holds part 1/3, this is part 2/3; name an output for each part" in err
    names = os.listdir(parted / "media")
    empty = next(f"{k}/99" for k in range(1, 100) if not any(belongs(name, (k, 99)) for name in names))
    assert call(*words, "-o", tmp_path / "e.h5", "--part", empty)[0] == 0
    assert len(files.Features(tmp_path / "e.h5").clips) == 0
    assert call("featurize", *parts(parted), tmp_path / "e.h5", "-o", tmp_path / "all.h5")[0] == 0
    assert len(files.Features(tmp_path / "all.h5").clips) == 7


# --- joins ---


def test_joined_features_are_those_of_one_run(call, parted):
    given = parts(parted)
    assert call("featurize", *given, "-o", parted / "all.h5") == (
        0, "", "soundssl featurize: 3 files, 7 clips; they must stay where they are\n",
    )  # fmt: skip
    assert call("featurize", *given[::-1], "-o", parted / "copy.h5", "--copy", "--no-provenance")[0] == 0
    whole, joined = files.Features(parted / "whole.h5"), files.Features(parted / "all.h5")
    a, b = columns(parted / "whole.h5"), columns(parted / "copy.h5")
    assert set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)
    assert set(columns(parted / "all.h5")) == {*a, *NOT_OURS}
    assert joined.mean == pytest.approx(whole.mean, rel=1e-6) and joined.deviation == pytest.approx(
        whole.deviation, rel=1e-6
    )
    row = {key: i for i, key in enumerate(joined.clips.key)}
    assert set(row) == set(whole.clips.key)
    for i, key in enumerate(whole.clips.key):
        j = row[key]
        one, other = ((s.offset[k], s.offset[k + 1]) for s, k in ((whole, i), (joined, j)))
        assert np.array_equal(whole.frames[slice(*one)], joined.frames[slice(*other)])
        one, other = ((s.image_offset[k], s.image_offset[k + 1]) for s, k in ((whole, i), (joined, j)))
        assert np.array_equal(whole.images[slice(*one)], joined.images[slice(*other)])
    for window in joined.windows(96, 7, 50):
        for frames, clip, start in zip(window.frames, window.clip, window.start, strict=True):
            first = joined.offset[clip] + round(start * 100)
            assert np.array_equal(frames, joined.frames[int(first) : int(first) + 96])
    assert "is up to date" in call("featurize", *given[::-1], "-o", parted / "all.h5")[2]


def test_a_joined_file_moves_with_its_parts_and_misses_them(call, parted, tmp_path):
    for path in parts(parted):
        shutil.copy(path, tmp_path)
    assert call("featurize", *parts(tmp_path), "-o", tmp_path / "all.h5")[0] == 0
    moved = tmp_path / "100% moved"
    moved.mkdir()
    for path in [*parts(tmp_path), tmp_path / "all.h5"]:
        path.rename(moved / path.name)
    assert files.Features(moved / "all.h5").frames[:].any()
    call("featurize", parted / "media", "-o", moved / "part-2.h5", "--part", "2/3", "--store", "float32", "--force", "--allow-skipped")  # fmt: skip  # noqa: E501
    with pytest.raises(files.FormatError, match=r"part-2\.h5, a part of .*all\.h5, is not the file that was joined"):
        files.Features(moved / "all.h5")
    (moved / "part-2.h5").unlink()
    with pytest.raises(files.FormatError, match=r"part-2\.h5, a part of .*all\.h5, is missing; put it back"):
        files.Features(moved / "all.h5")


def test_what_does_not_fit_together_is_not_joined(call, parted, tmp_path):
    given = parts(parted)
    words = ("featurize", parted / "media", "--allow-skipped", "-j", "1")
    assert call(*words, "-o", tmp_path / "other.h5", "--part", "2/3", "--frame-hop", "0.02")[0] == 0
    assert call(*words, "-o", tmp_path / "wide.h5", "--part", "2/3", "--store", "float32")[0] == 0
    for line, status, fact in (
        ([given[0], tmp_path / "other.h5"], 4, "frame_rate"),
        ([given[0], tmp_path / "wide.h5"], 4, "frames differ in type or size"),
        ([given[0], parted / "whole.h5"], 4, "have the same key"),
        ([given[0]], 4, "holds logmel features; the command takes waveform features"),
        ([given[0], parted / "media" / "a.wav"], 4, "give either media or features files to join"),
        ([parted / "media" / "a.wav", given[0]], 4, "give either media or features files to join"),
    ):
        found, _, err = call("featurize", *line, "-o", tmp_path / "x.h5")
        assert (found, fact in " ".join(err.split())) == (status, True), err
    assert call("featurize", *given, "-o", given[1])[0] == 2
    assert call("featurize", *given)[0] == 2
    assert call("featurize", *given, "-o", tmp_path / "all.h5")[0] == 0
    assert (
        "is joined itself" in call("featurize", tmp_path / "all.h5", tmp_path / "wide.h5", "-o", tmp_path / "y.h5")[2]
    )
    assert not {"x.h5", "y.h5"} & set(os.listdir(tmp_path))


def test_files_that_say_how_far_their_frames_are_rounded_are_joined_without_it(call, parted, tmp_path):
    for path in parts(parted):
        shutil.copy(path, tmp_path)
        with h5py.File(tmp_path / path.name, "r+") as file:  # as version 0.1.0 wrote it
            file["clip/error"] = np.full(len(file["clip/key"]), 1e-3, "f4")
            file.attrs["storage_error"] = np.float32(1e-3)
    assert call("featurize", *parts(tmp_path), "-o", tmp_path / "all.h5")[0] == 0
    assert call("featurize", *parts(tmp_path), "-o", tmp_path / "copy.h5", "--copy", "--no-provenance")[0] == 0
    for name in ("all.h5", "copy.h5"):
        assert "clip/error" not in columns(tmp_path / name) and files.verify(tmp_path / name) == []
        assert "storage_error" not in files.attributes_of(tmp_path / name)
    whole, copy = files.Features(parted / "whole.h5"), files.Features(tmp_path / "copy.h5")
    assert np.array_equal(whole.frames[:], copy.frames[:]) and list(whole.clips.key) == list(copy.clips.key)


def test_merged_summaries_are_those_of_all_rows():
    generator = np.random.default_rng(0)
    rows = [generator.normal([5, -80], [1, 3], (n, 2)).astype("f2") for n in (10, 0, 400, 37)]
    each = []
    for part in rows:
        count, mean, squares = statistics_of(part)
        each.append((count, mean.astype("f4"), np.sqrt(squares / max(count, 1)).astype("f4")))
    mean, deviation = merge_summaries(each)
    everything = np.concatenate(rows).astype("f8")
    assert mean == pytest.approx(everything.mean(0), rel=1e-6) and deviation == pytest.approx(
        everything.std(0), rel=1e-5
    )


# --- embeddings ---


@pytest.fixture(scope="module")
def model(parted):
    """Write an untrained model for the front end of the features."""
    torch.manual_seed(0)
    network = models.build("plain", 8)
    config = {
        **{"encoder": "plain", "size": 8, "bands": 64, "frames": 96, "norm": "batch", "unit_length": True},
        **{"front_end": files.Features(parted / "whole.h5").front_end(), "heads": {}},
    }
    tensors = {f"encoder.{name}": value.numpy() for name, value in network.state_dict().items()}
    files.write_model(parted / "m.safetensors", tensors, config, inputs=[], made_from="test")
    return parted / "m.safetensors"


def test_joined_embeddings_are_those_of_one_run(call, parted, model, tmp_path):
    def embed(*words):
        return call("embed", *words, "--device", "cpu", "--precision", "float32", "-q")[0]

    assert embed(parted / "whole.h5", "-m", model, "-o", tmp_path / "whole.h5") == 0
    for k in (1, 2, 3):
        assert embed(parted / "whole.h5", "-m", model, "-o", tmp_path / f"part-{k}.h5", "--part", f"{k}/3") == 0
        assert embed(parted / f"part-{k}.h5", "-m", model, "-o", tmp_path / f"same-{k}.h5") == 0
    whole = files.Embeddings(tmp_path / "whole.h5")
    for name in ("part", "same"):
        given = sorted(tmp_path.glob(f"{name}-?.h5"))
        for output, options in ((f"{name}.h5", ()), (f"{name}-copy.h5", ("--copy",))):
            assert call("embed", *given, "-o", tmp_path / output, *options, "-q")[0] == 0
            joined = files.Embeddings(tmp_path / output)
            assert len(joined.clip) == len(whole.clip) > 7
            where = {
                (joined.clips.key[c], s): i for i, (c, s) in enumerate(zip(joined.clip, joined.start, strict=True))
            }
            for i, (clip, start) in enumerate(zip(whole.clip, whole.start, strict=True)):
                found = joined.embedding[where[whole.clips.key[clip], start]]
                assert found == pytest.approx(whole.embedding[i], abs=1e-5)
        assert list(joined.clips.key) == list(whole.clips.key) and np.array_equal(joined.start, whole.start)
    assert json.loads(joined.attributes["inputs"])[0]["role"] == "embeddings"
    (tmp_path / "part-1.h5").unlink()
    with pytest.raises(files.FormatError, match=r"part-1\.h5, a part of .*part\.h5, is missing"):
        files.Embeddings(tmp_path / "part.h5")


def test_only_embeddings_are_joined_without_a_model(call, parted):
    for line in ([parted / "whole.h5"], [parted / "part-1.h5", parted / "part-2.h5"]):
        status, _, err = call("embed", *line, "-o", parted / "x.h5")
        assert status == 2 and "Missing option '-m' / '--model'" in " ".join(err.split())
