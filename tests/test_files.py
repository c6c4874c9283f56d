"""The contract on disk: what is written comes back; what does not fit is refused in words; nothing is half there."""

import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from builder import CONFIG, columns, write
from builder import FRONT_END as ATTRIBUTES

from soundssl import SoundsslError, files
from soundssl.commands import main
from soundssl.files.features import FRONT_END
from soundssl.files.reading import Array
from soundssl.files.schema import KINDS, check
from soundssl.files.statistics import statistics_of


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back(tmp_path, kind):
    made = columns(kind)
    write(tmp_path / "a.h5", kind, made, command="soundssl test")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["kind"] == kind and file.attrs["schema"] == KINDS[kind].version
        assert {"soundssl", "command", "uuid", "inputs", "made_from"} <= set(file.attrs)
        for name, values in made.items():
            found = file[name].asstr()[:] if isinstance(values, list) else file[name][:]
            assert np.array_equal(found, values), name
    assert files.kind_of(tmp_path / "a.h5") == kind and files.made_from(tmp_path / "a.h5") == "digest"


def test_readers_give_what_was_written(tmp_path):
    for kind in ("features", "triplets", "embeddings", "labels"):
        write(tmp_path / f"{kind}.h5", kind, columns(kind))
    made, features = columns("features"), files.Features(tmp_path / "features.h5")
    assert np.array_equal(features.frames[:], made["frames"]) and np.array_equal(features.offset, made["clip/offset"])
    assert list(features.clips.key) == made["clip/key"] and np.array_equal(features.images[:], made["images"])
    assert features.front_end() == {name: ATTRIBUTES[name] for name in FRONT_END}
    triplets = files.Triplets(tmp_path / "triplets.h5")
    assert all(np.array_equal(triplets.columns[name], values) for name, values in columns("triplets").items())
    made, labels = columns("labels"), files.Labels(tmp_path / "labels.h5")
    assert np.array_equal(labels.label, made["label"]) and labels.classes == made["class"]
    embeddings = files.Embeddings(tmp_path / "embeddings.h5")
    assert np.array_equal(embeddings.embedding[:], columns("embeddings")["embedding"])


@pytest.mark.parametrize("command", [None, "soundssl test"])
def test_writing_a_model_takes_little_memory_beside_its_tensors(tmp_path, command):
    tensors = {"encoder.large": np.ones((4096, 1024), "f4"), "encoder.small": np.ones(3, "f4")}
    tracemalloc.start()
    try:
        files.write_model(tmp_path / "m.safetensors", tensors, {}, inputs=[], made_from="test", command=command)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * sum(tensor.nbytes for tensor in tensors.values()), "a copy at most, by the library"


def test_without_a_command_a_model_is_named_by_its_content(tmp_path):
    def identity(tensors, config, command=None):
        config = {**CONFIG, **config}
        files.write_model(tmp_path / "m", tensors, config, inputs=[], made_from="test", command=command)
        return files.read_model(tmp_path / "m").attributes["uuid"]

    ones, names = np.ones((2, 3), "f4"), ("encoder.a", "encoder.b")
    same = [identity({name: ones for name in order}, {"size": 3}) for order in (names, names[::-1])]
    assert same[0] == same[1]
    others = [
        ({names[0]: ones, names[1]: 2 * ones}, {"size": 3}),
        ({names[0]: ones, names[1]: ones.reshape(3, 2)}, {"size": 3}),
        ({names[0]: ones, names[1]: ones.view("i4")}, {"size": 3}),
        ({names[0]: ones, "encoder.c": ones}, {"size": 3}),
        ({name: ones for name in names}, {"size": 4}),
    ]
    assert len({same[0], *(identity(*other) for other in others)}) == 1 + len(others)
    assert identity({names[0]: ones}, {}, "soundssl test") != identity({names[0]: ones}, {}, "soundssl test")


def test_equal_models_are_equal_bytes(tmp_path):
    tensors = {f"encoder.{name}": np.ones((2, 3), "f4") for name in "abc"}
    for number in range(6):
        files.write_model(tmp_path / f"{number}", tensors, {**CONFIG, "norm": "größe"}, inputs=[], made_from="test")
    assert len({(tmp_path / f"{number}").read_bytes() for number in range(6)}) == 1


