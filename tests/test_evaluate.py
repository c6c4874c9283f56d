"""Evaluate, from files to rows: tables out of files, and every subcommand called from Python with its defaults."""

import io
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer

from soundssl import SoundsslError, files
from soundssl.commands import evaluate, main
from soundssl.evaluations import clusters as of_clusters
from soundssl.evaluations import folds, knn, reading, retrieval
from soundssl.evaluations import labels as of_labels
from soundssl.evaluations.table import Table

HOP, WINDOW = 0.48, 0.96  # seconds


class World(NamedTuple):
    """Hold files about 12 clips of three classes and three splits; clip 10 has no window, clip 11 no label."""

    embeddings: Path
    scores: Path
    matrix: Path
    clusters: Path
    bare: Path
    labels: Path
    spread: Path
    vector: np.ndarray
    clip: np.ndarray
    label: np.ndarray


KEYS = [f"clip {i}" for i in range(12)]
SPLITS = [str(1 + i % 3) for i in range(12)]
CLASSES = ["bark", "rain", "siren"]


def write(path: Path, kind: str, columns: dict[str, object], attributes: dict[str, object] | None = None) -> Path:
    with files.create(path, kind, inputs=[], made_from="", attributes=attributes or {}) as sink:
        for name, values in columns.items():
            sink.write(name, values)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder, generator = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    of_class = np.arange(12) // 4
    clip = np.repeat(np.delete(np.arange(12), 10), 4)
    start = np.tile(np.arange(4) * HOP, 11)
    vector = (np.eye(3, 8)[of_class[clip]] + 0.3 * generator.standard_normal((44, 8))).astype("f4")
    label = np.eye(3, dtype="i1")[of_class]
    label[11] = -1
    clips = {"clip/key": KEYS, "clip/recording": KEYS, "clip/split": SPLITS}
    windows = {"window/clip": clip.astype("i4"), "window/start": start, **clips}
    more = {"clip/source": KEYS, "clip/start": np.zeros(12)}
    about = {"layer": "embedding", "hop": HOP, "window": WINDOW, "class": "[]", "features": "u", "model": "u"}
    named = about | {"layer": "probabilities", "class": json.dumps(["siren", "cat", "bark"])}
    score = 1 / (1 + np.exp(-vector[:, :3]))
    groups = {"cluster": of_class[clip].astype("i4"), "confidence": np.ones(44, "f2"), "similarity": np.ones(44, "f4")}
    groups |= {"size": np.bincount(of_class[clip]), "weight": np.eye(3, dtype="f4"), "mean": np.eye(3, dtype="f4")}
    whole = {"segment/key": KEYS, "segment/start": np.zeros(12), "segment/end": np.full(12, np.inf), "class": CLASSES}
    some = np.flatnonzero(clip % 4 == 0)[:11]
    spread = {"label": label[clip[some]], "segment/key": [KEYS[i] for i in clip[some]], "class": CLASSES}
    spread |= {"segment/start": start[some], "segment/end": start[some] + WINDOW}
    found = {"method": "entropy", "metric": "cosine", "scale": 1.0, "window": WINDOW}
    bare = {name: column[:12] if len(column) > 3 else column for name, column in groups.items()}
    np.save(folder / "m.npy", np.eye(3, 8, dtype="f4")[of_class])
    return World(
        write(folder / "e.h5", "embeddings", {"embedding": vector, **windows, **more}, about),
        write(folder / "s.h5", "embeddings", {"embedding": score[:, [2, 1, 0]], **windows, **more}, named),
        folder / "m.npy",
        write(folder / "c.h5", "clusters", {**groups, **windows}, found),
        write(folder / "b.h5", "clusters", bare, found),
        write(folder / "l.h5", "labels", {"label": label, "split": SPLITS, **whole}),
        write(folder / "p.h5", "labels", spread),
        vector, clip, label,
    )  # fmt: skip


