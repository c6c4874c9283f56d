"""labels import and export: every format there and back to the millisecond, hostile names, and what does not fit."""

import csv

import builder
import numpy as np
import pytest
from cluster_world import run

from soundssl import files
from soundssl.detection import formats
from soundssl.detection.events import Event, Recording
from soundssl.labels import LabelSet, labelset

NAMES = ["dog", "cat; or dog", '<b onerror="x">, "hush" مرحبا 🐦', "=1+1"]
ROWS = [  # clip, class, onset, offset
    ("a/one.wav", 0, 1.25, 2.5),
    ("a/one.wav", 1, 2.0, 3.0),  # overlaps the one before
    ("a/one.wav", 0, 2.25, 2.75),  # of its class too
    ("a/one.wav", 0, 59.0, 61.5),  # goes on beyond the end
    ("b ü.flac", 2, 0.0, 0.0),  # no length
    ("b ü.flac", 3, 3.123456, 4.654321),
]
KEYS = ["a/one.wav", "b ü.flac", "silent.wav"]
GRID = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\tpresent\n"


@pytest.fixture(scope="module")
def strong(tmp_path_factory):
    """Labels of three clips, in the last of which nothing is heard."""
    label = np.zeros((3, 4), "i1")
    for key, column, *_ in ROWS:
        label[KEYS.index(key), column] = 1
    events = {
        "event/segment": np.array([KEYS.index(row[0]) for row in ROWS], "i4"),
        "event/class": np.array([row[1] for row in ROWS], "i2"),
        "event/onset": np.array([row[2] for row in ROWS]),
        "event/offset": np.array([row[3] for row in ROWS]),
    }
    path = tmp_path_factory.mktemp("strong") / "strong.labels.h5"
    return builder.labels(path, builder.whole(KEYS), NAMES, label, **events)


def told(path) -> list[tuple]:
    """Return the events of a labels file as rows, sorted."""
    said = files.Labels(path)
    rows = zip(*(said.events[name].tolist() for name in ("segment", "class", "onset", "offset")), strict=True)
    return sorted((str(said.key[s]), said.classes[c], onset, offset) for s, c, onset, offset in rows)


