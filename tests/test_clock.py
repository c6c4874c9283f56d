"""Laws of pairs of sounds: which windows of a recording may be one, by brute force; the grid, and clips too short."""

from pathlib import Path

import numpy as np
import pytest
from test_coincidence import RECORDINGS, drawn, examples_of, write_videos

from soundssl import files


def by_brute_force(path: Path, delta: float, least: float, grid: float) -> set[tuple[int, int]]:
    """Return all pairs (first frame of a window, that of another) that may be drawn."""
    source, step = files.Features(path), max(1, round(100 * grid))
    windows = [
        (source.clips.source[clip], round(100 * source.clips.start[clip]) + k, int(source.offset[clip]) + k)
        for clip in range(len(source.clips))
        for k in range(0, int(np.diff(source.offset)[clip]) - 95, step)
    ]
    return {
        (first, second)
        for here, at, first in windows
        for there, then, second in windows
        if here == there and least <= abs(at - then) < 100 * delta
    }


@pytest.mark.parametrize(
    ("lengths", "starts", "delta", "grid"),
    [
        ({0: 110, 1: 230, 2: 193, 3: 192}, [0.0, 2.0], 10.0, 0.25),  # clips of one source overlap, some are short
        ({0: 130, 1: 130, 2: 96, 3: 96}, [0.0, 4.0], 10.0, 0.25),  # partners in the other clip alone
        ({0: 130, 1: 130, 2: 96, 3: 96}, [0.0, 4.0], 3.0, 0.25),  # which is too far
        ({0: 230, 1: 230}, [0.0, 0.0], 1.2, 0.1),
        ({0: 230, 1: 50}, [0.0, 0.0], np.inf, 0.07),
    ],
)
def test_pairs_are_those_of_brute_force(tmp_path, lengths, starts, delta, grid):
    path = write_videos(tmp_path / "f.h5", clips_each=2, lengths=lengths, start=np.tile(starts, RECORDINGS))
    chosen = np.arange(2 * RECORDINGS) < 8
    allowed = by_brute_force(path, delta, 96, grid)
    offset = files.Features(path).offset
    allowed = {pair for pair in allowed if pair[0] < offset[8]}
    examples = examples_of(path, chosen, delta=delta, grid=grid)
    low, high = examples.clock.paired()
    firsts = {
        int(offset[clip] + k * examples.clock.step)
        for clip in range(8)
        for half in (0, 1)
        for k in range(low[half, clip], high[half, clip])
    }
    known = {first for first, _ in allowed}
    assert firsts <= known and len(firsts) > 0.8 * len(known), "clips that have a partner for some of it may be lost"
    seen = {(int(pair["window"]), int(pair["other"])) for pair in drawn(examples, 400)}
    assert seen <= allowed and {first for first, _ in seen} <= firsts
    assert len(seen) > min(300, 0.3 * len(allowed))


def test_windows_lie_on_the_grid(tmp_path):
    cut = write_videos(tmp_path / "cut.h5", clips_each=3)
    source = files.Features(cut)
    for pair in drawn(examples_of(cut, modality="both", grid=1.0, mixing=0.5), 10):
        frames = np.array([pair["window"], pair["other"], *pair["mixed"]])
        clips = np.searchsorted(source.offset, frames, side="right") - 1
        assert ((frames - source.offset[clips]) % 100 == 0).all() and (frames + 96 <= source.offset[clips + 1]).all()


def test_recordings_too_short_for_two_windows_are_counted(tmp_path):
    path = write_videos(tmp_path / "f.h5", lengths={0: 50, 1: 191, 2: 192, 3: 96})
    examples = examples_of(path)
    assert examples.notes == ["2 of 15 recordings hold no pair of windows 0.96 s apart; they are left out"]
    assert len(examples) == RECORDINGS - 3 and not examples_of(path, min_distance=0.0, modality="image").notes
    with pytest.raises(ValueError, match=r"0 recordings hold a pair .*: 2 of 2 recordings hold no pair of windows"):
        examples_of(path, np.isin(np.arange(RECORDINGS), [1, 3]))
    with pytest.raises(ValueError, match=r"delta is 0\.5 s and two sounds start 0\.96 s apart at least"):
        examples_of(path, delta=0.5)
    with pytest.raises(ValueError, match="grid is 3 seconds and delta 1: pictures between"):
        examples_of(path, delta=1.0, grid=3.0, modality="image")
    for name in ("min_distance", "grid"):
        with pytest.raises(ValueError, match=rf"{name} of the coincidence objective is -2\.0"):
            examples_of(path, **{name: -2.0})
