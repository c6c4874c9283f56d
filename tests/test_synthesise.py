"""The laws of the example corpus: real media, the same by seed, labels that fit, and nothing made twice."""

import csv
import sys
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import synthesise

SECONDS = 2.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """One recording a class."""
    out = tmp_path_factory.mktemp("corpus")
    synthesise.main([str(out), "--recordings", "1", "--seconds", str(SECONDS)])
    return out


def test_every_file_has_picture_and_sound_of_the_right_length(corpus):
    paths = sorted((corpus / "videos").iterdir())
    assert [path.name for path in paths] == [f"recording-{i:04}.mp4" for i in range(1, len(synthesise.CLASSES) + 1)]
    for path in paths:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            rate = container.streams.video[0].average_rate
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert len(frames) / rate == pytest.approx(SECONDS, abs=0.1) and frames[0].shape == (120, 160, 3)
        assert any(np.abs(frames[0].astype(int) - frame).max() > 60 for frame in frames), "the picture moves"
        with av.open(str(path)) as container:
            sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
            rate = container.streams.audio[0].rate
        assert rate in (44100, 48000) and sound.shape[1] / rate == pytest.approx(SECONDS, abs=0.1)
        assert 0.005 < np.sqrt((sound**2).mean()) < 0.3 and np.abs(sound).max() < 1.2


def test_labels_name_every_file_once(corpus):
    with open(corpus / "labels.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["path"] for row in rows) == sorted(path.name for path in (corpus / "videos").iterdir())
    assert sorted(row["class"] for row in rows) == sorted(synthesise.CLASSES)
    assert [row["class"] for row in rows] != list(synthesise.CLASSES), "file names tell the class"


def test_splits_are_two_thirds_and_one_third_of_each_class(tmp_path):
    synthesise.write_labels(tmp_path / "labels.csv", synthesise.plan(tmp_path, 6, SECONDS, 3), 6)
    with open(tmp_path / "labels.csv", newline="") as stream:
        rows = [(row["class"], row["split"]) for row in csv.DictReader(stream)]
    assert all(rows.count((kind, "train")) == 4 and rows.count((kind, "test")) == 2 for kind in synthesise.CLASSES)


@pytest.mark.parametrize("kind", list(synthesise.CLASSES))
def test_a_waveform_is_its_seed_and_no_other(kind):
    job = synthesise.Job(Path("x.mp4"), kind, 0, SECONDS, 7)
    dry, sound, rate = synthesise.waveforms(job)
    again = synthesise.waveforms(job)
    assert np.array_equal(sound, again[1]) and rate == again[2] and np.isfinite(sound).all()
    assert dry.std() == pytest.approx(1, abs=0.1), "silent"
    for other in (job._replace(index=1), job._replace(seed=8)):
        assert not np.array_equal(sound[0, :1000], synthesise.waveforms(other)[1][0, :1000])


def test_what_is_there_is_kept_and_what_is_broken_is_made_again(corpus, capsys):
    paths = sorted((corpus / "videos").iterdir())
    times = [path.stat().st_mtime_ns for path in paths]
    paths[3].write_bytes(paths[3].read_bytes()[:1000])
    jobs = synthesise.plan(corpus / "videos", 1, SECONDS, 0)
    assert [synthesise.make(job) for job in jobs] == [job.path == paths[3] for job in jobs]
    assert [a.stat().st_mtime_ns == b for a, b in zip(paths, times, strict=True)].count(False) == 1
    assert not synthesise.finished(jobs[0]._replace(seed=1)), "another seed is another recording"


def test_a_folder_with_other_videos_is_refused(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.mp4").touch()
    with pytest.raises(SystemExit):
        synthesise.main([str(tmp_path), "--recordings", "1"])
    assert "holiday.mp4 is not of this corpus" in capsys.readouterr().err