def printed(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def rows_of(evaluation: str, path: Path, rows: list[dict]) -> list[dict]:
    return [{"evaluation": evaluation, **row, "input": path.name} for row in rows]


# Tables out of files ------------------------------------------------------------------------------------------------


def test_windows_and_means_are_of_the_clips_that_have_labels(world):
    known = files.Labels(world.labels)
    table = reading.read_embeddings(world.embeddings, known)
    kept = world.clip < 10
    assert np.array_equal(table.value, world.vector[kept]) and np.array_equal(table.clip, world.clip[kept])
    assert np.array_equal(table.label, world.label[:10]), "no clip 10, which has no window, nor 11, which has no label"
    assert table.split.tolist() == SPLITS[:10] and table.recording.tolist() == KEYS[:10] and table.classes == CLASSES
    means = reading.read_embeddings(world.embeddings, known, level="clip", splits=["2", "3"])
    chosen = [i for i in range(10) if SPLITS[i] in "23"]
    np.testing.assert_allclose(means.value, [world.vector[world.clip == i].mean(0) for i in chosen], atol=1e-6)
    assert np.array_equal(means.label, world.label[chosen]) and means.of_clips


def test_means_are_the_same_whatever_the_blocks(world, monkeypatch):
    source, chosen = files.Embeddings(world.embeddings), np.arange(12) % 2 == 0
    means, clip = reading.clip_means(source, chosen)
    assert clip.tolist() == [0, 2, 4, 6, 8]
    monkeypatch.setattr(reading, "BATCH", 3)
    again, same = reading.clip_means(source, chosen)
    np.testing.assert_allclose(again, means, atol=1e-6)
    assert (same == clip).all() and means.dtype == np.float32
    rows, of = reading.windows(source, chosen)
    assert np.array_equal(rows, world.vector[np.isin(world.clip, clip)]) and len(of) == 20
    for read in (reading.clip_means, reading.windows):
        with pytest.raises(files.FormatError, match=r"e\.h5 has no window of the chosen clips"):
            read(source, np.arange(12) == 10)


def test_features_are_flattened_log_mel_windows(toy):
    known, source = files.Labels(toy.labels), files.Features(toy.features)
    table = reading.read_embeddings(toy.features, known, hop=0.5)
    windows = next(source.windows(source.window, 50, 10_000))
    assert np.array_equal(table.value, windows.frames.reshape(len(windows.clip), -1).astype("f4"))
    assert np.array_equal(table.clip, windows.clip) and len(table.label) == 24


def test_a_matrix_has_a_row_for_each_segment(world):
    known = files.Labels(world.labels)
    table = reading.read_embeddings(world.matrix, known, splits=["1"])
    rows = [0, 3, 6, 9]
    assert np.array_equal(table.value, np.load(world.matrix)[rows]) and np.array_equal(table.label, world.label[rows])
    assert table.recording.tolist() == [KEYS[i] for i in rows]
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((5, 2), "f4"))
    buffer.seek(0)
    with pytest.raises(files.FormatError, match="standard input has 5 rows and the labels 12 segments"):
        reading.read_embeddings(buffer, known)


def test_scores_take_the_labels_of_their_classes(world):
    table = reading.read_scores(world.scores, files.Labels(world.labels))
    assert table.classes == ["siren", "cat", "bark"]
    assert np.array_equal(table.label[:, 0], world.label[:10, 2]) and (table.label[:, 1] == -1).all()
    with pytest.raises(files.FormatError, match="holds embeddings, not scores of classes"):
        reading.read_scores(world.embeddings, files.Labels(world.labels))


def test_clusters_take_the_labels_at_the_centres_of_their_windows(world):
    known = files.Labels(world.labels)
    table = reading.read_clusters(files.Clusters(world.clusters), known, ["1", "2"])
    chosen = np.isin(np.array(SPLITS)[world.clip], ["1", "2"])
    assert np.array_equal(table.label, world.label[world.clip[chosen]]) and table.of_clips
    bare = reading.read_clusters(files.Clusters(world.bare), known)
    assert len(bare.value) == 12 and np.array_equal(bare.label, world.label)
    with pytest.raises(files.FormatError, match="12 rows without times and the labels 11 segments"):
        reading.read_clusters(files.Clusters(world.bare), files.Labels(world.spread))


