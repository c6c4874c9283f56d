"""Hierarchy: labels up an ontology with nodes of several parents, merged leaves, trees; the ontology's errors."""

import json

import numpy as np
import pytest

from soundssl import labels
from soundssl.datasets import ontology
from soundssl.datasets.ontology import Ontology, OntologyError
from soundssl.labels import LabelSet
from soundssl.labels.hierarchy import nodes
from soundssl.tables import TableError

# sounds → animal → pet → dog → bark; sounds → alarm → siren; bell is an instrument and an alarm; pet is not a class
GRAPH = Ontology(
    {"/a": "Animal", "/p": "Pet", "/d": "Dog, hound", "/b": "Bark", "/l": "Alarm", "/s": "Siren", "/e": "Bell",
     "/i": "Instrument"},
    {"/a": ["/p"], "/p": ["/d"], "/d": ["/b"], "/l": ["/s", "/e"], "/i": ["/e"]},
)  # fmt: skip
CLASSES = ["Animal", "Dog_and_hound", "Bark", "Alarm", "Siren", "Bell", "Instrument"]


def of(label, **more) -> LabelSet:
    label = np.array(label, np.int8)
    keys = np.array([f"{i}.wav" for i in range(len(label))], object)
    return LabelSet(label, CLASSES, keys, np.zeros(len(label)), np.full(len(label), np.inf), **more)


def brute_force(label: np.ndarray) -> np.ndarray:
    found = label.copy()
    for row in found:
        for _ in CLASSES:
            for child, parents in {"Dog_and_hound": ["Animal"], "Bark": ["Dog_and_hound"], "Siren": ["Alarm"],
                                   "Bell": ["Alarm", "Instrument"]}.items():  # fmt: skip
                if row[CLASSES.index(child)] == 1:
                    row[[CLASSES.index(parent) for parent in parents]] = 1
    return found


@pytest.mark.parametrize("block", [3, 4096])
def test_labels_go_up_also_past_nodes_that_are_no_class(block, monkeypatch):
    monkeypatch.setattr(labels.hierarchy, "BLOCK", block)
    label = np.random.default_rng(0).choice(np.array([0, 0, 0, 1, -1], np.int8), (50, len(CLASSES)))
    done = labels.propagate(of(label), GRAPH)
    assert np.array_equal(done.labels.label, brute_force(label))
    assert done.added == ((brute_force(label) == 1) & (label != 1)).sum()
    again = labels.propagate(done.labels, GRAPH)
    assert again.added == 0 and np.array_equal(again.labels.label, done.labels.label)


def test_of_several_parents_the_listed_ones_are_taken():
    label = np.zeros((1, 7), np.int8)
    label[0, 5] = 1
    listed = labels.propagate(of(label), GRAPH, {"/e": ["/i"]}).labels.label[0]
    assert listed.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert labels.propagate(of(label), GRAPH, {}).labels.label[0].tolist() == label[0].tolist()
    label[0, 5], label[0, 2] = 0, 1
    assert labels.propagate(of(label), GRAPH, {}).labels.label[0].tolist() == [1, 1, 1, 0, 0, 0, 0], (
        "one parent is no choice"
    )


def test_a_rated_label_rates_its_ancestors_and_contradictions_are_counted():
    label, rated = np.zeros((2, 7), np.int8), np.zeros((2, 7), np.uint8)
    label[:, 2] = 1
    rated[0, [2, 0]] = 1  # rated a bark, and no animal
    done = labels.propagate(of(label, rated=rated), GRAPH)
    assert done.contradicted == 1 and done.added == 4
    assert done.labels.rated.tolist() == [[1, 1, 1, 0, 0, 0, 0], [0] * 7]


def test_classes_are_nodes_by_identifier_or_name():
    named = of(np.zeros((1, 7)), identifiers=["/a", "", "/b", "/l", "", "", ""])
    assert nodes(named, GRAPH) == ["/a", "/d", "/b", "/l", "/s", "/e", "/i"]
    with pytest.raises(ValueError, match="has none of 7 classes"):
        nodes(of(np.zeros((1, 7))), Ontology({"/x": "Else"}, {}))
    with pytest.raises(ValueError, match="are one node, /a"):
        nodes(of(np.zeros((1, 7)), identifiers=["/a", "/a"] + [""] * 5), GRAPH)


