"""The laws of the pictures: a whole PNG or none, colours that say what they claim, and a sentence when they cannot."""

import sys

import numpy as np
import pytest

from soundssl import SoundsslError
from soundssl.ops import spectrogram
from soundssl.reports import pictures

image = pytest.importorskip("matplotlib.image")


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def pixels(path, colour: str) -> int:
    """Count the pixels of exactly this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.round(image.imread(path)[..., :3] * 255) == wanted).all(axis=-1).sum())


def row_of_neighbours(path, generator, classes) -> None:
    frames = generator.normal(size=(4, 96, 64))
    pictures.neighbours(path, [frames[0]], [frames[1:]], [["q", "a", "b", "c"]], classes)


def test_each_picture_is_a_png_of_its_size(tmp_path, generator):
    row_of_neighbours(tmp_path / "n.png", generator, None)
    pictures.embedding_map(tmp_path / "m.png", generator.normal(size=(60, 2)), list("abcdef") * 10, "map")
    pictures.bars(tmp_path / "b.png", [("log-mel", 0.45), ("triplet", 0.8, 0.75, 0.85)], chance=0.33)
    for name, least in (("n.png", (150, 600)), ("m.png", (500, 700)), ("b.png", (150, 700))):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        height, width, _ = image.imread(tmp_path / name).shape
        assert least[0] <= height <= 1000 and least[1] <= width <= 1300
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.png", "m.png", "n.png"]


def test_borders_are_green_for_the_same_class_and_red_for_another(tmp_path, generator):
    counts = {}
    for other in range(4):
        row_of_neighbours(tmp_path / "n.png", generator, [["x"] + ["y"] * other + ["x"] * (3 - other)])
        counts[other] = pixels(tmp_path / "n.png", pictures.SAME), pixels(tmp_path / "n.png", pictures.OTHER)
    assert counts[0][1] == 0 and counts[3][0] == 0
    assert [counts[i][1] > counts[i - 1][1] for i in (1, 2, 3)] == [True] * 3
    row_of_neighbours(tmp_path / "n.png", generator, None)
    assert pixels(tmp_path / "n.png", pictures.SAME) == pixels(tmp_path / "n.png", pictures.OTHER) == 0


def test_a_silent_track_stays_dark_beside_its_mixture(tmp_path, generator):
    loud = generator.normal(size=(98, 64))
    names = [["mixture", "source 1", "source 2", "track 0", "track 1"]]

    def dark(path) -> int:
        return int((image.imread(path)[..., :3] * 255 < 6).all(axis=-1).sum())  # the darkest of the colour map

    pictures.separations(tmp_path / "a.png", [[loud, loud, loud, loud, loud]], names)
    pictures.separations(tmp_path / "b.png", [[loud, loud, loud, loud, loud - 20]], names)
    assert dark(tmp_path / "b.png") > dark(tmp_path / "a.png") + 5000
    assert pixels(tmp_path / "a.png", pictures.SAME) > 200, "sources are framed"
    with pytest.raises(ValueError, match=r"need names for \[1\] pictures a row, got \[2\]"):
        pictures.separations(tmp_path / "c.png", [[loud]], [["mixture", "track 0"]])


def test_a_bar_is_as_long_as_its_score(tmp_path):
    lengths = []
    for value in (0.3, 0.6):
        pictures.bars(tmp_path / "b.png", [("whole", 1.0), ("part", value)])
        lengths.append(pixels(tmp_path / "b.png", pictures.PALETTE[0]))
    # the whole bar has area w, the other w * value: (w + 0.6 w) / (w + 0.3 w)
    assert lengths[1] / lengths[0] == pytest.approx(1.6 / 1.3, rel=0.05)


def test_curves_are_drawn_with_their_bands_and_refuse_what_does_not_fit(tmp_path):
    lines = [
        ("one", [10, 20, 40], [(0.2, 0.1, 0.3), (0.4, 0.3, 0.5), (0.5, 0.5, 0.5)]),
        ("two", [10], [(0.7, 0.7, 0.7)]),
    ]
    pictures.curves(tmp_path / "c.png", lines, "title", "questions", "accuracy", ("all", 0.9))
    assert (
        pixels(tmp_path / "c.png", pictures.PALETTE[0]) > 200 and pixels(tmp_path / "c.png", pictures.PALETTE[1]) > 10
    )
    with pytest.raises(ValueError, match="at least one point"):
        pictures.curves(tmp_path / "d.png", [("one", [], [])], "title", "questions", "accuracy")
    with pytest.raises(ValueError, match="one has 2 places and 1 values"):
        pictures.curves(tmp_path / "d.png", [("one", [1, 2], [(0, 0, 0)])], "title", "questions", "accuracy")
    assert not (tmp_path / "d.png").exists()


def test_twenty_classes_look_different_and_more_are_refused(tmp_path, generator):
    names = [f"class {i:02}" for i in range(pictures.MOST_CLASSES + 1)]
    points = generator.normal(size=(len(names), 2))
    pictures.embedding_map(tmp_path / "m.png", points[:-1], names[:-1], "twenty")
    assert all(pixels(tmp_path / "m.png", colour) > 0 for colour in pictures.PALETTE)
    with pytest.raises(ValueError, match=r"at most 20 classes .* got 21"):
        pictures.embedding_map(tmp_path / "x.png", points, names, "too many")


def test_shapes_are_checked(tmp_path, generator):
    with pytest.raises(ValueError, match=r"points \[n, 2\].*got \[3, 3\] and 3"):
        pictures.embedding_map(tmp_path / "x.png", np.zeros((3, 3)), list("abc"), "")
    with pytest.raises(ValueError, match=r"\[2\] names or classes a row, got \[1\]"):
        pictures.neighbours(tmp_path / "x.png", [np.zeros((4, 4))], [[np.zeros((4, 4))]], [["query"]])
    with pytest.raises(ValueError, match="at least one row"):
        pictures.bars(tmp_path / "x.png", [])
    assert not list(tmp_path.iterdir())


def test_frequencies_lie_at_the_bands_that_hear_them():
    for end in spectrogram.PRESETS.values():
        scale = pictures.Scale.of(end.attributes())
        matrix = spectrogram.mel_matrix(end)
        hertz = np.array([0.3, 0.5, 0.7]) * (end.fmax - end.fmin) + end.fmin
        bins = np.round(hertz / end.sample_rate * end.fft_length).astype(int)
        heard = matrix[bins].argmax(1)
        place = scale.band(bins * end.sample_rate / end.fft_length, end.bands)
        assert np.abs(place - heard).max() <= 0.75, end.preset
    assert scale.band(np.array([scale.fmin, scale.fmax]), 64).tolist() == pytest.approx([-1, 64])
    assert pictures.Scale.of(spectrogram.FrontEnd().attributes()).words(96) == "0.96 s, 0.125 to 7.5 kHz"


def test_clusters_are_shown_by_their_sound_or_by_name(tmp_path, generator):
    sizes, share, edges = np.array([5, 3]), np.array([0.5, 0.5]), np.array([0.0, 0.5, 1.0])
    named = pictures.Category("0: 5 windows", "a.wav at 1 s")
    seen = pictures.Category("0: 5 windows", "", [generator.normal(size=(96, 64))], ["a.wav 1 s"])
    scale = pictures.Scale.of(spectrogram.FrontEnd().attributes())
    colours = {}
    for name, category in (("named", named), ("seen", seen)):
        pictures.clusters(tmp_path / f"{name}.png", sizes, share, edges, [category], scale)
        picture = image.imread(tmp_path / f"{name}.png")[..., :3].reshape(-1, 3)
        colours[name] = len(np.unique(picture, axis=0))
    assert colours["seen"] > colours["named"] + 100
    with pytest.raises(ValueError, match="at least one cluster"):
        pictures.clusters(tmp_path / "c.png", sizes[:0], share, edges, [])


def test_a_failure_leaves_the_old_picture(tmp_path):
    target = tmp_path / "b.png"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="in the middle"), pictures.canvas(target, 1, 1):
        raise RuntimeError("in the middle")
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        SoundsslError, match=r"a picture needs matplotlib, which is not installed; pip install 'soundssl\[plot\]'"
    ):
        pictures.bars(tmp_path / "b.png", [("a", 0.5)])
