"""Several annotators: alpha by its definition, reliability by the factor graph it is, sheets to one set of answers."""

import csv
import itertools

import numpy as np
import pytest
import torch
from cluster_world import make_world, run

from soundssl import files
from soundssl.ops import agreement, factors


def spoilt(annotators, items, wrong, generator, unsaid=0.2):
    """Return the truth of two classes, and labels of annotators who are wrong in a share of them."""
    truth = (generator.random((items, 2)) < [0.3, 0.6]).astype(np.int8)
    flip = generator.random((annotators, items, 2)) < np.array(wrong)[:, None, None]
    label = np.where(flip, 1 - truth, truth).astype(np.int8)
    label[generator.random(label.shape) < unsaid] = -1
    return truth, label


def test_alpha_is_one_minus_observed_by_expected_disagreement():
    _, label = spoilt(4, 30, [0.1, 0.2, 0.3, 0.1], np.random.default_rng(0))
    for column, found in enumerate(agreement.alpha(label)):
        units = [[one for one in label[:, item, column] if one >= 0] for item in range(30)]
        units = [unit for unit in units if len(unit) > 1]
        pairs = [(a != b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)]
        every = [one for unit in units for one in unit]
        expected = np.mean([a != b for a, b in itertools.permutations(every, 2)])
        assert found == pytest.approx(1 - sum(pairs) / len(every) / expected, abs=1e-12)


def test_alpha_of_the_literature():
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability": two observers, ten binary items, 0.095."""
    one, other = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert agreement.alpha(np.array([one, other], np.int8)[..., None])[0] == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_those_who_agree_and_of_what_cannot_be_compared():
    label = np.array([[1, 0, 1], [1, 0, 1]], np.int8)[..., None]
    assert agreement.alpha(label)[0] == 1.0
    assert np.isnan(agreement.alpha(np.ones((2, 3, 1), np.int8))[0])
    assert np.isnan(agreement.alpha(np.array([[1, -1], [-1, 0]], np.int8)[..., None])[0])


def test_a_tie_is_unknown():
    label = np.array([[1, 1, 0, -1], [0, 1, 0, -1], [-1, 0, 0, -1]], np.int8)[..., None]
    assert agreement.majority(label)[:, 0].tolist() == [-1, 1, 0, -1]


def test_reliability_outvotes_a_careless_majority():
    truth, label = spoilt(5, 400, [0.02, 0.45, 0.45, 0.45, 0.05], np.random.default_rng(1))
    found = agreement.dawid_skene(label)
    known = ~np.isnan(found.probability)
    right = ((found.probability > 0.5) == truth)[known].mean()
    voted = agreement.majority(label)
    assert right > 0.9 and right > (voted == truth)[known].mean() + 0.05
    assert found.sensitivity[[0, 4]].min() > 0.9 and found.specificity[[0, 4]].min() > 0.9
    assert found.sensitivity[1:4].max() < 0.7


def test_the_posterior_is_that_of_a_star_of_factors():
    generator = np.random.default_rng(2)
    _, label = spoilt(3, 10, [0.1, 0.2, 0.3], generator)
    sensitivity, specificity = generator.uniform(0.6, 0.9, (2, 3))
    frequency = np.array([0.3, 0.6])
    odds = agreement.posterior_odds(label, sensitivity, specificity, frequency)
    for item, column in itertools.product(range(10), range(2)):
        star = [factors.Factor((0,), torch.tensor([1 - frequency[column], frequency[column]]).log())]
        for one in range(3):
            says = torch.tensor([[specificity[one], 1 - specificity[one]], [1 - sensitivity[one], sensitivity[one]]])
            if (answer := int(label[one, item, column])) >= 0:
                star.append(factors.Factor((0,), says[:, answer].log()))
        present = factors.sum_product(factors.Graph([2], star)).marginals[0][0, 1]
        assert 1 / (1 + np.exp(-odds[item, column])) == pytest.approx(float(present), abs=1e-9)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Return the folder of the world, and a sheet of its four questions."""
    folder = tmp_path_factory.mktemp("agreement")
    world = make_world(folder)
    done = run("label-clusters", world.clusters, "--questions", folder / "q.csv")
    assert done.status == 0, done.err
    return world, list(csv.DictReader((folder / "q.csv").open()))


def fill(path, rows, answers):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "class": answer} for row, answer in zip(rows, answers, strict=True))
    return path


def test_three_sheets_become_one(asked, tmp_path):
    world, rows = asked
    sheets = [
        fill(tmp_path / "ann.csv", rows, ["dog", "rain", "rain", "none"]),
        fill(tmp_path / "ben.csv", rows, ["dog", "rain", "dog", ""]),
        fill(tmp_path / "cem.csv", rows, ["Dog", "?", "dog", "none"]),
    ]
    words = [word for sheet in sheets for word in ("--answers", sheet)]
    done = run("label-clusters", world.clusters, *words, "--disagreements", tmp_path / "d.csv", "-o", tmp_path / "l.h5")
    assert done.status == 0, done.err
    said = files.Labels(tmp_path / "l.h5")
    own = said.label[said.origin == 0]
    assert said.classes == ["dog", "rain"] and sorted(own.tolist()) == [[0, 0], [0, 1], [1, 0], [1, 0]]
    assert "ann: sensitivity" in done.err and "Krippendorff's alpha" in done.err
    assert "1 questions that they answer differently" in done.err and -1 < done.rows()["alpha"] < 1
    (unlike,) = csv.DictReader((tmp_path / "d.csv").open())
    assert (unlike["clip"], unlike["class"]) == (rows[2]["clip"], "")
    assert [unlike[name] for name in ("ann", "ben", "cem")] == ["rain", "dog", "dog"]
    again = run("label-clusters", world.clusters, *words, "--agree", "dawid-skene", "-o", tmp_path / "m.h5")
    assert again.status == 0 and sorted(map(tuple, files.Labels(tmp_path / "m.h5").label)) != []


def test_what_is_wrong_with_sheets_is_said_in_a_line(asked, tmp_path):
    world, rows = asked
    good = fill(tmp_path / "a.csv", rows, ["dog", "rain", "rain", "none"])
    empty = fill(tmp_path / "b.csv", rows, [""] * 4)
    for words, status, line in [
        (["--answers", good, "--answers", empty], 1, "has no answer; fill in the column class"),
        (["--answers", good, "--answers", tmp_path / "none.csv"], 2, "does not exist"),
        (["--answers", good, "--disagreements", tmp_path / "d.csv"], 2, "give --answers twice or more"),
        (["--answers", good, "--answers", good, "--labels", world.labels], 2, "answers come from one place"),
    ]:
        done = run("label-clusters", world.clusters, *words, "-o", tmp_path / "l.h5")
        assert done.status == status and line in done.err, (words, done.err)
