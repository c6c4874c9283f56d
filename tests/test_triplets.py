"""Laws of the samplers: what may be drawn, that all of it is, and equally often; and what the command writes of it."""

import json

import h5py
import numpy as np
import pytest

from soundssl import files, triplets
from soundssl.triplets import JOINT, NUMBER, SAMPLERS, Layout, Options, Segments, sample

WINDOW = 96
# Five recordings; 0 has three clips apart in the file, 3 only a clip that is too short, clip 6 is one window long.
LENGTHS = np.array([120, 200, 95, 96, 300, 130, 96, 0, 110, 40])
RECORDING = np.array([0, 1, 1, 0, 2, 0, 4, 2, 4, 3])
OFFSET = np.concatenate([[0], np.cumsum(LENGTHS)])
UNSUPERVISED = JOINT
ANYWHERE = Options(min_distance=0)  # by proximity: pairs may overlap


def layout(clips=None) -> Layout:
    return Layout(OFFSET, RECORDING, WINDOW, clips)


def legal() -> np.ndarray:
    """Return all first frames of windows that lie whole in a clip."""
    return np.concatenate([np.arange(o, o + max(n - WINDOW + 1, 0)) for o, n in zip(OFFSET, LENGTHS, strict=False)])


def clip_of(frame: np.ndarray) -> np.ndarray:
    return np.searchsorted(OFFSET, frame, side="right") - 1


def recording_of(frame: np.ndarray) -> np.ndarray:
    clips = np.array([np.flatnonzero((OFFSET[:-1] <= f) & (f < OFFSET[1:]))[0] for f in frame])
    return RECORDING[clips]


def segments(seed: int = 0, count: int = 30) -> Segments:
    """Return random labelled spans of the clips, overlapping as they may."""
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 200, count)
    return Segments(
        generator.integers(0, len(LENGTHS), count), low, low + generator.integers(1, 200, count),
        generator.choice([-1, 0, 1], (count, 3), p=[0.1, 0.5, 0.4]).astype(np.int8),
    )  # fmt: skip


