"""Collections on ten clips each: keys, classes with their ids, splits, flags; to labels and scores; faults by line."""

import builder
import numpy as np
import pytest
from cluster_world import run
from collections_world import BUILDERS, MIDS, NAMES, VIDEOS, sound, write

from soundssl import datasets, files
from soundssl.datasets import audioset
from soundssl.evaluations import reading
from soundssl.extraction import Recipe
from soundssl.extraction import labels as clip_labels
from soundssl.extraction.decode import media_source
from soundssl.tables import TableError


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The folder of each collection, ten clips in it."""
    folder = tmp_path_factory.mktemp("collections")
    for name, build in BUILDERS.items():
        (folder / name).mkdir()
        build(folder / name)
    return {name: folder / name for name in BUILDERS}


def labels_of(clips, folder, missing: int = 0) -> files.Labels:
    """Return the labels of clips as featurize writes them, all but the last `missing` decoded."""
    by_key = {clip.key: clip for clip in clips}
    assert len(by_key) == len(clips)
    source = media_source(by_key, Recipe(), "float16")
    there = clips[: len(clips) - missing]
    builder.features(
        folder / "f.h5", {clip.key: np.zeros((120, 64)) for clip in there}, split=[clip.split for clip in there],
        recording=[clip.recording for clip in there], made_from=[source.digests[clip.key] for clip in there],
    )  # fmt: skip
    clip_labels.write(folder / "l.h5", source, folder / "f.h5", None)
    return files.Labels(folder / "l.h5")


@pytest.mark.parametrize("name", BUILDERS)
def test_ten_clips_go_to_labels_and_to_an_evaluation(name, roots, tmp_path):
    clips = datasets.load(name, roots[name])
    assert len(clips) == 10 and all(clip.classes for clip in clips)
    known = labels_of(clips, tmp_path, missing=1)
    assert len(known.key) == 9 and (known.label == 1).any(1).all()
    builder.embeddings(tmp_path / "e.h5", np.eye(9, dtype="f4"), keys=[clip.key for clip in clips[:9]])
    table = reading.read_embeddings(tmp_path / "e.h5", known)
    assert table.label.tolist() == known.label.tolist() and len(table.classes) == len(known.classes)
    assert set(table.split) == {clip.split for clip in clips[:9]}, "the labels keep the split"
    with pytest.raises(TableError, match="name the folder"):
        datasets.load(name, tmp_path)


def test_fsd50k_keeps_ids_uploaders_licences_and_what_is_exhaustive(roots, tmp_path):
    clips = datasets.load("fsd50k", roots["fsd50k"])
    assert clips[0].key == "FSD50K.dev_audio/100.wav" and clips[0].classes == ("Bark", "Dog")
    assert clips[1].uploader == "user1" and clips[1].licence == "http://cc/by user1"
    assert [clip.split for clip in clips] == ["train"] * 6 + ["val"] + ["eval"] * 3
    known = labels_of(clips, tmp_path)
    assert dict(zip(known.classes, known.identifiers, strict=True)) == {
        "Bark": "/m/05tny_", "Bell": "/m/0395lw", "Dog": "/m/0bt9lr"
    }  # fmt: skip
    assert known.rated.tolist() == [[1, 0, 1]] * 7 + [[1, 1, 1]] * 3, "zeros of dev are unrated, of eval rated"
    assert list(known.uploader[:4]) == ["user0", "user1", "user2", "user0"]
    leaves = datasets.load("fsd50k-collected", roots["fsd50k"])
    assert len(leaves) == 7 and leaves[0].classes == ("Bark",)


def test_noisy_clips_are_marked(roots, tmp_path):
    noisy = datasets.load("fsdnoisy18k", roots["fsdnoisy18k"])
    assert [clip.noisy for clip in noisy] == [False] * 3 + [True] * 5 + [False] * 2
    assert [clip.subset for clip in noisy].index("noisy_small") == 5 and noisy[0].identifiers == (("Fire", "/m/0"),)
    assert labels_of(noisy, tmp_path).noisy.tolist() == [0] * 3 + [1] * 5 + [0] * 2
    verified = datasets.load("fsdkaggle2018", roots["fsdkaggle2018"])
    assert [clip.noisy for clip in verified[:7]] == [True, False] * 3 + [True] and verified[3].recording == "501"
    clips = datasets.load("fsdkaggle2019", roots["fsdkaggle2019"])
    assert [clip.noisy for clip in clips] == [False] * 4 + [True] * 4 + [False] * 2
    assert {clip.subset for clip in clips} == {"curated", "noisy", ""} and clips[0].classes == ("Bark", "Yell")


def test_recordings_and_splits_of_urban_sounds_and_scenes(roots):
    slices = datasets.load("urbansound8k", roots["urbansound8k"])
    assert slices[3].key == "fold2/1-3-0-3.wav" and slices[3].recording == "1" and slices[3].split == "2"
    assert slices[3].path == roots["urbansound8k"] / "audio/fold2/1-3-0-3.wav"
    scenes = datasets.load("tut2018", roots["tut2018"])
    assert [clip.split for clip in scenes] == ["train"] * 7 + ["test"] * 2 + [""]
    assert scenes[6].recording == "city-1" and scenes[6].classes == ("airport",)


def test_segments_of_audioset_find_their_files(roots):
    clips = datasets.load("audioset", roots["audioset"])
    assert [clip.path.is_file() for clip in clips] == [clip.recording != VIDEOS[9] for clip in clips]
    first = next(clip for clip in clips if clip.recording == VIDEOS[0])
    assert (first.key, first.split) == (f"{VIDEOS[0]}_30000", "eval")
    assert first.identifiers == ((NAMES[0], MIDS[0]), (NAMES[1], MIDS[1]))
    assert audioset.quality(roots["audioset"]) == {MIDS[0]: (10, 9)}


def test_strong_labels_are_events_and_rated_spans_leave_others_unknown(roots, tmp_path):
    strong = datasets.load("audioset-strong", roots["audioset"])
    assert strong[0].events == (("Dog", 0.1, 0.5), ("Male singing", 0.3, 1.0)) and len(strong) == 2
    known = labels_of(strong, tmp_path)
    assert known.events["segment"].tolist() == [0, 0, 1] and known.events["offset"].tolist() == [0.5, 1.0, 0.25]
    spans = datasets.load("audioset-framed", roots["audioset"])
    assert [(clip.start, clip.end, clip.classes, clip.absent) for clip in spans] == [
        (0.0, 0.96, ("Dog",), ("Alarm, siren",))
    ]
    rated = labels_of([*spans, *strong], tmp_path)
    assert rated.classes == ["Alarm, siren", "Dog", "Male singing"]
    assert rated.label[0].tolist() == [0, 1, -1] and rated.rated[0].tolist() == [1, 1, 0]


def test_a_missing_file_is_counted_and_costs_nothing_else(roots, tmp_path):
    out, table = tmp_path / "f.h5", tmp_path / "l.h5"
    done = run("featurize", "--dataset", "fsd50k", roots["fsd50k"], "-o", out, "--labels", table, "-j", 1)
    assert done.status == 3 and "9 clips" in done.err and "1 inputs skipped" in done.err and "202.wav" in done.err
    known = files.Labels(table)
    assert len(known.key) == 9 and known.uploader is not None
    done = run("evaluate", "knn", out, "--labels", table, "--k", 1, "--query", "eval")
    assert done.status == 0 and done.rows()["accuracy"] >= 0


def test_a_table_of_events_has_a_clip_a_file(tmp_path):
    sound(tmp_path / "a.wav")
    write(tmp_path / "t.csv", "filename,onset,offset,label,uploader", "a.wav,0.2,0.5,dog,me", 
          "a.wav,0.1,1.0,cat;dog,me", "b.wav,,,,you")  # fmt: skip
    clips = datasets.load("csv", tmp_path / "t.csv")
    assert [clip.events for clip in clips] == [(("dog", 0.2, 0.5), ("cat", 0.1, 1.0), ("dog", 0.1, 1.0)), ()]
    assert clips[0].classes == ("dog", "cat") and clips[1].classes == () and clips[1].uploader == "you"


def test_events_of_a_recording_that_was_cut_lie_in_their_spans(tmp_path):
    write(tmp_path / "t.csv", "path,onset,offset,class", "a.wav,0.5,1.6,dog", "a.wav,0.0,0.3,cat")
    clip = datasets.load("csv", tmp_path / "t.csv")[0]
    source = media_source({clip.key: clip}, Recipe(clip=1.2), "float16")
    builder.features(
        tmp_path / "f.h5", {"a.wav@0-1.2": np.zeros((120, 64)), "a.wav@1.2-2.4": np.zeros((120, 64))},
        start=[0.0, 1.2], made_from=[source.digests["a.wav"]] * 2,
    )  # fmt: skip
    clip_labels.write(tmp_path / "l.h5", source, tmp_path / "f.h5", None)
    known = files.Labels(tmp_path / "l.h5")
    assert known.classes == ["cat", "dog"] and known.label.tolist() == [[1, 1], [0, 1]]
    assert known.events["onset"].tolist() == [0.5, 0.0, 0.0]
    assert known.events["offset"].round(6).tolist() == [1.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("name", "path", "before", "after", "fault"),
    [
        (
            "fsd50k",
            "FSD50K.ground_truth/dev.csv",
            "fname,labels",
            "fname,words",
            r"dev\.csv line 1 has no column labels",
        ),
        ("fsd50k", "FSD50K.ground_truth/dev.csv", '101,"Bark,Dog"', "101,", r"dev\.csv line 3: the labels is empty"),
        ("fsd50k", "FSD50K.metadata/dev_clips_info_FSD50K.json", "{", "", "is no JSON"),
        ("fsdnoisy18k", "FSDnoisy18k.meta/train.csv", "/m/0,1,0", "/m/0,x,0", "line 2: manually_verified is 'x'"),
        (
            "fsdkaggle2018",
            "FSDKaggle2018.meta/train_post_competition.csv",
            ",manually",
            ",",
            "no column manually_verified",
        ),
        ("urbansound8k", "metadata/UrbanSound8K.csv", "1,3,dog_bark", ",3,dog_bark", "line 2: the fold is empty"),
        ("urbansound8k", "metadata/UrbanSound8K.csv", "classID", "number", "has no column classid"),
        ("tut2018", "meta.csv", "scene_label", "scene", r"meta\.csv line 1 has no column scene_label"),
        ("audioset", "eval_segments.csv", MIDS[0], "/m/none", r"eval_segments\.csv line 4: '/m/none' is in no index"),
        ("audioset", "eval_segments.csv", "30.000", "-", "line 4: '-' is no time"),
        ("audioset", "eval_segments.csv", "40.000, ", "", "line 4 has 3 cells"),
        ("audioset", "class_labels_indices.csv", "display_name", "name", "has no column display_name"),
        (
            "audioset-strong",
            "audioset_eval_strong.tsv",
            "_30000\t0.1",
            "\t0.1",
            "is no segment; it is YTID_MILLISECONDS",
        ),
        (
            "audioset-strong",
            "audioset_eval_strong.tsv",
            "0.1\t0.5",
            "0.5\t0.1",
            "line 2: an event ends after it begins",
        ),
        ("audioset-framed", "audioset_eval_strong_framed_posneg.tsv", "NOT_", "NO_", "line 3: present is 'NO_PRESENT'"),
        ("quality", "qa_true_counts.csv", "10,9", "10,x", "line 2: num_rated and num_true are whole numbers"),
    ],
)
def test_a_fault_in_a_table_is_named_by_its_line(name, path, before, after, fault, tmp_path):
    whole = {"quality": "audioset"}.get(name, name.partition("-")[0])
    BUILDERS[whole](tmp_path)
    text = (tmp_path / path).read_text()
    assert before in text
    (tmp_path / path).write_text(text.replace(before, after, 1))
    with pytest.raises(TableError, match=fault):
        audioset.quality(tmp_path) if name == "quality" else datasets.load(name, tmp_path)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["path,onset,class", "a,1,b"], "has a column onset and none offset"),
        (["path,onset,offset,class", "a,2,1,b"], "line 2: onset and offset are seconds, and offset is the later"),
        (["path,onset,offset,class", "a,1,2,"], "line 2: an event has no class"),
        (["path,noisy", "a,perhaps"], "line 2: noisy is 'perhaps'; it is 1 or 0"),
    ],
)
def test_a_fault_in_a_table_of_events_is_named_by_its_line(lines, fault, tmp_path):
    write(tmp_path / "t.csv", *lines)
    with pytest.raises(TableError, match=fault):
        datasets.load("csv", tmp_path / "t.csv")
