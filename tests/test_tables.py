"""Tables of what is scored: means of clips, sides and their defaults, folds, and what does not fit together."""

import numpy as np
import pytest
from test_evaluations import CLASSES, clips, overall

from soundssl import evaluations
from soundssl.evaluations import folds, knn, retrieval
from soundssl.evaluations.table import Table


def test_a_table_of_clips_has_means_of_their_windows():
    value, label = np.array([[1.0, 3.0], [3.0, 5.0], [7.0, 7.0]]), np.eye(3, dtype=np.int8)
    table = Table(value, label, ["x", "y", "z"], clip=np.array([2, 2, 0]))
    assert table.clip_means().tolist() == [[7.0, 7.0], [0.0, 0.0], [2.0, 4.0]] and table.windows.tolist() == [1, 0, 2]
    assert Table(value, label, ["x", "y", "z"]).clip_means() is value


def test_sides_have_defaults():
    label, first = np.zeros((4, 1), np.int8), np.arange(4) < 1
    table = Table(np.zeros(4), label, ["x"])
    assert table.test.all() and table.train.all() and table.validation is None, "all against all"
    assert (table.sides(test=first).train == ~first).all(), "all others"
    assert (table.sides(train=first).test == np.ones(4, bool)).all()
    assert (table.sides(first, first).train == first).all()


def test_only_clips_to_test_are_scored():
    data = clips(1.0, 60)
    test = data.part(1)
    alone = Table(data.embedding[test[data.clip]], data.label[test], CLASSES, clip=np.repeat(np.arange(20), 2))
    assert retrieval.evaluate(data.table(test=test)) == retrieval.evaluate(alone) != retrieval.evaluate(data.table())


def test_malformed_tables_are_named():
    data, label = clips(1.0, 10), np.zeros((10, 2), np.int8)
    with pytest.raises(ValueError, match=r"labels \[10, 2\] do not fit 1 classes"):
        Table(np.zeros(10), label, ["x"])
    with pytest.raises(ValueError, match=r"values \[20, 8\] need a clip number each, not \[19\]"):
        Table(data.embedding, data.label, CLASSES, clip=data.clip[1:])
    with pytest.raises(ValueError, match="values of clips 0 to 19 need as many labels, not 10"):
        Table(data.embedding, data.label, CLASSES)
    with pytest.raises(ValueError, match=r"splits \[9\] do not fit 10 clips"):
        Table(np.zeros(10), label, ["x", "y"], split=np.full(9, "a"))
    for name in ("test", "train", "validation"):
        with pytest.raises(ValueError, match=rf"{name} \[3\] do not fit 10 clips"):
            Table(np.zeros(10), label, ["x", "y"], **{name: np.ones(3, bool)})


def test_folds_are_each_split_against_the_rest_and_means_come_last():
    data = clips(1.0, 90)
    table = data.table(split=np.array(["1", "2", ""])[np.arange(90) % 3])
    rows = folds.cross_validate(knn.evaluate, table, knn.Options(k=3))
    first = knn.evaluate(table.sides(test=table.split == "1"), knn.Options(k=3))
    assert [row for row in rows if row["split"] == "1"] == [{**row, "split": "1"} for row in first]
    named = [row["split"] for row in rows]
    assert named == sorted(named) and set(named) == {"1", "2", "mean"}, "a clip without a split is in no test"
    values = {split: overall([row for row in rows if row["split"] == split]) for split in set(named)}
    for metric, mean in values["mean"].items():
        both = [values[split][metric] for split in ("1", "2")]
        assert mean["value"] == pytest.approx(np.mean([one["value"] for one in both]))
        assert mean["count"] == sum(one["count"] for one in both)
    with pytest.raises(ValueError, match="folds need two splits or more, here are 0"):
        folds.cross_validate(knn.evaluate, data.table(), knn.Options())


def test_means_over_folds_take_the_folds_that_have_a_row():
    rows = [evaluations.row("AP", 0.5, 3, name="x", chance=0.1), evaluations.row("AP", 1.0, 1, name="y")]
    rows.append(evaluations.row("AP", 0.25, 2, name="x", chance=0.3))
    first, second = folds.means(rows)
    assert (first["class"], first["value"], first["count"], first["chance"]) == ("x", 0.375, 5, pytest.approx(0.2))
    assert (second["class"], second["value"], second["count"], second["chance"]) == ("y", 1.0, 1, None)
