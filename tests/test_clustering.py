"""Clustering and labelling from Python: arrays or paths, ordinary defaults, and the same as the commands find."""

import contextlib
import os
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import builder
import numpy as np
import pytest
from cluster_world import make_world
from test_cluster import PLANTED, ROWS, SIZE, planted, write_embeddings

from soundssl import SoundsslError, clustering, files, labelling
from soundssl.commands.cluster import cluster
from soundssl.commands.label_clusters import label_clusters
from soundssl.device import choose
from soundssl.evaluations.clusters import adjusted_rand
from soundssl.labelling import sheets
from soundssl.progress import Progress

QUICK = clustering.Options(steps=80, batch_size=64, learning_rate=0.02)


class Heard(Progress):
    """Note what work was told of, and how far it went."""

    def __init__(self) -> None:
        self.work: dict[str, list[int]] = {}

    def track(self, description, total, unit):
        self.work[description] = [total, 0]

        def advance(steps: int = 1, note: str = "") -> None:
            self.work[description][1] += steps

        return contextlib.nullcontext(advance)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Work in a folder of one's own, so that a file that nobody asked for is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Clustering -------------------------------------------------------------------------------------------------------


def test_an_array_a_matrix_and_an_embeddings_file_are_clustered_alike_and_nothing_is_written(folder):
    rows, label = planted()
    np.save("rows.npy", rows)
    write_embeddings(Path("rows.h5"), rows)
    before = sorted(os.listdir())
    heard, cpu = Heard(), choose("cpu", "float32")
    given = {"rows": rows, "npy": "rows.npy", "h5": folder / "rows.h5"}
    centres = {
        name: clustering.fit(each, PLANTED, QUICK, context=0, accelerator=cpu, progress=heard)
        for name, each in given.items()
    }
    assert centres["rows"].weight.shape == (PLANTED, SIZE)
    for each in centres.values():
        assert np.allclose(each.weight, centres["rows"].weight, atol=1e-5)
    found = clustering.assign(rows, centres["rows"], cpu, progress=heard)
    assert adjusted_rand(found.cluster, label) > 0.75
    assert np.array_equal(found.summary.size, np.bincount(found.cluster, minlength=PLANTED))
    assert found.confidence.shape == found.similarity.shape == (ROWS,)
    for kind in range(PLANTED):
        own = found.cluster == kind
        mean = (rows[own] / np.linalg.norm(rows[own], axis=1, keepdims=True)).mean(0)
        cosine = rows[own] @ mean / np.linalg.norm(rows[own], axis=1) / np.linalg.norm(mean)
        assert np.allclose(found.similarity[own], cosine, atol=1e-5)
    assert sorted(os.listdir()) == before
    assert heard.work == {"cluster": [80, 80], **{name: [ROWS, ROWS] for name in ("assign", "compare", "entropies")}}


def test_the_library_finds_what_the_command_writes(capsys):
    path = write_embeddings(Path("toy.embeddings.h5"), planted()[0])
    cluster(path, k=PLANTED, seed=3, steps=40, precision="float32", device="cpu")
    output = Path("toy.clusters.h5")
    assert capsys.readouterr().out.strip() == str(output)
    written, cpu = files.Clusters(output), choose("cpu", "float32")
    centres = clustering.fit(path, PLANTED, clustering.Options(steps=40), seed=3, accelerator=cpu)
    assert np.allclose(centres.weight, written.weight[:], atol=1e-5)
    assert centres.context == written.attributes["context"] == 5
    read = clustering.read_centres(output)
    assert np.array_equal(read.weight, written.weight[:]) and read.scale == centres.scale
    found = clustering.assign(path, read, cpu)
    assert np.array_equal(found.cluster, written.cluster)
    assert np.allclose(found.similarity, written.similarity, atol=1e-6)
    for name, value in found.summary.attributes().items():
        assert value == pytest.approx(written.attributes[name], abs=1e-5), name