def test_models_come_back_and_run_no_code(tmp_path):
    tensors = {"encoder.w": np.arange(6, dtype="f4").reshape(2, 3), "head.b": np.zeros(0, "f4")}
    files.write_model(tmp_path / "m.safetensors", tensors, CONFIG, inputs=[], made_from="digest")
    model = files.read_model(tmp_path / "m.safetensors")
    assert model.config == CONFIG and files.model_made_from(tmp_path / "m.safetensors") == "digest"
    assert all(np.array_equal(model.tensors[name], tensors[name]) for name in tensors)
    (tmp_path / "bad.safetensors").write_bytes(pickle.dumps(print))
    with pytest.raises(files.FormatError, match="is not a safetensors file; make a model with soundssl train"):
        files.read_model(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_misfit_is_refused_by_the_datasets_name(tmp_path, kind):
    required = [name for name, column in KINDS[kind].columns.items() if not column.optional]
    for name in required:
        for spoil, fact in ((None, "is missing"), (np.zeros((1, 1, 1, 1, 1), "f8"), "has (type|shape)")):
            made = columns(kind)
            made.pop(name) if spoil is None else made.update({name: spoil})
            with pytest.raises(ValueError, match=f"dataset {name} {fact}"):
                write(tmp_path / "a.h5", kind, made)
            assert os.listdir(tmp_path) == []


def test_sizes_must_agree_between_datasets():
    found = {"label": ("i1", (4, 3)), "segment/key": ("str", (5,))}
    with pytest.raises(ValueError, match=r"dataset segment/key has shape \[5\], not \[S\] with S = 4, L = 3"):
        check(KINDS["labels"], found)


# --- what cannot be read ---


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Write one file of everything that is no features file."""
    folder = tmp_path_factory.mktemp("broken")
    write(folder / "good.h5", "features", columns("features"))
    write(folder / "labels.h5", "labels", columns("labels"))
    (folder / "text.h5").write_text("these are words\n" * 99)
    (folder / "empty.h5").write_bytes(b"")
    data = (folder / "good.h5").read_bytes()
    (folder / "cut.h5").write_bytes(data[: len(data) // 2])
    for name in ("newer", "foreign", "array", "bare", "missing", "type"):
        (folder / f"{name}.h5").write_bytes(data)
    with h5py.File(folder / "newer.h5", "a") as file:
        file.attrs["schema"] = 99
    with h5py.File(folder / "foreign.h5", "a") as file:
        del file.attrs["kind"]
    with h5py.File(folder / "array.h5", "a") as file:
        file.attrs["kind"] = [1, 2]
    with h5py.File(folder / "bare.h5", "a") as file:
        del file.attrs["hop_length"]
    with h5py.File(folder / "missing.h5", "a") as file:
        del file["clip/recording"]
    with h5py.File(folder / "type.h5", "a") as file:
        del file["mean"]
        file["mean"] = np.zeros(64)
    return folder


@pytest.mark.parametrize(
    ("name", "status", "fact"),
    [
        ("none.h5", 2, "none.h5 does not exist; check the path"),
        (".", 2, "is a folder, not a file; name the file in it"),
        ("text.h5", 4, "text.h5 is not an HDF5 file; make features with soundssl featurize"),
        ("empty.h5", 4, "empty.h5 is not an HDF5 file; make features with soundssl featurize"),
        ("cut.h5", 4, "cut.h5 is a damaged or truncated HDF5 file; make features with soundssl featurize"),
        ("foreign.h5", 4, "foreign.h5 is an HDF5 file of another program; make features with soundssl featurize"),
        ("array.h5", 4, "array.h5 is an HDF5 file of another program; make features with soundssl featurize"),
        ("labels.h5", 4, "labels.h5 holds labels, not features; make features with soundssl featurize"),
        ("newer.h5", 4, "newer.h5 has schema 99 of features, this program knows up to 1; install a newer soundssl"),
        ("bare.h5", 4, "bare.h5 is damaged: attribute hop_length is missing; make it again"),
        ("missing.h5", 4, "missing.h5 is damaged: dataset clip/recording is missing; make it again"),
        ("type.h5", 4, "type.h5 is damaged: dataset mean has type f8, not f4; make it again"),
    ],
)
def test_what_is_no_features_file_is_said_in_one_line(broken, capsys, name, status, fact):
    with pytest.raises(SystemExit) as ended:
        main(["sample-triplets", str(broken / name), "-o", str(broken / "out.h5")])
    assert ended.value.code == status
    error = capsys.readouterr().err
    assert error.startswith("soundssl sample-triplets: ") and error.endswith(fact + "\n") and error.count("\n") == 1
    assert not (broken / "out.h5").exists()


def test_a_file_cut_anywhere_is_damaged(broken, tmp_path):
    data = (broken / "good.h5").read_bytes()
    for length in np.random.default_rng(0).integers(8, len(data), 40):
        (tmp_path / "torn.h5").write_bytes(data[:length])
        with pytest.raises(files.FormatError, match=r"torn\.h5 is a damaged or truncated HDF5 file"):
            files.Features(tmp_path / "torn.h5")


# --- writing ---


def test_an_exception_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.h5"
    for before in (None, b"old"):
        if before:
            path.write_bytes(before)
        with (
            pytest.raises(KeyboardInterrupt),
            files.create(path, "labels", inputs=[], made_from="", attributes={}) as sink,
        ):
            sink.write("label", np.zeros((2, 2), "i1"))
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == (["a.h5"] if before else [])
    assert path.read_bytes() == b"old"


def test_without_provenance_equal_content_is_equal_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / name, "features", columns("features", seed))
    write(tmp_path / "d", "features", columns("features"), command="soundssl test")
    a, b, c, d = ((tmp_path / name).read_bytes() for name in "abcd")
    assert a == b != c and a != d
    with h5py.File(tmp_path / "a") as one, h5py.File(tmp_path / "c") as other:
        assert "command" not in one.attrs and one.attrs["uuid"] != other.attrs["uuid"]


def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path):
    source, link = tmp_path / "a.h5", tmp_path / "link.h5"
    source.write_bytes(b"old")
    link.symlink_to(source)
    files.guard(source, no_clobber=False)
    for path, fact in (
        (source, "exists; leave out --no-clobber"),
        (tmp_path, "exists; leave out"),
        (tmp_path / "none" / "a.h5", "none is not a folder; make it first"),
    ):
        with pytest.raises(SoundsslError, match=fact) as caught:
            files.guard(path, no_clobber=True)
        assert caught.value.status == 2
    with pytest.raises(files.Unusable, match="is a folder; name the file to write in it"):
        files.guard(tmp_path, no_clobber=False)
    with pytest.raises(files.Unusable, match=r"link.h5 is one of the inputs; name another output"):
        files.guard_inputs(link, [tmp_path / "none", source])
    files.guard_inputs(tmp_path / "new.h5", [source])


def test_names_outside_utf8_become_text_and_stay_apart():
    assert files.text("Vögel/a b%.wav") == "Vögel/a b%.wav"
    assert files.text(b"a\xff b%.wav") == "a%FF b%25.wav" == files.text(os.fsdecode(b"a\xff b%.wav"))
    assert files.text(Path("x") / os.fsdecode(b"\xe4.wav")) == "x/%E4.wav"
    names = [bytes([byte]) for byte in range(1, 256)]
    assert len({files.text(name) for name in names}) == 255


def test_a_log_is_cut_back_to_what_is_known(tmp_path):
    path = tmp_path / "log.jsonl"
    log = files.Log(path)
    for step in range(5):
        log.write({"step": step})
    with open(path, "a") as file:
        file.write('{"step": 2}\n{"step"')
    log.cut_back(lambda line: line["step"] < 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]
    path.write_text('{"step": 0}\nrubbish\n{"step": 1}\n')
    log.cut_back(lambda line: True)
    assert path.read_text() == '{"step": 0}\n'
    files.Log(None).write({"step": 0})


def test_a_matrix_goes_to_a_file_and_comes_back(tmp_path):
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype("f4")
    files.write_matrix(tmp_path / "a.npy", (7, 3), "float32", iter((rows[:4], rows[4:])))
    assert np.array_equal(files.read_matrix(tmp_path / "a.npy"), rows)
    np.save(tmp_path / "b.npy", np.arange(3))
    with pytest.raises(files.FormatError, match="not a matrix of floats"):
        files.read_matrix(tmp_path / "b.npy")
    (tmp_path / "c.npy").write_text("words")
    with pytest.raises(files.FormatError, match="is not an NPY matrix"):
        files.read_matrix(tmp_path / "c.npy")


# --- reading rows and windows ---


def layouts(path) -> dict[str, Array]:
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype("f2")
    with h5py.File(path, "w") as file:
        file["contiguous"] = rows
        file.create_dataset("chunked", data=rows, chunks=(7, 4), compression="gzip")
        layout = h5py.VirtualLayout((200, 4), "f2")
        layout[:] = h5py.VirtualSource(file["contiguous"])
        file.create_virtual_dataset("virtual", layout)
        return {name: Array(path, file[name]) for name in ("contiguous", "chunked", "virtual")}


def test_gather_equals_slices_in_every_layout(tmp_path):
    arrays = layouts(tmp_path / "a.h5")
    first = np.array([0, 190, 3, 3, 100])
    for array in arrays.values():
        rows = array[:]
        assert np.array_equal(array.gather(first, 10), np.stack([rows[i : i + 10] for i in first]))
        assert array.gather(np.empty(0, np.int64), 500).shape == (0, 500, 4)
        for wrong in ([191], [-1]):
            with pytest.raises(ValueError, match=r"windows of 10 rows reach outside 0\.\.200"):
                array.gather(np.array(wrong), 10)


def test_arrays_travel_into_other_processes(tmp_path):
    arrays = layouts(tmp_path / "a.h5")
    wanted = {name: array.gather(np.array([5, 150]), 3) for name, array in arrays.items()}  # opened before they travel
    program = "import pickle, sys; a = pickle.load(sys.stdin.buffer); import numpy as np; " \
              "pickle.dump({n: x.gather(np.array([5, 150]), 3) for n, x in a.items()}, sys.stdout.buffer)"  # fmt: skip
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(arrays), capture_output=True, cwd="/",
        env={**os.environ, "PYTHONPATH": root}, check=True,
    )  # fmt: skip
    found = pickle.loads(done.stdout)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_windows_at_any_hop_are_slices_of_their_clip(toy):
    source = files.Features(toy.features)
    for length, hop, batch in ((96, 96, 7), (96, 48, 256), (10, 1, 999), (400, 50, 3)):
        found = list(source.windows(length, hop, batch))
        wanted = []
        for clip, (low, high) in enumerate(zip(source.offset, source.offset[1:], strict=False)):
            wanted += [(clip, k) for k in range(0, high - low - length + 1, hop)]
        assert [(c, s) for w in found for c, s in zip(w.clip, w.start, strict=True)] == [
            (c, k / 100) for c, k in wanted
        ]
        for window in found:
            for frames, clip, start in zip(window.frames, window.clip, window.start, strict=True):
                first = source.offset[clip] + round(start * 100)
                assert np.array_equal(frames, source.frames[first : first + length])


def test_statistics_merge_to_those_of_the_whole():
    generator = np.random.default_rng(0)
    rows = generator.normal([0, 1, 1e3, -1e5], 1e-3, (500, 4))
    for _ in range(50):
        edges = np.sort(generator.integers(0, 501, generator.integers(0, 12)))
        found = statistics_of(rows[:0])
        for some in np.split(rows, edges):
            found = found.merge(statistics_of(some))
        assert found.rows == 500 and found.mean == pytest.approx(rows.mean(0), rel=1e-12)
        assert found.squares / 500 == pytest.approx(rows.var(0), rel=1e-6)


def test_mean_and_deviation_are_those_of_all_frames(toy):
    source = files.Features(toy.features)
    frames = source.frames[:].astype(np.float64)
    assert source.mean == pytest.approx(frames.mean(0), abs=1e-5)
    assert source.deviation == pytest.approx(frames.std(0), abs=1e-5)


def test_splits_are_chosen_by_name(toy):
    clips = files.Features(toy.features).clips
    assert clips.in_splits(["1", "3"]).sum() == 16 and clips.in_splits(None).all()
    with pytest.raises(SoundsslError, match=r"toy has no split '9'; it has '1', '2', '3'"):
        clips.in_splits(["9"], "toy")


@pytest.mark.parametrize(("name", "fact"), [("cut.h5", "a damaged or truncated HDF5 file"), ("array.h5", "of another")])
def test_where_any_kind_will_do_the_remedy_names_no_command(broken, name, fact):
    with pytest.raises(files.FormatError, match=rf"{fact}.*; make it again with the command that wrote it$"):
        files.inspect(broken / name)
