"""The cluster command: it finds planted clusters, goes on after a kill, assigns new data, and says what is wrong."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from soundssl import clustering, files, training
from soundssl.clustering import Summary
from soundssl.commands import main
from soundssl.evaluations.clusters import adjusted_rand

PLANTED, ROWS, SIZE = 6, 240, 16
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows around a few directions and the direction of each."""
    centres = np.random.default_rng(0).standard_normal((PLANTED, SIZE))
    generator = np.random.default_rng(seed)
    label = generator.permutation(np.arange(ROWS) % PLANTED)
    return (centres[label] + 0.4 * generator.standard_normal((ROWS, SIZE))).astype("f4"), label


def write_embeddings(path: Path, rows: np.ndarray) -> Path:
    """Write rows as an embeddings file of clips of four windows; the clips of split b come last."""
    clips = len(rows) // 4
    attributes = {"layer": "embedding", "hop": 10.0, "window": 0.96, "class": "[]", "features": "", "model": ""}
    with files.create(path, "embeddings", inputs=[], made_from="", attributes=attributes) as sink:
        sink.write("embedding", rows)
        sink.write("window/clip", np.repeat(np.arange(clips), 4).astype("i4"))
        sink.write("window/start", np.tile(10 * np.arange(4.0), clips))
        for name in ("key", "recording", "source"):
            sink.write(f"clip/{name}", [f"clip-{clip:03}" for clip in range(clips)])
        sink.write("clip/split", ["a" if clip < clips // 2 else "b" for clip in range(clips)])
        sink.write("clip/start", np.zeros(clips))
    return path


def write_two_clips(path: Path, windows: int) -> Path:
    """Write an embeddings file of two clips with so many windows."""
    rows = np.random.default_rng(0).normal(0, 1, (windows, 2)).astype("f4")
    attributes = {"layer": "embedding", "hop": 1.0, "window": 1.0, "class": "[]", "features": "", "model": ""}
    with files.create(path, "embeddings", inputs=[], made_from="", attributes=attributes) as sink:
        sink.write("embedding", rows)
        sink.write("window/clip", np.repeat(np.arange(2), windows // 2).astype("i4"))
        sink.write("window/start", np.tile(np.arange(windows / 2), 2))
        for name in ("key", "recording", "source", "split"):
            sink.write(f"clip/{name}", ["a", "b"])
        sink.write("clip/start", np.zeros(2))
    return path


def command(*arguments, status: int = 0) -> None:
    """Run the command line in this process."""
    with pytest.raises(SystemExit) as end:
        main(["cluster", *map(str, arguments), "--device", "cpu", "--threads", "1"])
    assert (end.value.code or 0) == status


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[Path, Path]:
    """Cluster the planted rows once."""
    folder = tmp_path_factory.mktemp("cluster")
    given = write_embeddings(folder / "toy.embeddings.h5", planted()[0])
    command(given, "--k", PLANTED, "--steps", 80, "--batch-size", 64, "--learning-rate", 0.02, "-q")
    return given, folder / "toy.clusters.h5"


def test_it_finds_planted_clusters_and_writes_what_the_schema_says(found):
    from sklearn.metrics import v_measure_score

    read = files.Clusters(found[1])
    assert v_measure_score(planted()[1], read.cluster) > 0.85
    assert np.array_equal(np.bincount(read.cluster, minlength=PLANTED), read.size)
    assert read.attributes["used"] == PLANTED and read.attributes["window"] == 0.96
    assert 0 <= read.attributes["conditional_entropy"] < 0.25 * np.log(PLANTED)  # sure, though the scale is modest
    share = read.size / ROWS
    assert read.attributes["marginal_entropy"] == pytest.approx(-(share * np.log(share)).sum(), abs=0.05)
    embeddings = files.Embeddings(found[0])
    assert np.array_equal(read.clip, embeddings.clip) and list(read.clips.key) == list(embeddings.clips.key)
    lines = [json.loads(line) for line in Path(f"{found[1]}.metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 80 and {"clustering.conditional_entropy", "clustering.active"} <= lines[-1].keys()
    assert not Path(f"{found[1]}.resume").exists()


@pytest.mark.parametrize("suffix", [".h5", ".npy"])
def test_assign_repeats_the_clustering_on_its_own_rows(found, tmp_path, suffix, capsys):
    given = found[0]
    if suffix == ".npy":
        given = tmp_path / "toy.npy"
        np.save(given, planted()[0])
    command(given, "--assign", found[1], "-o", tmp_path / "again.h5", "-q")
    one, two = files.Clusters(found[1]), files.Clusters(tmp_path / "again.h5")
    assert np.array_equal(one.cluster, two.cluster) and np.allclose(one.confidence, two.confidence, atol=2e-3)
    assert np.array_equal(one.weight[:], two.weight[:])
    assert (two.clip is None) == (suffix == ".npy")
    assert json.loads(capsys.readouterr().out)["active"] == PLANTED


def test_new_rows_fall_to_the_clusters_of_their_kind(found, tmp_path):
    rows, label = planted(seed=5)
    np.save(tmp_path / "new.npy", rows)
    command(tmp_path / "new.npy", "--assign", found[1], "-o", tmp_path / "new.h5", "-q")
    old, new = files.Clusters(found[1]).cluster, files.Clusters(tmp_path / "new.h5").cluster
    home = [np.bincount(old[planted()[1] == kind]).argmax() for kind in range(PLANTED)]
    assert np.mean(np.array(home)[label] == new) > 0.85


@pytest.mark.parametrize("seconds", [5.0, 20.0, 25.0, 1000.0])
def test_context_is_the_mean_of_the_windows_of_a_clip_around(found, seconds):
    """Windows lie ten seconds apart, four to a clip; the reader agrees with a loop, by slice and by row numbers."""
    source = clustering.read_rows(found[0])
    rows, clip, start = planted()[0], source.file.clip, source.file.start
    near = (clip[:, None] == clip) & (abs(start[:, None] - start) <= seconds / 2)
    expected = near @ rows / near.sum(1, keepdims=True)
    averaged = source.averaged(seconds)
    assert np.allclose(averaged[slice(0, ROWS)], expected, atol=1e-6)
    chosen = averaged.choose(["b"])
    assert np.allclose(chosen[np.array([0, 3, 50])], expected[ROWS // 2 + np.array([0, 3, 50])], atol=1e-6)
    assert source.averaged(0.0) is source


def test_context_helps_where_a_clip_holds_one_kind_of_sound_and_is_kept_for_new_data(tmp_path):
    from sklearn.metrics import v_measure_score

    generator, label = np.random.default_rng(3), np.repeat(np.arange(ROWS // 4) % PLANTED, 4)
    centres = generator.standard_normal((PLANTED, SIZE))
    rows = (centres[label] + 1.6 * generator.standard_normal((ROWS, SIZE))).astype("f4")
    given, reached = write_embeddings(tmp_path / "e.h5", rows), {}
    for seconds in (0, 80):
        output = tmp_path / f"{seconds}.h5"
        command(given, "--k", PLANTED, "--steps", 120, "--batch-size", 64, "--context", seconds, "-o", output, "-q")
        reached[seconds] = v_measure_score(label, files.Clusters(output).cluster)
    assert reached[80] > reached[0] + 0.1
    command(given, "--assign", tmp_path / "80.h5", "-o", tmp_path / "again.h5", "-q")
    one, two = files.Clusters(tmp_path / "80.h5"), files.Clusters(tmp_path / "again.h5")
    assert one.attributes["context"] == two.attributes["context"] == 80
    assert np.array_equal(one.cluster, two.cluster) and np.allclose(one.similarity, two.similarity, atol=1e-3)


def test_context_needs_windows_in_the_order_of_their_clips(tmp_path, capsys):
    given = write_embeddings(tmp_path / "e.h5", planted()[0])
    with h5py.File(given, "r+") as file:
        file["window/clip"][:] = file["window/clip"][:][::-1]
    command(given, "--k", 3, "--context", 5, "-o", tmp_path / "c.h5", status=1)
    assert "are not in the order of their clips; give --context 0" in capsys.readouterr().err


def test_kmeans_is_the_yardstick(found, tmp_path):
    pytest.importorskip("faiss")
    from sklearn.metrics import v_measure_score

    command(found[0], "--k", PLANTED, "--method", "kmeans", "-o", tmp_path / "k.h5", "-q")
    read = files.Clusters(tmp_path / "k.h5")
    distance = np.square(planted()[0][:, None] - read.weight[:][None]).sum(2)
    assert np.array_equal(read.cluster, distance.argmin(1)) and np.allclose(
        read.similarity, -distance.min(1), rtol=1e-4
    )
    assert v_measure_score(planted()[1], read.cluster) > 0.8
    assert (read.attributes["method"], read.attributes["metric"]) == ("kmeans", "euclidean")
    command(found[0], "--assign", tmp_path / "k.h5", "-o", tmp_path / "again.h5", "-q")
    assert np.array_equal(files.Clusters(tmp_path / "again.h5").cluster, read.cluster)


def test_without_faiss_kmeans_says_so_in_a_line(found, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "faiss", None)
    command(found[0], "--k", 3, "--method", "kmeans", "-o", tmp_path / "k.h5", "-q", status=1)
    assert "needs faiss, which is not installed; pip install 'soundssl[faiss]'" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_windows(tmp_path):
    command(write_two_clips(tmp_path / "few.h5", 8000), "--k", 40, "--steps", 20, "-o", tmp_path / "c.h5", "-q")
    peak = []
    for windows in (100_000, 300_000):
        given = write_two_clips(tmp_path / "many.h5", windows)
        tracemalloc.start()
        command(given, "--assign", tmp_path / "c.h5", "-o", tmp_path / "out.h5", "-q")
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Bytes: a truth value a window while the largest clusters are described, and one in twenty of their rows.
    assert peak[1] - peak[0] < 4 * 200_000, "less than the windows' clusters take"


def test_a_split_is_learnt_from_and_all_windows_are_assigned(found, tmp_path):
    rows = files.Embeddings(found[0]).embedding[:].copy()
    rows[ROWS // 2 :] = rows[0]
    given = write_embeddings(tmp_path / "half.h5", rows)
    command(given, "--k", 4, "--steps", 12, "--split", "a", "-o", tmp_path / "c.h5", "-q")
    assert len(files.Clusters(tmp_path / "c.h5").cluster) == ROWS
    command(given, "--k", 4, "--split", "c", "-o", tmp_path / "c2.h5", status=1)


def test_killed_and_repeated_it_gives_the_same_bytes(found, tmp_path):
    options = ["--k", 8, "--steps", 60, "--batch-size", 64, "--no-provenance", "-q", "--checkpoint-every", 0]
    whole, cut = tmp_path / "whole.h5", tmp_path / "cut.h5"
    command(found[0], *options, "-o", whole)
    words = [
        sys.executable,
        "-m",
        "soundssl",
        "cluster",
        found[0],
        *options,
        "-o",
        cut,
        "--device",
        "cpu",
        "--threads",
        1,
    ]
    process = subprocess.Popen(list(map(str, words)), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    resume = cut.with_name(cut.name + ".resume")
    while not resume.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    assert not cut.exists()
    command(found[0], *options, "-o", cut)
    assert cut.read_bytes() == whole.read_bytes()
    assert not resume.exists()
    for made_from, stays in ((files.made_from(cut), False), ("another", True)):  # killed just after its output stood
        training.Checkpoint(cut, made_from, 0).save(step=60)
        command(found[0], *options, "-o", cut)
        assert resume.exists() == stays


def test_a_second_run_on_the_same_output_is_refused(found, tmp_path, capsys):
    output = tmp_path / "c.h5"
    with files.alone(output):
        command(found[0], "--k", 4, "--steps", 2, "-o", output, status=1)
        assert f"another run is writing {output}; let it end, or end it, first" in capsys.readouterr().err
    command(found[0], "--k", 4, "--steps", 2, "-o", output)
    assert sorted(os.listdir(tmp_path)) == ["c.h5", "c.h5.metrics.jsonl"]


def test_a_finished_run_repeated_does_nothing(found, capsys):
    command(found[0], "--k", PLANTED, "--steps", 80, "--batch-size", 64, "--learning-rate", 0.02)
    answer = capsys.readouterr()
    assert "is up to date" in answer.err and answer.out.strip() == str(found[1])


def test_a_matrix_comes_on_standard_input_and_a_summary_goes_out(tmp_path, monkeypatch, capsys):
    stream = io.BytesIO()
    np.save(stream, planted()[0])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stream.getvalue())))
    command("-", "--k", 4, "--steps", 10, "-o", tmp_path / "c.h5", "--preset", "paper")
    answer = json.loads(capsys.readouterr().out)
    assert (answer["windows"], answer["clusters"]) == (ROWS, 4)
    with h5py.File(tmp_path / "c.h5") as file:
        assert json.loads(file.attrs["inputs"])[0]["file"] == "standard input" and "window/clip" not in file


def test_of_a_matrix_info_says_no_more_than_it_knows(tmp_path):
    np.save(tmp_path / "rows.npy", planted()[0])
    command(tmp_path / "rows.npy", "--k", 4, "--steps", 2, "-o", tmp_path / "c.h5")
    [source] = files.chain(tmp_path / "c.h5")
    assert (source["file"], source["state"]) == ("rows.npy", "not compared")
    (tmp_path / "rows.npy").unlink()
    assert files.chain(tmp_path / "c.h5")[0]["state"] == "missing"


def test_the_sheet_names_the_largest_clusters_and_how_stable_they_are(found, tmp_path, capsys):
    picture, output = tmp_path / "sheet.png", tmp_path / "c.h5"
    options = ("--k", PLANTED, "--steps", 80, "--batch-size", 64, "--learning-rate", 0.02, "--optimiser", "rowwise")
    options += ("--gamma-start", 2)
    command(found[0], *options, "--stability", "--picture", picture, "-o", output)
    answer = json.loads(capsys.readouterr().out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    clusters, other = files.Clusters(output), tmp_path / "other.h5"
    command(found[0], *options, "--seed", 1, "-o", other)  # the second of the two runs, on its own
    agreed = adjusted_rand(clusters.cluster, files.Clusters(other).cluster)
    assert answer["stability"] == pytest.approx(agreed) and agreed > 0.3  # by chance it would be 0
    assert [each["windows"] for each in answer["largest"]] == sorted(clusters.size[clusters.size > 0])[::-1][:10]
    for each in answer["largest"]:
        own = np.flatnonzero(clusters.cluster == each["cluster"])
        best = own[clusters.similarity[own].argmax()]
        nearest = each["nearest"][0]
        assert (nearest["clip"], nearest["start"]) == (clusters.clips.key[clusters.clip[best]], clusters.start[best])
        assert len({near["clip"] for near in each["nearest"]}) == len(each["nearest"]) <= 5
    assert sorted(path.name for path in tmp_path.iterdir() if "again" in path.name) == ["c.h5.again.metrics.jsonl"]
    command(found[0], "--k", PLANTED, "--method", "kmeans", "--stability", status=2)


def test_of_several_starts_the_one_whose_rows_lie_nearest_is_kept(found, tmp_path):
    options = ("--k", PLANTED, "--steps", 12, "--batch-size", 64, "--learning-rate", 0.02, "-o")
    made = {starts: tmp_path / f"{starts}.h5" for starts in ("all", 0, 1, 2)}
    command(found[0], *options, made["all"], "--starts", 3)
    rows = files.Embeddings(found[0]).embedding[:].astype("f4")
    near = []
    for number in range(3):
        command(found[0], *options, made[number], "--seed", number * clustering.SEED_STEP)
        near.append(clustering.nearness(rows, files.Clusters(made[number]).cluster))
    kept = files.Clusters(made["all"])
    best = files.Clusters(made[near.index(max(near))])
    assert len(set(near)) > 1 and np.array_equal(kept.weight[:], best.weight[:])
    assert np.array_equal(kept.cluster, best.cluster)
    texts = [path.with_name(path.name + ".metrics.jsonl").read_text() for path in made.values()]
    logs = [[{**json.loads(line), "time": ""} for line in text.splitlines()] for text in texts]
    assert logs[0] == logs[1 + near.index(max(near))]
    assert len(list(tmp_path.iterdir())) == 2 * len(made)  # no states, and no figures of the others
    command(found[0], "--k", PLANTED, "--method", "kmeans", "--starts", 2, status=2)


def test_collapse_is_named_with_advice(tmp_path, capsys):
    np.save(tmp_path / "same.npy", np.ones((64, 8), "f4"))
    command(tmp_path / "same.npy", "--k", 5, "--steps", 5, "-o", tmp_path / "c.h5")
    assert "collapse: 100.0% of the windows are in one of 5 clusters; raise --gamma" in capsys.readouterr().err
    assert (tmp_path / "c.h5").exists()
    undecided = Summary(np.array([5, 5, 6]), conditional=1.09, marginal=1.09)
    assert "nothing is assigned" in undecided.trouble() and "raise --scale" in undecided.trouble()
    assert Summary(np.array([5, 5, 6]), conditional=0.1, marginal=1.09).trouble() is None


@pytest.mark.parametrize(
    ("words", "status", "fault"),
    [
        (["m.npy"], 2, "say how many clusters to find"),
        (["m.npy", "--k", "1"], 2, "'-k' / '--k'"),
        (["m.npy", "--k", "3", "--method", "gmm"], 2, "'gmm' is not one of 'entropy', 'kmeans'"),
        (["m.npy", "--k", "3", "--preset", "best"], 2, "'best' is not one of 'steady', 'rising', 'paper'"),
        (["-", "--k", "3"], 2, "standard input has no name"),
        (["nowhere.h5", "--k", "3"], 2, "nowhere.h5 does not exist; check the path"),
        (["text.h5", "--k", "3"], 4, "text.h5 is not an embeddings file; make embeddings with soundssl embed"),
        (["cube.npy", "--k", "3"], 4, "not a matrix of floats"),
        (["nan.npy", "--k", "3", "--steps", "2"], 1, "row 5 of the embeddings is not finite"),
        (["m.npy", "--k", "3", "--split", "1"], 1, "is a bare matrix and has no splits"),
        (["m.npy", "--k", "3", "--context", "5"], 1, "is a bare matrix, without clips and times; leave out --context"),
        (["m.npy", "--assign", "m.npy"], 4, "is not a safetensors file"),
        (["empty.npy", "--k", "3"], 1, "holds no embedding"),
        (["m.npy", "--k", "3", "-o", "m.npy"], 2, "is one of the inputs"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, words, status, fault):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    matrix = np.ones((9, 4), "f4")
    np.save("m.npy", matrix)
    np.save("cube.npy", matrix[None])
    np.save("empty.npy", matrix[:0])
    matrix[5, 2] = np.nan
    np.save("nan.npy", matrix)
    Path("text.h5").write_text("these are words\n")
    command(*words, status=status)
    assert fault in capsys.readouterr().err.splitlines()[-1]


def test_clusters_of_another_size_are_refused(found, tmp_path, capsys):
    np.save(tmp_path / "m.npy", np.ones((9, SIZE + 1), "f4"))
    command(tmp_path / "m.npy", "--assign", found[1], status=4)
    assert f"embeddings of {SIZE + 1} numbers" in capsys.readouterr().err


def test_train_learns_a_clustering_head_that_assigns(toy, tmp_path):
    model, embedded = tmp_path / "m.safetensors", tmp_path / "e.h5"
    settings = ["--set", "clusters=12", "--set", "start=data", "--set", "momentum=0.5"]
    words = [
        "train",
        toy.features,
        "--objective",
        "clustering",
        *settings,
        "--size",
        8,
        "--steps",
        3,
        "--batch-size",
        4,
    ]
    for line in ([*words, "-o", model, "-q"], ["embed", toy.features, "-m", model, "-o", embedded, "-q"]):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in [*line, "--device", "cpu", "--threads", 1]])
        assert not end.value.code
    metrics = json.loads(Path(f"{model}.metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= metrics["clustering.conditional_entropy"] <= np.log(12) and 1 <= metrics["clustering.active"] <= 4
    command(embedded, "--assign", model, "-o", tmp_path / "c.h5", "-q")
    assert np.array_equal(
        files.Clusters(tmp_path / "c.h5").weight[:], files.read_model(model).tensors["head.clustering.head.weight"]
    )


def test_windows_are_drawn_evenly_from_the_chosen_clips():
    from soundssl.objectives import Inputs, clustering

    class Features:
        offset, window = np.array([0, 300, 340, 640]), 96

        class frames:
            gather = staticmethod(lambda first, length: np.asarray(first, "f4"))

    inputs = Inputs(Features(), np.array([True, True, False]))
    examples = clustering.Examples(inputs, clustering.Options(), seed=0)
    first = [examples.__getitems__([(epoch, row) for row in range(len(examples))])["window"] for epoch in range(400)]
    first = np.stack(first).ravel()
    assert (
        first.min() == 0 and first.max() == 300 - 96
    )  # the second clip is shorter than a window, the third not chosen
    assert np.histogram(first, 5)[0] == pytest.approx(len(first) / 5, rel=0.2)
    again = examples.__getitems__([(7, 1), (3, 0)])["window"]
    assert np.array_equal(again, examples.__getitems__([(3, 0), (7, 1)])["window"].flip(0))


def test_scale_and_gamma_go_along_lines_and_stay():
    from soundssl.objectives import clustering

    options = clustering.Options(
        clusters=3, start="random", scale=60, rise=0.5, gamma=1.5, gamma_start=0.5, gamma_over=0.8
    )
    goes = clustering.Objective(SimpleNamespace(size=4), None, options)
    assert [goes.scale(each) for each in (0, 0.25, 0.5, 1)] == pytest.approx([6, 33, 60, 60])
    assert [goes.gamma(each) for each in (0, 0.4, 0.8, 1)] == pytest.approx([0.5, 1.0, 1.5, 1.5])
    stays = clustering.Objective(SimpleNamespace(size=4), None, replace(options, rise=0, gamma_start=-1))
    assert {stays.scale(each) for each in (0, 0.5, 1)} == {60} and {stays.gamma(each) for each in (0, 0.5, 1)} == {1.5}
