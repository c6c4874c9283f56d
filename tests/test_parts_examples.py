"""The examples of parts end in the same rows as one run, and plain h5py reads them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, Outcome, run, synthesise, write_video
from program import for_makefiles

from soundssl import files

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Write three recordings and a video, and what one run makes of them."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "media").mkdir()
    for i, name in enumerate("abc"):
        sound = synthesise("chirp", np.random.default_rng(i), 1.2 + 0.3 * i)
        soundfile.write(folder / "media" / f"{name}.wav", sound, RATE)
    write_video(folder / "media" / "g.mp4", synthesise("tone", np.random.default_rng(6), 2.0), codec="mpeg4")
    assert run("featurize", folder / "media", "-o", folder / "whole.h5", "-q", "-j", "1").status == 0
    return folder


def shell(*words: object, **environment: str) -> Outcome:
    surroundings = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "SOUNDSSL": for_makefiles(), **environment}
    done = subprocess.run(list(map(str, words)), env=surroundings, capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


def rows(path: Path) -> dict[str, bytes]:
    source = files.Features(path)
    bounds = zip(source.offset, source.offset[1:], strict=False)
    return {key: source.frames[low:high].tobytes() for key, (low, high) in zip(source.clips.key, bounds, strict=True)}


def test_an_array_of_jobs(media, tmp_path):
    for task in (5, 6):
        array = {"ID": task, "MIN": 5, "MAX": 6, "COUNT": 2}
        surroundings = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
        done = shell("sh", EXAMPLES / "parts" / "slurm.sh", media / "media", tmp_path, **surroundings)
        assert done.status == 0, done.stderr
    assert run("featurize", *sorted(tmp_path.glob("part-*.h5")), "-o", tmp_path / "all.h5").status == 0
    assert rows(tmp_path / "all.h5") == rows(media / "whole.h5")


def test_make_at_once(media, tmp_path):
    words = ("make", "-C", EXAMPLES / "parts", f"MEDIA={media / 'media'}", f"WORK={tmp_path}", "PARTS=2", f"SOUNDSSL={for_makefiles()}")  # fmt: skip  # noqa: E501
    done = shell(*words, "-j2", MAKEFLAGS="")
    assert done.status == 0, done.stderr
    assert rows(tmp_path / "features.h5") == rows(media / "whole.h5")
    assert shell(*words, "-q", MAKEFLAGS="").status == 0, "nothing is to be done"


def test_xargs_at_once(media, tmp_path):
    done = shell("sh", EXAMPLES / "parts" / "xargs.sh", media / "media", tmp_path, 2)
    assert done.status == 0, done.stderr
    assert rows(tmp_path / "features.h5") == rows(media / "whole.h5")


def test_plain_h5py_reads_any_window_and_image(media):
    source = files.Features(media / "whole.h5")
    for row, seconds in ((0, 0.0), (3, 0.5)):
        done = shell(sys.executable, EXAMPLES / "read_features.py", media / "whole.h5", row, seconds)
        first = int(source.offset[row]) + round(seconds * 100)
        window = source.frames[first : first + 96]
        lines = [f"{source.clips.key[row]} window (96, 64) {window.mean():.4f}"]
        if row == 3:
            image = source.images[int(source.image_offset[row])]
            lines.append(f"g.mp4 image (128, 128, 3) {image.mean():.4f}")
        assert done.stdout.splitlines() == lines, done.stderr