def test_the_context_of_centres_is_that_of_the_files_they_are_put_to(folder):
    rows = planted()[0]
    path, cpu = write_embeddings(folder / "e.h5", rows), choose("cpu", "float32")
    centres = clustering.fit(path, PLANTED, QUICK, context=25.0, accelerator=cpu)
    averaged = clustering.read_rows(path).averaged(25.0)
    found, alone = clustering.assign(path, centres, cpu), clustering.assign(rows, centres, cpu)
    assert np.array_equal(found.cluster, clustering.assign(averaged, centres, cpu).cluster)
    assert np.array_equal(alone.cluster, clustering.assign(clustering.read_rows(path), centres, cpu).cluster)
    assert (found.cluster != alone.cluster).any()


def test_the_command_is_called_with_ordinary_defaults(capsys):
    np.save("m.npy", planted()[0])
    cluster(Path("m.npy"), k=PLANTED)
    assert capsys.readouterr().out.strip() == "m.clusters.h5"
    cluster(Path("m.npy"), assign=Path("m.clusters.h5"), output=Path("again.h5"))
    one, two = files.Clusters("m.clusters.h5"), files.Clusters("again.h5")
    assert np.array_equal(one.cluster, two.cluster) and len(np.unique(one.cluster)) > 1
    assert sorted(os.listdir()) == ["again.h5", "m.clusters.h5", "m.clusters.h5.metrics.jsonl", "m.npy"]


def test_one_start_is_the_default_and_several_are_told_apart():
    rows, cpu = planted()[0], choose("cpu", "float32")
    options = clustering.Options(steps=12, batch_size=64, learning_rate=0.02, starts=3)
    job = clustering.Job(clustering.read_rows(rows), cpu, k=PLANTED, options=options)
    [runs] = job.runs()
    [best] = job.fit([runs])
    alone = [
        clustering.Runs(job.plan).fit(job.chosen, number * clustering.SEED_STEP, cpu).weight for number in range(3)
    ]
    assert clustering.Options().starts == 1 and not np.allclose(alone[0], alone[1])
    assert np.allclose(best.weight, alone[runs.best], atol=1e-6)


def test_kmeans_from_python(folder):
    pytest.importorskip("faiss")
    rows = planted()[0]
    centres = clustering.fit(rows, PLANTED, clustering.Options(method="kmeans"))
    found = clustering.assign(rows, centres)
    distance = np.square(rows[:, None] - centres.weight[None]).sum(2)
    assert np.allclose(found.similarity, -distance.min(1), rtol=1e-4) and (found.confidence == 1).all()
    assert found.summary.figures()["conditional_entropy"] == 0


def test_without_faiss_kmeans_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SoundsslError, match="needs faiss, which is not installed; pip install"):
        clustering.fit(planted()[0], 3, clustering.Options(method="kmeans"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(3), r"float64 of shape \[3\] is not a matrix of floats"),
        (np.ones((3, 2), int), r"int64 of shape \[3, 2\] is not a matrix of floats"),
        (np.empty((0, 4)), "the matrix holds no embedding; there is nothing to cluster"),
        (np.full((4, 2), np.nan), r"row \d of the embeddings is not finite; leave such rows out"),
        ("nowhere.h5", "nowhere.h5 does not exist; check the path"),
    ],
)
def test_what_cannot_be_clustered_is_named(given, message):
    with pytest.raises((ValueError, SoundsslError), match=message):
        clustering.fit(given, 2, clustering.Options(steps=1))


def test_a_bare_matrix_has_no_splits_and_no_times():
    rows = clustering.read_rows(planted()[0])
    with pytest.raises(SoundsslError, match="the matrix is a bare matrix and has no splits"):
        rows.choose(["a"])
    with pytest.raises(SoundsslError, match="the matrix is a bare matrix, without clips and times"):
        rows.averaged(5)
    with pytest.raises(ValueError, match="say how many clusters to find, or whose to use"):
        clustering.Job(rows, choose("cpu", "float32"))
    with pytest.raises(ValueError, match="out of range"):
        clustering.fit(rows, 3, clustering.Options(scale=-1))
    with pytest.raises(files.FormatError, match=f"the matrix has embeddings of {SIZE} numbers, the clustering has"):
        clustering.assign(rows, clustering.Centres(np.eye(3, dtype="f4")))