def draw(
    name: str, count: int = 3000, seed: int = 0, options: Options | None = None, where: Layout | None = None
) -> dict:
    return sample(
        name, where or layout(), count, options or Options(), seed, segments() if name == "supervised" else None
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_windows_lie_whole_in_a_clip_and_the_negative_in_another_recording(name):
    recipes = draw(name)
    assert all(len(column) == 3000 for column in recipes.values())
    for part in ("anchor", "positive", "negative"):
        assert np.isin(recipes[part], legal()).all()
    assert (recording_of(recipes["anchor"]) != recording_of(recipes["negative"])).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_gives_the_same_recipes(name):
    one, again, other = draw(name), draw(name), draw(name, seed=1)
    assert all(np.array_equal(one[column], again[column]) for column in one)
    assert any(not np.array_equal(one[column], other[column]) for column in one)


@pytest.mark.parametrize("name", SAMPLERS)
def test_columns_fit_the_schema(name):
    recipes = draw(name, 7)
    schema = files.schema.KINDS["triplets"].columns
    assert {column: values.dtype.str[1:] for column, values in recipes.items()} == {
        name: column.types for name, column in schema.items()
    }


def chi_square(values: np.ndarray, places: np.ndarray) -> float:
    """Return the normal deviate of the chi-square statistic of a uniform draw from `places`."""
    found, counts = np.unique(values, return_counts=True)
    assert np.array_equal(found, np.sort(places)), "every place is reached, and no other"
    expected, freedom = len(values) / len(places), len(places) - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_every_start_is_as_likely_as_another(name):
    recipes = draw(name, 60_000, options=ANYWHERE)
    assert abs(chi_square(recipes["anchor"], legal())) < 4
    elsewhere = legal()[recording_of(legal()) != 1]
    given = recipes["negative"][recording_of(recipes["anchor"]) == 1]
    assert abs(chi_square(given, elsewhere)) < 4


def test_a_choice_of_clips_is_kept_to():
    clips = np.isin(np.arange(len(LENGTHS)), [0, 1, 4])
    for name in SAMPLERS:
        recipes = draw(name, 500, where=layout(clips))
        for part in ("anchor", "positive", "negative"):
            assert np.isin(clip_of(recipes[part]), [0, 1, 4]).all()


@pytest.mark.parametrize("name", ["noise", "translation", "mixing"])
def test_the_positive_is_the_anchor_changed(name):
    recipes = draw(name, options=Options(max_shift=7, gain=0.5))
    assert np.array_equal(recipes["anchor"], recipes["positive"]) and (recipes["sampler"] == NUMBER[name]).all()
    if name == "noise":
        assert (recipes["seed"] > 0).all() and len(np.unique(recipes["seed"])) == 3000
    if name == "translation":
        assert set(recipes["shift"][:, 0]) == set(range(WINDOW)) and set(recipes["shift"][:, 1]) == set(range(-7, 8))
    if name == "mixing":
        assert np.array_equal(recipes["mixed"], recipes["negative"]) and (recipes["gain"] == 0.5).all()
    for column, neutral in (("seed", 0), ("shift", 0), ("mixed", -1), ("gain", 0)):
        if column != {"noise": "seed", "translation": "shift", "mixing": "mixed"}[name] and (name, column) != (
            "mixing",
            "gain",
        ):
            assert (recipes[column] == neutral).all()


def test_proximity_without_bound_reaches_the_whole_recording_and_never_the_same_window():
    recipes = draw("proximity", 60_000, options=ANYWHERE)
    assert (recipes["anchor"] != recipes["positive"]).all()
    assert np.array_equal(recording_of(recipes["anchor"]), recording_of(recipes["positive"]))
    given = recipes["positive"][recipes["anchor"] == OFFSET[3]]  # clip 3 is one window: all others are in clips 0 and 5
    assert set(clip_of(given)) == {0, 5}


@pytest.mark.parametrize("bound", [2.0, 10.0, 10.5, 96.0])
def test_proximity_keeps_its_bound(bound):
    recipes = draw("proximity", 20_000, options=Options(proximity=bound, min_distance=0))
    distance = np.abs(recipes["anchor"] - recipes["positive"])
    assert np.array_equal(clip_of(recipes["anchor"]), clip_of(recipes["positive"]))
    assert distance.min() == 1 and distance.max() == np.ceil(bound) - 1 < bound


def test_proximity_draws_all_neighbours_alike():
    recipes = draw("proximity", 200_000, options=Options(proximity=6, min_distance=0))
    anchor = OFFSET[4] + 100  # well inside
    given = recipes["positive"][recipes["anchor"] == anchor]
    assert set(given - anchor) == {*range(-5, 0), *range(1, 6)}
    edge = recipes["positive"][recipes["anchor"] == OFFSET[4]]
    assert set(edge - OFFSET[4]) == set(range(1, 6))


def test_joint_has_each_sampler_equally_often_and_mixed_up():
    recipes = draw("joint", 4002)
    counts = np.bincount(recipes["sampler"], minlength=5)
    assert counts[:4].max() - counts[:4].min() <= 1 and counts[4] == 0
    assert np.bincount(recipes["sampler"][:1000]).min() > 180
    same = recipes["anchor"] == recipes["positive"]
    assert np.array_equal(same, recipes["sampler"] != NUMBER["proximity"])


# --- supervised ---


def carried(parts: Segments, frame: int) -> tuple[set[int], set[int]]:
    """Return the classes that a window carries, and those that it lacks, by brute force."""
    clip = int(clip_of(np.array([frame]))[0])
    centre = frame - OFFSET[clip] + WINDOW // 2
    present: set[int] = set()
    absent: set[int] = set()
    for row, low, high, label in zip(parts.row, parts.low, parts.high, parts.label, strict=True):
        if row == clip and low <= centre < high:
            present |= set(np.flatnonzero(label == 1))
            absent |= set(np.flatnonzero(label == 0))
    return present, absent - present


@pytest.mark.parametrize("seed", range(1, 7))
def test_supervised_agrees_with_brute_force(seed):
    parts = segments(seed, 12)
    known = {frame: carried(parts, frame) for frame in legal().tolist()}
    recording = dict(zip(legal().tolist(), recording_of(legal()).tolist(), strict=True))
    recipes = sample("supervised", layout(), 20_000, Options(), seed, parts)
    assert (recipes["anchor"] != recipes["positive"]).all()
    for c in range(3):
        here = recipes["class"] == c
        present = {frame for frame, (have, _) in known.items() if c in have}
        absent = {frame for frame, (_, lack) in known.items() if c in lack}
        anchors = {f for f in present if any(recording[a] != recording[f] for a in absent)}
        if not here.any():
            assert not anchors or len(present) < 2
            continue
        assert set(recipes["anchor"][here]) == anchors
        assert set(recipes["positive"][here]) <= present
        assert set(recipes["negative"][here]) <= absent
        if len(present) < 300:
            assert abs(chi_square(recipes["anchor"][here], np.array(sorted(anchors)))) < 4.5


def test_a_class_without_a_legal_negative_is_left_out():
    label = np.array([[1, 1], [0, 0], [-1, 0]], np.int8)
    parts = Segments(np.array([1, 1, 4]), np.array([0, 150, 0]), np.array([149, 900, 900]), label)
    recipes = sample("supervised", layout(), 200, Options(), 0, parts)
    assert set(recipes["class"]) == {1}, "class 0 is known to be absent in its own recording alone"
    with pytest.raises(
        ValueError, match="no class has two windows that carry it and, in another recording, one that lacks"
    ):
        sample("supervised", layout(), 200, Options(), 0, Segments(parts.row, parts.low, parts.high, label[:, :1]))


def test_one_window_named_twice_is_no_pair():
    label = np.array([[1], [1], [0]], np.int8)
    parts = Segments(np.array([1, 1, 4]), np.array([60, 60, 0]), np.array([61, 61, 900]), label)
    with pytest.raises(ValueError, match="no class has two windows"):
        sample("supervised", layout(), 10, Options(), 0, parts)


def test_a_hair_of_negatives_among_thousands_is_found():
    offset, recording = np.array([0, 1_000_000, 1_000_200]), np.array([0, 1])
    parts = Segments(
        np.array([0, 0, 1]), np.array([0, 500, 100]), np.array([400, 10**6, 101]), np.array([[1], [0], [0]], np.int8)
    )
    recipes = sample("supervised", Layout(offset, recording, WINDOW), 50, Options(), 0, parts)
    assert set(recipes["negative"]) == {1_000_000 + 100 - 48}


# --- refusals ---


@pytest.mark.parametrize("clips", [[0, 3, 5], [2, 9], []])
def test_fewer_than_two_recordings_are_refused(clips):
    with pytest.raises(
        ValueError, match=f"triplets need windows of two recordings, here are {int(len(clips) > 2)}; give more"
    ):
        layout(np.isin(np.arange(len(LENGTHS)), clips))


def test_no_pair_to_make_is_refused():
    one = Layout(np.array([0, 96, 192]), np.array([0, 1]), WINDOW)
    for options in (Options(), ANYWHERE, Options(proximity=50, min_distance=0)):
        with pytest.raises(ValueError, match="no recording has two windows to make a positive pair of"):
            sample("proximity", one, 5, options, 0)
    for options in (Options(proximity=1, min_distance=0), Options(proximity=96)):
        with pytest.raises(ValueError, match=r"must start less than \d+ frames apart and \d+ or more"):
            sample("proximity", layout(), 5, options, 0)


def test_unknown_names_and_missing_labels_are_refused():
    with pytest.raises(ValueError, match="no sampler is called 'nois'; there are noise, translation"):
        sample("nois", layout(), 5, Options(), 0)
    with pytest.raises(ValueError, match="supervised triplets need labels"):
        sample("supervised", layout(), 5, Options(), 0)


# --- the command ---


def command(*words: object) -> int:
    from soundssl.commands import main

    with pytest.raises(SystemExit) as ended:
        main(["sample-triplets", *map(str, words)])
    return ended.value.code or 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_command_writes_what_the_sampler_draws(toy, tmp_path, sampler):
    out = tmp_path / "t.h5"
    words = ["--labels", toy.labels] if sampler == "supervised" else []
    assert command(toy.features, "--sampler", sampler, "--count", 500, "--split", "1,2", "-o", out, *words) == 0
    found, source = files.Triplets(out), files.Features(toy.features)
    found.require_features(source)
    clips = source.clips.in_splits(["1", "2"])
    for part in ("anchor", "positive", "negative"):
        row = np.searchsorted(source.offset, found.columns[part], side="right") - 1
        assert clips[row].all() and (found.columns[part] + WINDOW <= source.offset[row + 1]).all()
        if sampler == "supervised":
            own = np.array([found.classes.index(source.clips.key[r].split("-")[0]) for r in row])
            assert np.array_equal(own == found.columns["class"], np.full(500, part != "negative"))
    assert json.loads(found.attributes["samplers"]) == list(triplets.NUMBER)


def test_two_runs_without_provenance_are_equal_bytes_and_a_third_is_not_made(toy, tmp_path, capsys):
    for name in ("a.h5", "b.h5"):
        assert command(toy.features, "--count", 50, "--no-provenance", "-o", tmp_path / name) == 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert command(toy.features, "--count", 50, "--no-provenance", "-o", tmp_path / "b.h5") == 0
    assert "is up to date" in capsys.readouterr().err
    assert command(toy.features, "--count", 50, "--seed", 1, "--no-provenance", "-o", tmp_path / "b.h5") == 0
    assert (tmp_path / "a.h5").read_bytes() != (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("seconds", [0.05, 0.07, 0.29])
def test_proximity_is_in_seconds_and_less_than_them(toy, tmp_path, seconds):
    assert (
        command(
            toy.features,
            "--sampler",
            "proximity",
            "--proximity",
            seconds,
            "--min-distance",
            0,
            "--count",
            3000,
            "-o",
            tmp_path / "t.h5",
        )
        == 0
    )
    columns = files.Triplets(tmp_path / "t.h5").columns
    assert np.abs(columns["anchor"] - columns["positive"]).max() == round(seconds * 100) - 1


@pytest.mark.parametrize(
    ("words", "status", "fact"),
    [
        (["--sampler", "nois"], 2, "choose from noise, translation"),
        (["--sampler", "supervised"], 2, "the supervised sampler needs them"),
        (["--max-shift", "64"], 2, "64 is not less than 64 bands"),
        (["--sampler", "proximity", "--proximity", "0.01"], 2, "0.01 s are not more than one frame"),
        (
            ["--proximity", "0.96"],
            2,
            "no window starts less than 0.96 s from another and 0.96 s or more; give a larger",
        ),
        (["--proximity", "1.5", "--grid", "2"], 2, "less than 1.5 s from another and 2 s or more"),
        (["--min-distance", "-1"], 2, "--min-distance"),
        (["--grid", "-1"], 2, "--grid"),
        (["--min-distance", "30"], 1, "no recording has two windows to make a positive pair of, 3000 frames apart"),
        (["--split", "9"], 1, "has no split '9'; it has '1', '2', '3'"),
        (["--labels", "{features}", "--sampler", "supervised"], 4, "holds features, not labels"),
        (["-o", "{features}"], 2, "is one of the inputs; name another output"),
    ],
)
def test_the_command_refuses_in_words(toy, capsys, words, status, fact):
    assert command(toy.features, *(str(toy.features) if word == "{features}" else word for word in words)) == status
    assert fact in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_labels_of_other_clips_are_refused(toy, tmp_path, capsys):
    other = tmp_path / "other.h5"
    other.write_bytes(toy.labels.read_bytes())
    with h5py.File(other, "a") as file:
        file["segment/key"][:] = np.array([f"other {i}" for i in range(24)], dtype=object)
    assert command(toy.features, "--sampler", "supervised", "--labels", other, "-o", tmp_path / "t.h5") == 1
    assert "names no clip of" in capsys.readouterr().err
