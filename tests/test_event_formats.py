"""Formats of events: what is written is read back to the millisecond, by us and by the programs they are made for."""

import json
import math

import numpy as np
import pytest

from soundssl.detection import formats
from soundssl.detection.events import Event, Recording
from soundssl.detection.formats.text import FormatError

RECORDINGS = [
    Recording("a/one.wav", 60.0, 44100),
    Recording("b/two.wav", 12.5, 16000, 2),
    Recording("c.flac", 7.25, 8000),
]
EVENTS = [
    Event("a/one.wav", 1.25, 2.5, "dog", 0.9, 500.0, 4000.0, "m.safetensors"),
    Event("a/one.wav", 2.0, 3.0, "cat; or dog", 0.25, 0.0, 22050.0, "m.safetensors"),  # overlaps the one before
    Event("a/one.wav", 59.0, 61.5, "dog", 0.5, 500.0, 4000.0, "m.safetensors"),  # goes on beyond the end
    Event("c.flac", 0.0, 0.0, "click", 1.0, 100.0, 200.0, "m.safetensors"),  # no length
    Event("c.flac", 3.123456, 4.654321, '<b onerror="x">, "hush" مرحبا 🐦', 0.125, 1.0, 2.0, "m.safetensors"),
]
BARE = ("audacity", "parquet", "dcase", "audioset")  # of one recording, no text, without scores
NAMED = [name for name in formats.FORMATS if name not in BARE]


def written(name: str, events=EVENTS, recordings=RECORDINGS, tmp_path=None):
    path = (tmp_path or formats.Path(".")) / f"events{formats.FORMATS[name].suffix}"
    return dict(formats.write(path, events, recordings, name))


def close(one: Event, other: Event) -> bool:
    times = all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(one[1:3], other[1:3], strict=True))
    return times and (one.path, one.name) == (other.path, other.name)


@pytest.mark.parametrize("name", NAMED)
def test_every_format_gives_the_events_back(name):
    files = written(name)
    back = formats.read(next(iter(files.values())), next(iter(files)), name)
    assert len(back) == len(EVENTS) and all(map(close, EVENTS, sorted(back)))
    if name != "aoef":  # whose tags may have a score each
        assert [event.score for event in back] == [event.score for event in EVENTS]
    if name != "label-studio":  # which has no place for frequencies
        assert [event[5:7] for event in sorted(back)] == [event[5:7] for event in EVENTS]


def test_parquet_gives_the_events_back():
    pytest.importorskip("pyarrow")
    ((path, content),) = written("parquet").items()
    assert formats.read(content, path) == EVENTS


def test_audacity_holds_one_recording():
    own = [event for event in EVENTS if event.path == "c.flac"]
    ((path, content),) = written("audacity", own, RECORDINGS[2:]).items()
    assert all(map(close, own, formats.read(content, path, "audacity", "c.flac")))
    assert content.decode().splitlines()[1] == "\\\t100.000000\t200.000000"
    with pytest.raises(FormatError, match="holds one recording; name a folder as output"):
        written("audacity")
    with pytest.raises(FormatError, match="does not name its recording"):
        formats.read(content, path, "audacity")


def test_a_table_of_raven_runs_on_over_the_sorted_list_of_its_recordings():
    files = written("raven", recordings=RECORDINGS[::-1])
    table, listed = (content.decode() for content in files.values())
    assert listed.splitlines() == [recording.path for recording in RECORDINGS]
    head, *lines = (line.split("\t") for line in table.splitlines())
    begin, offset = head.index("Begin Time (s)"), head.index("File Offset (s)")
    before = {"a/one.wav": 0.0, "b/two.wav": 60.0, "c.flac": 72.5}
    for line, event in zip(lines, EVENTS, strict=True):
        assert float(line[offset]) == pytest.approx(event.start, abs=1e-6)
        assert float(line[begin]) == pytest.approx(before[event.path] + event.start, abs=1e-6)


def test_a_selection_in_two_views_counts_once():
    table = (
        b"Selection\tView\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\tWaveform 1\t1\t2\ta\n1\tSpectrogram 1\t1\t2\ta\n"
    )
    assert formats.read(table, formats.Path("x.txt"), "raven", "r.wav") == [Event("r.wav", 1.0, 2.0, "a")]


def test_equal_events_give_equal_bytes():
    for name in NAMED:
        assert written(name) == written(name, EVENTS[::-1], RECORDINGS[::-1])


def test_label_studio_takes_a_thousand_tasks_a_file():
    recordings = [Recording(f"{number:04}.wav", 1.0) for number in range(2001)]
    files = written("label-studio", [], recordings)
    assert [len(json.loads(content)) for content in files.values()] == [1000, 1000, 1]
    assert [path.name for path in files] == ["events.tasks.json", "events.tasks-2.json", "events.tasks-3.json"]


