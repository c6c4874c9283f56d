"""Scores that agree over time and over a taxonomy: laws of the kernels, and what detect makes of them."""

import itertools
import json

import numpy as np
import pytest

from soundssl.datasets.ontology import Ontology
from soundssl.detection import smoothing
from soundssl.labels import from_events

START = np.arange(40) * 0.5


def test_neutral_potentials_change_nothing():
    score = np.random.default_rng(0).random((40, 3)).astype("f4")
    score[:2] = [[0, 1, 0.5], [1, 0, 1]]
    assert np.array_equal(smoothing.smooth(score, START, 1.0, smoothing.staying(0.0)), score)
    assert np.array_equal(smoothing.imply(score, ()), score)
    assert smoothing.Revision()(score, START, 1.0) is score


def test_smoothing_agrees_with_enumeration():
    score = np.random.default_rng(1).uniform(0.05, 0.95, (6, 1))
    change = np.random.default_rng(2).normal(0, 1, (1, 2, 2))
    weight = np.zeros((6, 2))
    for path in itertools.product((0, 1), repeat=6):
        own = np.prod([score[i, 0] if state else 1 - score[i, 0] for i, state in enumerate(path)])
        own *= np.exp(sum(change[0, a, b] for a, b in itertools.pairwise(path)))
        weight[np.arange(6), path] += own
    found = smoothing.smooth(score, START[:6], 1.0, change)
    assert np.allclose(found[:, 0], weight[:, 1] / weight.sum(1), atol=1e-9)


def test_a_lone_window_is_outvoted_by_its_neighbours():
    score = np.full((40, 1), 0.9)
    score[20] = 0.3
    found = smoothing.smooth(score, START, 1.0, smoothing.staying(2.0))
    assert found[20, 0] > 0.5 and np.array_equal(found > 0.5, np.ones((40, 1), bool))


def test_windows_that_do_not_hang_together_are_chains_of_their_own():
    score = np.random.default_rng(3).random((40, 2))
    start = START + (np.arange(40) >= 25) * 100
    change = smoothing.staying(1.5)
    found = smoothing.smooth(score, start, 1.0, change)
    apart = [smoothing.smooth(score[rows], start[rows], 1.0, change) for rows in (slice(25), slice(25, 40))]
    assert np.allclose(found, np.concatenate(apart), atol=1e-12)


def test_potentials_are_learnt_from_events():
    onset = np.arange(20) * 10.0
    said = from_events(["a"] * 20, ["dog"] * 20, onset, onset + 4)
    change = smoothing.learn(said, ["cat", "dog"], 0.5, 1.0)
    assert not change[0].any()
    tie = change[1, 0, 0]
    assert tie > 0.3 and np.allclose(change[1], [[tie, -tie], [-tie, tie]])
    assert np.isclose(smoothing.learn(said, ["dog"], 0.5, 1.0)[0, 0, 0], tie), "whichever other classes there are"
    with pytest.raises(ValueError, match="no event of the classes"):
        smoothing.learn(said, ["cat"], 0.5, 1.0)


def test_what_follows_by_chance_alone_is_learnt_as_neutral():
    generator = np.random.default_rng(4)
    onset = np.flatnonzero(generator.random(20_000) < 0.3).astype(float)
    said = from_events(["a"] * len(onset), ["dog"] * len(onset), onset, onset + 1)
    assert np.abs(smoothing.learn(said, ["dog"], 1.0, 1.0)).max() < 0.05


def test_a_rare_class_that_is_never_likely_is_heard_nowhere():
    """Learnt from events of two seconds in a hundred: scores that waver about their share make no event of it all."""
    onset = np.arange(20) * 100.0
    change = smoothing.learn(from_events(["a"] * 20, ["dog"] * 20, onset, onset + 2), ["dog"], 0.25, 1.0)
    score = np.random.default_rng(5).uniform(0.05, 0.3, (400, 1))
    assert smoothing.smooth(score, np.arange(400) * 0.25, 1.0, change).max() < 0.5


NAMES = {"/a": "Animal", "/d": "Dog", "/b": "Bark", "/m": "Music"}
GRAPH = Ontology(NAMES, {"/a": ["/d"], "/d": ["/b"]})


def test_a_child_implies_its_parent():
    classes = ["Bark", "Music", "Animal"]  # Dog, between the two, is no class
    edges = smoothing.edges(classes, GRAPH)
    assert edges == ((0, 2),)
    score = np.array([[0.9, 0.2, 0.4], [0.1, 0.2, 0.8]])
    found = smoothing.imply(score, edges)
    bark, animal = 0.9, 0.4
    total = bark * animal + (1 - bark) * animal + (1 - bark) * (1 - animal)
    assert np.allclose(found[0], [bark * animal / total, 0.2, animal / total])
    assert (found[:, 0] <= found[:, 2]).all()
    with pytest.raises(ValueError, match="none of 1 classes"):
        smoothing.edges(["Rain"], GRAPH)


def test_no_child_is_above_its_parent_also_where_there_are_several_ways_up():
    edges = ((0, 1), (0, 2), (1, 3), (2, 3))
    score = np.random.default_rng(5).random((50, 4)).astype("f4")
    found = smoothing.imply(score, edges)
    assert all((found[:, child] <= found[:, parent]).all() for child, parent in edges)


def test_ontologies_of_json_are_read(tmp_path):
    nodes = [{"id": one, "name": name, "child_ids": GRAPH.children[one]} for one, name in NAMES.items()]
    (tmp_path / "o.json").write_text(json.dumps(nodes))
    from soundssl.datasets import ontology

    assert smoothing.edges(["Dog", "Bark"], ontology.read(tmp_path / "o.json")) == ((1, 0),)
