"""soundssl infer: models in TOML against enumeration, scores and labels there and back, and what is wrong in a line."""

import itertools
import json

import builder
import numpy as np
import pytest
from cluster_world import run

from soundssl import files
from soundssl.detection import inference

CLASSES = ["Dog", "Bark", "Rain", "Sun"]
MODEL = """
[variables]
Dog = "Dog"
Bark = "Bark"
weather = ["Rain", "Sun"]
mood = 2
[[factors]]
variables = ["Bark", "Dog"]
table = [[0, 0], [-inf, 0.5]]
[[factors]]
variables = ["Dog", "weather", "mood"]
table = [[[1, 0], [0, 0.5]], [[0, 0], [0, 2]]]
"""
OVER_TIME = """
[[factors]]
variables = ["Dog", "next Dog"]
table = [[1.5, 0], [-0.5, 1]]
"""
STATES = [2, 2, 2, 2]


def scores(path, rows, **about):
    clip = np.array([0] * 3 + [1] * (rows - 3))
    chance = np.random.default_rng(0).uniform(0.1, 0.9, (rows, 4)).astype("f4")
    start = np.concatenate([np.arange(3), np.arange(rows - 3)]) * 0.48
    attributes = {"layer": "probabilities", "class": json.dumps(CLASSES), **about}
    return builder.embeddings(path, chance, clip=clip, start=start, attributes=attributes), chance.astype("f8")


def potential(chance, state):
    """Return the weight of a window's states: what is observed, and the factors within it."""
    dog, bark, weather, mood = state
    weight = np.prod([chance[i] if own else 1 - chance[i] for i, own in enumerate((dog, bark))])
    weight *= chance[2 + weather] * np.exp([[0, 0], [-np.inf, 0.5]][bark][dog])
    return weight * np.exp([[[1, 0], [0, 0.5]], [[0, 0], [0, 2]]][dog][weather][mood])


def outputs(state):
    dog, bark, weather, mood = state
    return np.array([dog, bark, 1 - weather, weather, mood], float)


EVERY = list(itertools.product(range(2), repeat=4))


def within(chance):
    weights = np.array([potential(chance, state) for state in EVERY])
    return weights @ np.array([outputs(state) for state in EVERY]) / weights.sum()


def test_every_window_is_a_graph_of_its_own(tmp_path):
    (tmp_path / "m.toml").write_text(MODEL)
    source, chance = scores(tmp_path / "s.h5", 9)
    done = run("infer", tmp_path / "m.toml", source, "-o", tmp_path / "x.h5")
    assert done.status == 0 and "4 variables, 2 factors, 9 windows" in done.err
    found = files.Embeddings(tmp_path / "x.h5")
    assert json.loads(found.attributes["class"]) == ["Dog", "Bark", "Rain", "Sun", "mood"]
    assert np.allclose(found.embedding[:], [within(row) for row in chance], atol=1e-6)
    assert run("info", tmp_path / "x.h5", "--verify").status == 0
    assert "up to date" in run("infer", tmp_path / "m.toml", source, "-o", tmp_path / "x.h5").err


def test_over_time_a_window_hears_of_all_others_of_its_clip(tmp_path):
    (tmp_path / "m.toml").write_text(MODEL + OVER_TIME)
    source, chance = scores(tmp_path / "s.h5", 5)  # three windows of one clip, two of the other
    found = inference.of_scores(inference.read(tmp_path / "m.toml"), files.Embeddings(source))
    change = np.array([[1.5, 0], [-0.5, 1]])
    for rows in (range(3), range(3, 5)):
        own = [[potential(chance[row], state) for state in EVERY] for row in rows]
        total, sums = 0.0, np.zeros((len(rows), 5))
        for path in itertools.product(range(16), repeat=len(rows)):
            dogs = [EVERY[one][0] for one in path]
            weight = np.prod([own[i][one] for i, one in enumerate(path)])
            weight *= np.exp(sum(change[pair] for pair in itertools.pairwise(dogs)))
            if weight:
                total += weight
                sums += weight * np.array([outputs(EVERY[one]) for one in path])
        assert np.allclose(found[rows.start : rows.stop], sums / total, atol=1e-6)


