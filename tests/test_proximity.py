"""Laws of triplets by proximity: all pairs far enough apart, none nearer, on a grid and on clocks that clips share."""

import numpy as np
import pytest
from test_triplets import (
    LENGTHS,
    OFFSET,
    RECORDING,
    WINDOW,
    carried,
    chi_square,
    clip_of,
    command,
    draw,
    legal,
    segments,
)

from soundssl import files, triplets
from soundssl.triplets import SAMPLERS, Layout, Options, sample


def by_brute_force(where: Layout, options: Options, overlapping: dict[int, int]) -> set[tuple[int, int]]:
    """Return all pairs of first frames that proximity may draw; clips whose number is in `overlapping` share a clock.

    Clips of one clock that overlap or nearly do are no pair.
    """
    least = 96 if options.min_distance == -1 else max(1, options.min_distance)
    starts = {clip: range(0, LENGTHS[clip] - WINDOW + 1, where.grid) for clip in where.clip.tolist()}

    def apart(one: int, other: int) -> bool:
        if overlapping.get(one, -1) != overlapping.get(other, -2):
            return True
        return all(abs(BEGIN[one] + a - BEGIN[other] - b) >= least for a in starts[one] for b in starts[other])

    return {
        (int(OFFSET[one] + a), int(OFFSET[other] + b))
        for one in starts
        for other in starts
        if RECORDING[one] == RECORDING[other] and (one == other or (np.isinf(options.proximity) and apart(one, other)))
        for a in starts[one]
        for b in starts[other]
        if one != other or least <= abs(a - b) < options.proximity
    }


BEGIN = np.array([0, 0, 300, 150, 0, 290, 0, 0, 60, 0])  # of each clip on its source's clock
CLOCKS = [{}, {0: 0, 3: 0, 5: 0}, {0: 0, 3: 0, 5: 0, 6: 4, 8: 4}]


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(grid=7),
        Options(grid=100),
        Options(min_distance=20, grid=8),
        Options(min_distance=0, grid=30),
        Options(proximity=120),
        Options(proximity=100.5, grid=4),
        Options(proximity=70, min_distance=30, grid=3),
    ],
)
def test_proximity_draws_all_pairs_far_enough_apart_and_each_anchor_as_often(options, clocks):
    source = np.array([clocks.get(clip, 100 + clip) for clip in range(len(LENGTHS))])
    where = Layout(OFFSET, RECORDING, WINDOW, grid=options.grid, source=source, begin=BEGIN)
    allowed = by_brute_force(where, options, clocks)
    assert allowed, "the case is one"
    anchors = np.array(sorted({anchor for anchor, _ in allowed}))
    recipes = draw("proximity", 30_000, options=options, where=where)
    pairs = set(zip(recipes["anchor"].tolist(), recipes["positive"].tolist(), strict=True))
    assert pairs <= allowed
    assert abs(chi_square(recipes["anchor"], anchors)) < 4.5
    one = max(anchors, key=lambda anchor: (recipes["anchor"] == anchor).sum())
    partners = np.array(sorted(other for anchor, other in allowed if anchor == one))
    many = draw("proximity", 400_000, seed=1, options=options, where=where)
    given = many["positive"][many["anchor"] == one]
    if len(partners) > 1:
        assert abs(chi_square(given, partners)) < 4.5
    clips_with_anchor = len(set(clip_of(anchors)))
    assert triplets.lonely(where, options) == len(where.clip) - clips_with_anchor


def test_windows_lie_on_the_grid_of_their_clip():
    where = Layout(OFFSET, RECORDING, WINDOW, grid=20)
    for name in SAMPLERS:
        recipes = draw(name, 500, where=where)
        for part in ("anchor", "positive", "negative"):
            assert ((recipes[part] - OFFSET[clip_of(recipes[part])]) % 20 == 0).all()


def test_supervised_on_a_grid_agrees_with_brute_force():
    where, parts = Layout(OFFSET, RECORDING, WINDOW, grid=5), segments(3, 12)
    recipes = sample("supervised", where, 20_000, Options(), 0, parts)
    for c in set(recipes["class"].tolist()):
        here = recipes["class"] == c
        frames = [frame for frame in legal() if (frame - OFFSET[clip_of(frame)]) % 5 == 0]
        known = {frame: carried(parts, frame) for frame in frames}
        assert set(recipes["positive"][here]) == {frame for frame, (have, _) in known.items() if c in have}
        assert set(recipes["negative"][here]) <= {frame for frame, (_, lack) in known.items() if c in lack}


# --- the command ---


def test_pairs_of_the_command_do_not_overlap_and_lie_on_the_grid(toy, tmp_path, capsys):
    out, source = tmp_path / "t.h5", files.Features(toy.features)
    assert command(toy.features, "--sampler", "proximity", "--count", 2000, "-o", out) == 0
    columns = files.Triplets(out).columns
    assert np.abs(columns["anchor"] - columns["positive"]).min() == WINDOW
    assert "no two windows" not in capsys.readouterr().err
    words = ["--sampler", "proximity", "--count", 2000, "--grid", 1, "--min-distance", 0.5, "-o", out]
    assert command(toy.features, *words) == 0
    found = files.Triplets(out)
    clip = np.searchsorted(source.offset, found.columns["anchor"], side="right") - 1
    assert ((found.columns["anchor"] - source.offset[clip]) % 100 == 0).all()
    assert (found.attributes["min_distance"], found.attributes["grid"]) == (1.0, 1.0)


def test_clips_too_short_for_two_windows_are_counted(tmp_path, capsys):
    from test_coincidence import write_videos

    path = write_videos(tmp_path / "f.h5", images=False, lengths={0: 191, 1: 192, 2: 96})
    assert command(path, "--sampler", "proximity", "--count", 2000, "-o", tmp_path / "t.h5") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 16 clips have no two windows 0.96 s apart; no pair by proximity is drawn from them" in said
    source, anchors = files.Features(path), files.Triplets(tmp_path / "t.h5").columns["anchor"]
    assert set(np.searchsorted(source.offset, anchors, side="right") - 1) == {1, *range(3, 16)}