def test_the_command_offers_what_the_library_knows():
    offered = get_type_hints(cluster)
    assert offered["method"] == clustering.Method and offered["optimiser"] == clustering.Optimiser
    assert offered["preset"] == clustering.Preset and set(get_args(clustering.Preset)) == clustering.PRESETS.keys()
    assert clustering.CONTEXT.keys() == clustering.PRESETS.keys()
    tables = {"order": labelling.ORDERS, "ask": labelling.ASKS, "preset": labelling.PRESETS}
    hints = get_type_hints(label_clusters)
    for name, table in tables.items():
        choices, _ = get_args(hints[name])  # the other one is None, where it is not given
        assert list(get_args(choices)) == list(table), name


# Labelling --------------------------------------------------------------------------------------------------------


def test_labels_from_python_are_those_of_the_command(folder, capsys):
    world = make_world(folder)
    label_clusters(world.clusters, labels=world.labels)
    output = Path(capsys.readouterr().out.strip())
    assert output == folder / "clusters.spread.labels.h5"
    windows, known = labelling.read_windows(world.clusters), files.Labels(world.labels)
    plan = labelling.PRESETS["best"]
    asked = labelling.questions(windows, plan, seed=0)
    answers = labelling.consult(windows, known, asked, labelling.Cost(len(asked)))
    labelled = labelling.Labelling(windows, answers, plan.spread)
    written = files.Labels(output)
    assert np.array_equal(labelled.label, written.label) and len(labelled.rows) == len(written.key)
    scores = {one["metric"]: one["value"] for one in labelled.scores(known) if one["class"] is None}
    assert scores["precision"] == 1.0 and scores["questions"] == len(asked) == 4
    assert labelling.summary(labelled.scores(), len(windows)) == "4 questions, 90 of 180 windows labelled"


def test_a_sheet_from_python_comes_back(folder):
    world = make_world(folder)
    windows = labelling.read_windows(world.clusters, ["2"])
    asked = labelling.questions(windows, labelling.PRESETS["paper"], seed=1)
    labelling.write_sheet("q.csv", windows, asked)
    text = Path("q.csv").read_text()
    Path("q.csv").write_text(text.replace(",\n", ",dog\n"))
    answers = labelling.read_sheet("q.csv", windows, labelling.Cost(3))
    assert answers.asked.tolist() == asked[:3].tolist() and answers.classes == ["dog"]
    with pytest.raises(SoundsslError, match=r"q.csv has 4 answers; name another sheet, or give --force"):
        labelling.write_sheet("q.csv", windows, asked)


def test_a_conversation_goes_on_where_its_journal_ends(folder):
    world = make_world(folder)
    windows = labelling.read_windows(world.clusters)
    asked = labelling.questions(windows, labelling.PRESETS["best"])
    first = labelling.Conversation(windows, asked, labelling.Cost(3), folder / "out.h5")
    with pytest.raises(SoundsslError, match="no question was answered"):
        first.answers()
    for answer in ("dog", "dgo"):
        upcoming = first.upcoming()
        assert upcoming is not None
        first.answered(upcoming, answer)
    assert first.undo().answer == "dgo" and first.classes == ["dog"]
    second = labelling.Conversation(windows, asked, labelling.Cost(3), folder / "out.h5")
    assert len(second) == 1 and second.upcoming() == first.upcoming()
    while upcoming := second.upcoming():
        second.answered(upcoming, "none")
    assert upcoming is None and second.answers().asked.tolist() == asked[:3].tolist()
    assert second.answers().label.tolist() == [[1], [0], [0]]
    other = labelling.Conversation(windows, asked, labelling.Cost(4), folder / "out.h5")
    assert isinstance(other.upcoming().question, sheets.Question) and other.upcoming().heading.startswith(
        "question 4 of 4"
    )


@pytest.mark.parametrize("heads", [{}, {"clustering": {}}, {"clustering": {"scale": "x"}}, None])
def test_a_model_that_does_not_say_the_scale_of_its_head_is_refused(heads, tmp_path):
    """As a mutated file had it (fuzz bench, seed 111560)."""
    config = {} if heads is None else {"heads": heads}
    path = builder.model(tmp_path / "m.safetensors", {"head.clustering.head.weight": np.eye(3, dtype="f4")}, config)
    with pytest.raises(files.FormatError, match=r"m\.safetensors"):
        clustering.read_centres(path)