def test_labels_are_set_against_all_windows_or_against_their_own_segments(world):
    given, truth = files.Labels(world.spread), files.Labels(world.labels)
    said: list[str] = []

    class Listener(reading.Progress):
        def say(self, message: str) -> None:
            said.append(message)

    alone = reading.read_labels(given, truth, progress=Listener())
    assert np.array_equal(alone.value, given.label) and len(said) == 1 and "give --windows for all windows" in said[0]
    table = reading.read_labels(given, truth, world.clusters)
    assert len(table.value) == 44 and (table.value >= 0).any(1).sum() == len(given.key)
    assert np.array_equal(table.label, world.label[world.clip])
    assert np.array_equal(table.value, reading.read_labels(given, truth, world.embeddings).value)
    with pytest.raises(files.FormatError, match=r"b\.h5 holds no times of windows; give the embeddings file"):
        reading.read_labels(given, truth, world.bare)


def test_sides_are_chosen_by_splits():
    split = np.array(list("aabbcc"))
    table = Table(np.zeros((6, 1)), np.zeros((6, 1), "i1"), ["x"], split=split)

    def sides(*chosen) -> tuple[str, ...]:
        made = reading.choose_sides(table, *chosen)
        parts = (made.test, made.train, made.validation)
        return tuple("" if part is None else "".join(sorted(set(split[part]))) for part in parts)

    assert sides(None) == ("abc", "abc", "") and sides(["a"]) == ("a", "bc", "")
    assert sides(["a"], ["b"]) == ("a", "b", "") and sides(["a"], None, ["c"]) == ("a", "b", "c")
    assert sides(["a"], ["b", "c"], ["c"]) == ("a", "b", "c"), "what decides when to stop teaches nothing"
    assert sides(["a", "b", "c"]) == ("abc", "abc", "") and sides(None, ["b"]) == ("abc", "b", "")
    with pytest.raises(SoundsslError, match=r"^e\.h5 has no split 'd'; it has 'a', 'b', 'c'$"):
        reading.choose_sides(table, ["a"], ["d"], path="e.h5")


def test_labels_to_learn_from_take_the_place_of_those_of_the_test(world, tmp_path):
    known = files.Labels(world.labels)
    wrong = np.roll(world.label[:, [2, 0, 1]], 1, axis=1)  # the columns are [siren, bark, other]
    wrong[0] = -1
    whole = {"segment/key": KEYS, "segment/start": np.zeros(12), "segment/end": np.full(12, np.inf)}
    path = write(tmp_path / "t.h5", "labels", {"label": wrong, **whole, "class": ["siren", "bark", "other"]})
    table = reading.read_embeddings(world.embeddings, known, level="clip", taught=files.Labels(path))
    test = table.split == "2"
    sides = table.sides(test, ~test)
    assert np.array_equal(sides.label[test], table.label[test])
    learnt = np.flatnonzero(sides.train)
    assert 0 not in learnt and len(learnt) == (~test).sum() - 1, "what nothing is known of is not learnt from"
    number = [KEYS.index(key) for key in table.recording[learnt]]
    assert np.array_equal(sides.label[learnt][:, [0, 2]], wrong[number][:, [1, 0]]), "by the names of classes"
    assert (sides.label[learnt][:, 1] == -1).all(), "rain is no class there"
    held = table.sides(table.split == "1", table.split == "2", table.split == "3")
    assert (held.label[held.validation][:, 1] == -1).all()
    assert np.array_equal(table.label, reading.read_embeddings(world.embeddings, known, level="clip").label)
    with pytest.raises(ValueError, match="4 clips are scored and learnt from, by different labels; name other"):
        table.sides(table.split == "1", np.ones(len(test), bool))
    with pytest.raises(ValueError, match=r"labels to learn from \[2, 3\] are none of \[10, 3\]"):
        Table(table.value, table.label, CLASSES, taught=wrong[:2])