def test_small_leaves_go_into_their_parents_until_none_is_small():
    label = np.zeros((6, 7), np.int8)
    label[:2, 2] = 1  # two barks: into dog, which is then a leaf of three, still small: into animal
    label[2, 1] = label[3, 4] = label[4, 5] = 1
    label[5, [0, 3, 6]] = 1
    made = labels.merge(of(label), GRAPH, 4)
    assert made.into == {
        "Bark": ["Dog_and_hound"],
        "Dog_and_hound": ["Animal"],
        "Siren": ["Alarm"],
        "Bell": ["Alarm", "Instrument"],
    }
    assert made.labels.classes == ["Animal", "Alarm", "Instrument"], "roots stay, however small"
    assert made.labels.label.sum(0).tolist() == [4, 3, 2]
    assert labels.merge(of(label), GRAPH, 1).into == {}


def test_unknown_leaves_make_no_parent_absent_and_events_move():
    label = np.zeros((2, 7), np.int8)
    label[0, 2], label[0, 1], label[1, 1] = 0, -1, 1
    events = {"segment": np.array([1]), "class": np.array([1]), "onset": np.array([0.5]), "offset": np.array([1.0])}
    made = labels.merge(of(label, events=events), GRAPH, 2).labels
    assert made.classes[0] == "Animal" and made.label[:, 0].tolist() == [0, 1]
    assert {name: values.tolist() for name, values in made.events.items()} == {
        "segment": [1], "class": [0], "onset": [0.5], "offset": [1.0]
    }  # fmt: skip


def test_the_tree_counts_clips_once():
    label = np.zeros((4, 7), np.int8)
    label[0, [0, 2]] = label[1, 1] = label[2, 5] = 1
    roots = labels.tree(of(label), GRAPH)
    assert [one["class"] for one in roots] == ["Animal", "Alarm", "Instrument"]
    assert (roots[0]["own"], roots[0]["below"]) == (1, 2) and roots[0]["id"] == "/a"
    assert roots[0]["children"][0]["children"][0] == {"class": "Bark", "id": "/b", "own": 1, "below": 1, "children": []}
    assert [one["children"][-1]["class"] for one in roots[1:]] == ["Bell", "Bell"], "below each of its parents"


def test_an_ontology_is_read_and_its_faults_are_named(tmp_path):
    path = tmp_path / "ontology.json"
    nodes_ = [{"id": "/a", "name": "A", "child_ids": ["/b"]}, {"id": "/b", "name": "B", "child_ids": []}]
    path.write_text(json.dumps(nodes_))
    assert ontology.read(path).ancestors("/b", ["/a"]) == ["/a"]
    for text, fault in {
        "[1": "is not an ontology",
        '[{"id": "/a"}]': "an entry lacks 'name'",
        json.dumps([*nodes_, nodes_[0]]): "has two nodes /a",
        json.dumps([{**nodes_[0], "child_ids": ["/x"]}]): "has the child /x, which is no node",
        json.dumps([nodes_[0], {**nodes_[1], "child_ids": ["/a"]}]): "is an ancestor of itself",
    }.items():
        path.write_text(text)
        with pytest.raises(OntologyError, match=fault) as error:
            ontology.read(path)
        assert error.value.status == 2 and str(path) in str(error.value)


def test_listed_parents_are_read_and_edges_that_are_none_refused(tmp_path):
    path = tmp_path / "parents.csv"
    path.write_text("child,parent\nBell,/i\n")
    assert ontology.read_parents(path, GRAPH) == {"/e": ["/i"]}
    path.write_text("child,parent\nBell,Animal\n")
    with pytest.raises(TableError, match="line 2: 'Animal' is no parent of 'Bell'"):
        ontology.read_parents(path, GRAPH)
    path.write_text("child\nBell\n")
    with pytest.raises(TableError, match="has no column parent"):
        ontology.read_parents(path, GRAPH)