def test_labels_give_what_is_sure(tmp_path):
    (tmp_path / "m.toml").write_text(
        '[variables]\nDog = "Dog"\nBark = "Bark"\n'
        '[[factors]]\nvariables = ["Bark", "Dog"]\ntable = [[0, 0], [-inf, 0]]\n'
    )
    said = [[-1, 1], [0, -1], [1, -1], [-1, -1]]
    source = builder.labels(tmp_path / "l.h5", builder.whole(list("abcd")), ["Dog", "Bark"], said)
    done = run("infer", tmp_path / "m.toml", source)
    assert done.status == 0, done.err
    found = files.Labels(done.out.strip())
    assert found.classes == ["Dog", "Bark"] and found.label.tolist() == [[1, 1], [0, 0], [1, -1], [-1, -1]]
    source = builder.labels(tmp_path / "l.h5", builder.whole(["a"]), ["Dog", "Bark"], [[0, 1]])
    done = run("infer", tmp_path / "m.toml", source)
    assert done.status == 2 and "some potentials contradict each other" in done.err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[variables", "is not a TOML file"),
        ("[other]\nx = 1", "has 'other'; a model has [variables] and [[factors]]"),
        ("", "has no [variables]"),
        ('[variables]\n"next Dog" = "Dog"', "a variable cannot be called 'next Dog'"),
        ("[variables]\nDog = 1", "variable 'Dog' is 1; give a class"),
        ('[variables]\nDog = ["Dog"]', "variable 'Dog' is ['Dog']; give a class"),
        ('factors = 3\n[variables]\nDog = "Dog"', "factors is no list"),
        ('[variables]\nDog = "Dog"\n[[factors]]\nvariables = ["Dog"]', "factor 1 of"),
        ('[variables]\nDog = "Dog"\n[[factors]]\nvariables = []\ntable = []', "variables is no list of names"),
        ('[variables]\nDog = "Dog"\n[[factors]]\nvariables = ["Cat"]\ntable = [0, 0]', "names 'Cat', which is no"),
        ('[variables]\nDog = "Dog"\n[[factors]]\nvariables = ["next Dog"]\ntable = [0, 0]', "leave out 'next'"),
        ('[variables]\nDog = "Dog"\n[[factors]]\nvariables = ["Dog"]\ntable = [0, "x"]', "no nested list of numbers"),
        ('[variables]\nDog = "Dog"\n[[factors]]\nvariables = ["Dog"]\ntable = [0, 0, 0]', "its variables need [2]"),
        ('[variables]\nDog = "Dog"\n[[factors]]\nvariables = ["Dog"]\ntable = [0, inf]', "the table has nan or inf"),
        ('[variables]\nDog = "Cat"', "observes 'Cat', which the observations do not have, but 'Dog'"),
        ('[variables]\nDog = "Dog"\nx = ["Dog", "Bark"]', "names two probabilities alike"),
        ('[variables]\nx = 300\n[[factors]]\nvariables = ["x", "next x"]\ntable = []', "its variables need [300, 300]"),
    ],
)
def test_wrong_models_are_said_in_a_line(text, line, tmp_path):
    (tmp_path / "m.toml").write_text(text)
    source, _ = scores(tmp_path / "s.h5", 5)
    done = run("infer", tmp_path / "m.toml", source, "-o", tmp_path / "x.h5")
    assert done.status == 2 and line in done.err, done.err
    assert not (tmp_path / "x.h5").exists()


def test_wrong_observations_are_said_in_a_line(tmp_path):
    good = '[variables]\nDog = "Dog"\n'
    (tmp_path / "m.toml").write_text(good)
    rest = "".join(f'x{i} = "Bark"\n' for i in range(9))
    over = '[[factors]]\nvariables = ["Dog", "next Dog"]\ntable = [[0, 0], [0, 0]]\n'
    (tmp_path / "many.toml").write_text(good + rest + over)
    source, _ = scores(tmp_path / "s.h5", 5)
    plain, _ = scores(tmp_path / "e.h5", 5, **{"class": "[]", "layer": "embedding"})
    wild = builder.embeddings(tmp_path / "w.h5", np.full((2, 4), 3.0, "f4"), attributes={"class": json.dumps(CLASSES)})
    said = builder.labels(tmp_path / "l.h5", builder.whole(["a"]), CLASSES, [[1, 0, 0, 0]])
    for model, given, options, status, line in [
        ("m.toml", tmp_path / "m.toml", [], 4, "holds neither scores nor labels"),
        ("m.toml", tmp_path / "none.h5", [], 2, "does not exist"),
        ("none.toml", source, [], 2, "does not exist"),
        ("m.toml", plain, [], 4, "holds embeddings, not scores of classes"),
        ("m.toml", wild, [], 4, "holds scores beyond 0 to 1"),
        ("m.toml", source, ["--sure", 0.4], 2, "does not lie above 0.5 to 1"),
        ("many.toml", source, [], 2, "has 1024 states together that hang on the next window; at most 256 do"),
        ("many.toml", said, [], 2, "is over time, and segments of labels have no next"),
    ]:
        done = run("infer", tmp_path / model, given, "-o", tmp_path / "x.h5", *options)
        assert done.status == status and line in done.err, (model, given, done.err)