def same(found, rows=ROWS) -> bool:
    wanted = sorted((key, NAMES[column], onset, offset) for key, column, onset, offset in rows)
    return [row[:2] for row in found] == [row[:2] for row in wanted] and np.allclose(
        [row[2:] for row in found], [row[2:] for row in wanted], atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_there_and_back(name, folder, strong, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    if name == "audacity" and not folder:
        done = run("labels", "export", strong, "-o", tmp_path / "x.txt", "--format", name)
        assert done.status == 2 and "a label track holds one recording" in done.err
        return
    out = f"{tmp_path}/out/" if folder else tmp_path / f"x{formats.FORMATS[name].suffix}"
    done = run("labels", "export", strong, "-o", out, "--format", name)
    assert (done.status, done.out) == (0, "") and "6 events of 4 classes in 3 recordings" in done.err
    done = run("labels", "import", out, "--format", name, "-o", tmp_path / "back.h5")
    assert done.status == 0, done.err
    back = told(tmp_path / "back.h5")
    if name == "audioset":  # whose segments have neither folder nor ending
        back = sorted((next(key for key in KEYS if key.split("/")[-1].startswith(row[0])), *row[1:]) for row in back)
    assert same(back)
    if name in ("raven", "aoef", "dcase", "audacity") and (folder or name != "audacity"):
        said = files.Labels(tmp_path / "back.h5")
        assert said.label[said.key.tolist().index("silent.wav")].tolist() == [0] * 4  # nothing is heard there
    assert run("info", tmp_path / "back.h5", "--verify").status == 0


def test_the_default_output_the_pipe_and_a_second_time(strong, tmp_path):
    done = run("labels", "export", strong, "-q")
    path = strong.parent / "strong.events.csv"
    assert (done.status, done.out.strip()) == (0, str(path)) and len(list(csv.DictReader(path.open()))) == 6
    again = run("labels", "import", path)
    assert again.status == 0 and told(again.out.strip()) == told(strong)
    assert "up to date" in run("labels", "import", path).err


def features(path, keys, seconds=10.0):
    frames = np.zeros((round(seconds * 100), 64), "f2")
    return builder.features(path, {key: frames for key in keys})


def test_with_features_events_are_cut_at_the_ends_of_clips(tmp_path):
    table = tmp_path / "x.csv"
    rows = ["one.wav,1,2,dog", "one.wav,9,12,dog", "one.wav,11,12,cat", "else/where.wav,1,2,dog", "one.wav,10,10,cat"]
    table.write_text("path,start_s,end_s,class\n" + "".join(f"{row}\n" for row in rows))
    own = features(tmp_path / "f.h5", ["deep/one.wav", "other.wav"])
    done = run("labels", "import", table, "--features", own, "-o", tmp_path / "l.h5")
    assert done.status == 3 and "else/where.wav is no clip of the features; it is left out" in done.err
    assert "1 events go on beyond the end of their recording and end with it; 1 lie beyond it" in done.err
    assert told(tmp_path / "l.h5") == [
        ("deep/one.wav", "cat", 10.0, 10.0),
        ("deep/one.wav", "dog", 1.0, 2.0),
        ("deep/one.wav", "dog", 9.0, 10.0),
    ]
    done = run("labels", "export", tmp_path / "l.h5", "--features", own, "-o", tmp_path / "y.csv")
    assert done.status == 0 and len((tmp_path / "y.csv").read_text().splitlines()) == 4
    table.write_text("path,start_s,end_s,class\nnowhere.wav,1,2,dog\n")
    done = run("labels", "import", table, "--features", own, "-o", tmp_path / "l.h5")
    assert done.status == 1 and "'nowhere.wav' for one; are they named alike?" in done.err


def test_labels_of_whole_clips_are_counted_or_written(tmp_path):
    labels = builder.labels(tmp_path / "l.h5", builder.whole(["one.wav"]), ["dog", "cat"], [[1, 1]])
    done = run("labels", "export", labels, "-o", tmp_path / "x.csv")
    assert done.status == 0 and "2 labels of whole clips have no times and are left out; --whole" in done.err
    done = run("labels", "export", labels, "-o", tmp_path / "x.csv", "--whole")
    assert done.status == 1 and "a label of one.wav has no end; give the features" in done.err
    own = features(tmp_path / "f.h5", ["one.wav"])
    done = run("labels", "export", labels, "-o", tmp_path / "x.csv", "--whole", "--features", own)
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert done.status == 0 and [(row["start_s"], row["end_s"]) for row in rows] == [("0.0", "10.0")] * 2


def test_ratings_of_audiosets_grid_become_explicit_negatives(tmp_path):
    rows = [("v_30000", 0, 0.96, "/m/1", "PRESENT"), ("v_30000", 0.96, 1.92, "/m/2", "NOT_PRESENT")]
    table = tmp_path / "grid.tsv"
    table.write_text(GRID + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    ontology = tmp_path / "ontology.json"
    ontology.write_text('[{"id": "/m/1", "name": "Dog"}, {"id": "/m/2", "name": "Cat"}]')
    done = run("labels", "import", table, "--format", "audioset", "--names", ontology, "-o", tmp_path / "l.h5")
    said = files.Labels(tmp_path / "l.h5")
    assert done.status == 0 and said.classes == ["Cat", "Dog"]
    assert said.label.tolist() == [[-1, 1], [0, -1]] and said.rated.tolist() == [[0, 1], [1, 0]]
    own = features(tmp_path / "f.h5", ["train/v_30000.wav"])
    done = run("labels", "import", table, "--format", "audioset", "--features", own, "-o", tmp_path / "l.h5")
    assert done.status == 0 and set(files.Labels(tmp_path / "l.h5").key) == {"train/v_30000.wav"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("dcase", "a\tb\n", "x has no column 'filename'; its columns are a, b"),
        ("dcase", "", "x has no column 'filename'; its columns are none"),
        ("dcase", "filename\tonset\toffset\tevent_label\na.wav\t1\tx\tdog\n", "line 2: offset 'x' is no number"),
        ("dcase", "filename\tonset\toffset\tevent_label\n\t1\t2\tdog\n", "line 2 names no recording"),
        ("dcase", "filename\tonset\toffset\tevent_label\na.wav\t1\t2\n", "line 2: an event has no class"),
        ("dcase", "filename\tonset\toffset\tevent_label\na.wav\t2\t1\tdog\n", "is said to last from 2 to 1 s"),
        (
            "audioset",
            "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\tpresent\na\t0\t1\tx\tNO\n",
            "PRESENT or",
        ),
        ("csv", "path,start_s,end_s,class\na.wav,1,2,\n", "an event of a.wav has no class; name what is heard"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_their_line(name, text, words, tmp_path):
    (tmp_path / "x").write_text(text)
    done = run("labels", "import", tmp_path / "x", "--format", name, "-o", tmp_path / "l.h5")
    assert done.status == 1 and words in done.err and not (tmp_path / "l.h5").exists()


def test_what_cannot_be_told_is_said_in_a_line(strong, tmp_path):
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for words, status, line in [
        (("import", tmp_path / "none.csv"), 2, "does not exist"),
        (("import", tmp_path / "x.txt", "-o", tmp_path / "l.h5"), 1, "may be raven or audacity; say which with"),
        (("import", tmp_path / "empty"), 2, "is a folder; say what its files are"),
        (("import", tmp_path / "empty", "--format", "raven"), 2, "has no file *.selections.txt; give the files"),
        (("export", strong, "-o", tmp_path / "x.h5"), 2, "labels are what is exported; name a format"),
        (("export", strong, "-o", tmp_path / "x.json"), 1, "may be label-studio or aoef; say which with --format"),
        (("export", tmp_path / "none.h5"), 2, "does not exist"),
    ]:
        done = run("labels", *words)
        assert done.status == status and line in done.err, (words, done.err)


def test_audiosets_segments_must_differ(tmp_path):
    recordings = [Recording("a/x.wav", 1.0), Recording("b/x.wav", 1.0)]
    with pytest.raises(formats.FormatError, match="would be one segment x; rename one"):
        dict(formats.write(tmp_path / "x.tsv", [Event("a/x.wav", 0, 1, "d")], recordings, "audioset"))


def test_a_reader_of_others_agrees(strong, tmp_path):
    reader = pytest.importorskip("dcase_util")
    run("labels", "export", strong, "-o", tmp_path / "x.csv", "--format", "dcase")
    found = reader.containers.MetaDataContainer().load(str(tmp_path / "x.csv"), delimiter="\t")
    heard = sorted((row.filename, row.event_label, row.onset, row.offset) for row in found if row.event_label)
    assert same(heard)


def test_detected_labels_keep_their_score(tmp_path):
    said = LabelSet(
        np.array([[1]], "i1"), ["dog"], np.array(["a.wav"], object), np.array([1.0]), np.array([2.0]),
        weight=np.array([0.75], "f4"), origin=np.array([2], "u1"),
    )  # fmt: skip
    with files.create(tmp_path / "l.h5", "labels", inputs=[], made_from="x", attributes={}) as sink:
        labelset.write(sink, said)
    run("labels", "export", tmp_path / "l.h5", "-o", tmp_path / "x.csv")
    assert next(csv.DictReader((tmp_path / "x.csv").open()))["score"] == "0.75"