@pytest.mark.parametrize("name", formats.FORMATS)
def test_nothing_heard_is_an_empty_file_of_the_format(name):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    files = written(name, [], RECORDINGS[:1])
    assert formats.read(next(iter(files.values())), next(iter(files)), name, "a/one.wav") == []


@pytest.mark.parametrize("name", ["raven", "audacity"])
def test_a_name_that_would_break_a_line_is_refused(name):
    for word in ("a\tb", "a\nb"):
        with pytest.raises(FormatError, match="has a tab or a line break, which a"):
            written(name, [Event("c.flac", 0, 1, word)], RECORDINGS[2:])


def test_a_spreadsheet_shows_the_class_as_text():
    content = next(iter(written("csv", [Event("c.flac", 0, 1, "=HYPERLINK(1)")], RECORDINGS).values()))
    assert b",'=HYPERLINK(1)," in content


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("csv", b"a,b\n1,2\n", "has no column 'start_s'; its columns are a, b"),
        ("csv", b"path,start_s,end_s,class\nx,a,2,dog\n", "line 2: start_s 'a' is no number"),
        ("csv", b"path,start_s,end_s,class\n,1,2,dog\n", "line 2 names no recording"),
        ("csv", b"path,start_s,end_s,class\nx,3,2,dog\n", "'dog' is said to last from 3 to 2 s"),
        ("jsonl", b'{"path": "x"}\nnot\n', "line 1: start_s '' is no number"),
        ("jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("raven", b"Selection\tView\n1\t2\n", "has no column 'begin time"),
        ("raven", b"Begin Time (s)\tEnd Time (s)\n1\t2\n", "line 2 names no recording; export the column Begin Path"),
        ("audacity", b"1 2 dog\n", "line 1 has no tab"),
        ("audacity", b"x\t2\tdog\n", "line 1: time 'x' is no number"),
        ("label-studio", b"{}", "holds no list"),
        ("label-studio", b'[{"data": {}, "predictions": [{"result": [{"type": "labels"}]}]}]', "holds no tasks"),
        ("aoef", b"[]", "holds no object"),
        ("aoef", b'{"data": {"sound_event_predictions": [{}]}}', "is no AOEF file"),
        ("aoef", b"\xff", "is no JSON"),
    ],
)
def test_what_is_not_of_the_format_is_named(name, content, words):
    with pytest.raises(FormatError, match=words):
        formats.read(content, formats.Path("e.x"), name, "r.wav" if name == "audacity" else "")


def test_the_ending_chooses_unless_it_may_be_two():
    assert (
        formats.choose(formats.Path("a.CSV"), None) == "csv"
        and formats.choose(formats.Path("a.txt"), "raven") == "raven"
    )
    for path, name, words in (
        ("a.txt", None, "may be raven or audacity; say which with --format"),
        ("a.json", None, "may be label-studio or aoef"),
        ("a.doc", None, "names no format; give --format"),
        ("a.csv", "word", "no format is called 'word'"),
    ):
        with pytest.raises(FormatError, match=words):
            formats.choose(formats.Path(path), name)


def test_soundevent_reads_what_we_write(tmp_path):
    io = pytest.importorskip("soundevent.io")
    for number, events in enumerate((EVENTS, [event._replace(score=None) for event in EVENTS])):
        path = tmp_path / f"{number}.json"
        path.write_bytes(next(iter(written("aoef", events).values())))
        found = io.load(path)
        clips = found.clip_predictions if number == 0 else found.clip_annotations
        heard = [(clip.clip.recording.path, each) for clip in clips for each in clip.sound_events]
        spans = sorted((str(place), each.sound_event.geometry.coordinates) for place, each in heard)
        ours = sorted((event.path, [event.start, event.low, event.end, event.high]) for event in events)
        assert [place for place, _ in spans] == [place for place, _ in ours]
        assert np.allclose([box for _, box in spans], [box for _, box in ours], atol=1e-3)


def test_crowsetta_reads_what_we_write(tmp_path):
    crowsetta = pytest.importorskip("crowsetta")
    own = [event for event in EVENTS if event.path == "a/one.wav"]
    path = tmp_path / "one.selections.txt"
    path.write_bytes(next(iter(written("raven", own, RECORDINGS[:1]).values())))
    boxes = crowsetta.formats.by_name("raven").from_file(path, annot_col="Class").to_bbox()
    assert np.allclose([(box.onset, box.offset) for box in boxes], [event[1:3] for event in own], atol=1e-3)
    assert [box.label for box in boxes] == [event.name for event in own]