@pytest.mark.parametrize(
    "name, words", [("knn", {"query": "3"}), ("linear", {"test": "3", "epochs": 10}), ("shallow", {"test": "3"})]
)
@pytest.mark.parametrize("place", ["embeddings", "matrix"])
def test_what_is_learnt_from_other_labels_shows_in_the_scores(world, tmp_path, capsys, name, words, place):
    """Classes that are exchanged in training are exchanged in what is recognised, but not in what is right."""
    whole = {"segment/key": KEYS, "segment/start": np.zeros(12), "segment/end": np.full(12, np.inf)}
    exchanged = write(tmp_path / "t.h5", "labels", {"label": world.label, **whole, "class": ["rain", "siren", "bark"]})
    command, score = getattr(evaluate, name), {}
    for train_labels in (None, world.labels, exchanged):
        command(getattr(world, place), world.labels, train_labels=train_labels, **words)
        score[train_labels] = next(row["value"] for row in printed(capsys) if row["metric"] == "mAP")
    assert score[None] == score[world.labels] > 0.8 > 0.7 > score[exchanged]


# The commands from Python -------------------------------------------------------------------------------------------


def test_retrieval_and_knn_print_the_rows_of_their_evaluations(world, capsys):
    known = files.Labels(world.labels)
    evaluate.retrieval(world.embeddings, world.labels)
    rows = retrieval.evaluate(reading.read_embeddings(world.embeddings, known, level="clip"))
    assert printed(capsys) == rows_of("retrieval", world.embeddings, rows)
    evaluate.knn(world.embeddings, world.labels)
    table = reading.read_embeddings(world.embeddings, known, level="clip")
    assert printed(capsys) == rows_of("knn", world.embeddings, knn.evaluate(table))
    evaluate.knn(world.embeddings, world.labels, level="window", query="1")
    windows = reading.read_embeddings(world.embeddings, known)
    rows = knn.evaluate(windows.sides(test=windows.split == "1"), knn.Options(level="window"))
    assert printed(capsys) == rows_of("knn", world.embeddings, rows)
    evaluate.knn(world.embeddings, world.labels, folds=True)
    rows = folds.cross_validate(knn.evaluate, table, knn.Options())
    assert printed(capsys) == rows_of("knn", world.embeddings, rows)
    assert {row["split"] for row in rows} == {"1", "2", "3", "mean"}


@pytest.mark.parametrize("name", ["shallow", "linear"])
def test_taught_classifiers_are_scored_on_one_split_or_on_all(world, name, capsys):
    command = getattr(evaluate, name)
    command(world.embeddings, world.labels, test="3")
    one = printed(capsys)
    command(world.embeddings, world.labels, folds=True, epochs=3)
    all_ = printed(capsys)
    for rows in (one, all_):
        assert {row["evaluation"] for row in rows} == {name} and {"mAP", "training_clips"} <= {
            r["metric"] for r in rows
        }
    assert {row.get("split") for row in one} == {None} and {row["split"] for row in all_} == {"1", "2", "3", "mean"}


def test_clusters_labels_and_tagging_print_the_rows_of_their_evaluations(world, capsys):
    known = files.Labels(world.labels)
    evaluate.clusters(world.clusters, world.labels)
    rows = of_clusters.evaluate(reading.read_clusters(files.Clusters(world.clusters), known))
    assert printed(capsys) == rows_of("clusters", world.clusters, rows)
    evaluate.labels(world.spread, world.labels, world.clusters)
    rows = of_labels.evaluate(reading.read_labels(files.Labels(world.spread), known, world.clusters))
    assert printed(capsys) == rows_of("labels", world.spread, rows)
    evaluate.tagging(world.scores, world.labels)
    assert {row["class"] for row in printed(capsys)} == {None, "siren", "bark"}


def test_standard_input_is_a_matrix(world, capsys, monkeypatch):
    evaluate.retrieval(world.matrix, world.labels)
    expected = [{**row, "input": "-"} for row in printed(capsys)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(world.matrix.read_bytes())))
    evaluate.retrieval(Path("-"), world.labels)
    assert printed(capsys) == expected


def test_a_person_sees_a_table_with_the_recovery_between_two_score_files(world, tmp_path, capsys, monkeypatch):
    low, high = tmp_path / "low.jsonl", tmp_path / "high.jsonl"
    evaluate.retrieval(world.embeddings, world.labels, output=high)
    rows = files.read_scores(high)
    assert capsys.readouterr().out == "" and rows[0]["metric"] == "mAP"
    low.write_text(json.dumps({**rows[0], "value": rows[0]["value"] - 0.5}) + "\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    evaluate.retrieval(world.embeddings, world.labels, baseline=low, topline=high, classes=True)
    table = capsys.readouterr().out
    assert all(word in table for word in ("recovery", "100%", "95 % interval", "AP", *CLASSES[:2]))


def test_what_does_not_go_together_is_a_usage_error(world):
    for call, fact in (
        (lambda: evaluate.knn(world.embeddings, world.labels, folds=True, query="1"), "leave out --query and --base"),
        (lambda: evaluate.shallow(world.embeddings, world.labels), "say which splits to score with --test"),
        (lambda: evaluate.linear(world.embeddings, world.labels, test="1", folds=True), "leave out --test, --train"),
        (
            lambda: evaluate.shallow(world.embeddings, world.labels, test="1", hidden="a"),
            "'a' is not a list of numbers",
        ),
        (lambda: evaluate.clusters(world.bare, world.labels, split="1"), "clusters of a bare matrix have no splits"),
        (lambda: evaluate.knn(world.embeddings, world.labels, baseline=world.labels), "both --baseline and --topline"),
    ):
        with pytest.raises(typer.BadParameter, match=fact):
            call()


@pytest.mark.parametrize(
    ("words", "status", "fact"),
    [
        (["knn", "c.h5"], 4, "c.h5 holds clusters; evaluate takes embeddings, features or an NPY matrix"),
        (["knn", "e.h5", "--query", "9"], 1, "e.h5 has no split '9'; it has '1', '2', '3'"),
        (["retrieval", "e.h5", "--split", "9"], 1, "e.h5 has no split '9'; it has '1', '2', '3'"),
        (["knn", "m.npy", "--query", "9"], 1, "l.h5 has no split '9'; it has '1', '2', '3'"),
        (["retrieval", "m.npy", "--split", "9"], 1, "l.h5 has no split '9'; it has '1', '2', '3'"),
        (["linear", "e.h5", "--test", "3", "--labels", "some.h5"], 1, "some.h5 has no split '3'; it has '1'"),
        (["linear", "e.h5", "--test", "9", "--labels", "some.h5"], 1, "e.h5 has no split '9'"),
        (["knn", "e.h5", "--level", "song"], 2, "'song' is not one of 'clip', 'window'"),
        (["retrieval", "m.npy", "--labels", "p.h5"], 4, "m.npy has 12 rows and the labels 11 segments"),
        (["retrieval", "e.h5", "--labels", "elsewhere.h5"], 1, "no clip of e.h5 has a label in elsewhere.h5; are"),
        (["linear", "e.h5", "--test", "1,2,3"], 1, "10 test clips are in another part too"),
        (
            ["linear", "e.h5", "--test", "3", "--train-labels", "none.h5"],
            1,
            "none.h5 has no class of l.h5; give labels",
        ),
        (
            ["knn", "e.h5", "--train-labels", "l.h5"],
            1,
            "10 clips are scored and learnt from, by different labels; name",
        ),
        (["knn", "e.h5", "--train-labels", "l.h5", "-o", "l.h5"], 2, "is one of the inputs"),
        (["labels", "p.h5", "--truth", "l.h5", "--windows", "b.h5"], 4, "b.h5 holds no times of windows"),
        (["tagging", "e.h5"], 4, "e.h5 holds embeddings, not scores of classes; make them with soundssl embed --layer"),
    ],
)
def test_bad_input_has_its_line_and_status(world, words, status, fact, capsys, monkeypatch):
    monkeypatch.chdir(world.labels.parent)
    whole = {"segment/key": ["x"], "segment/start": np.zeros(1), "segment/end": np.ones(1), "class": ["bark"]}
    write(Path("elsewhere.h5"), "labels", {"label": np.ones((1, 1), "i1"), **whole})
    write(Path("some.h5"), "labels", {"label": np.ones((1, 1), "i1"), **whole, "segment/key": [KEYS[0]]})
    write(Path("none.h5"), "labels", {"label": np.ones((1, 1), "i1"), **whole, "class": ["cat"]})
    named = [] if "--labels" in words or "--truth" in words else ["--labels", "l.h5"]
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *words, *named])
    answer = capsys.readouterr()
    assert end.value.code == status and answer.out == ""
    assert fact in " ".join(answer.err.split())
