"""Collections: what lies on disk becomes clips with stable keys; tables without sense are refused by their line."""

import os
import socket

import pytest

from soundssl import datasets
from soundssl.datasets import Clip
from soundssl.tables import TableError


def make(folder, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def keys(clips) -> list[str]:
    return [clip.key for clip in clips]


def test_folders_are_searched_through_in_a_stable_order(tmp_path):
    make(
        tmp_path,
        "b/2.WAV",
        "b/10.wav",
        "a.mp4",
        "c/d/e/x",
        "B.wav",
        "é.flac",
        "b/2.csv",
        "b/cover.JPG",
        ".hidden/a.wav",
        ".a.wav",
    )
    make(tmp_path, "old.features.h5", "notes.txt", "features.h5.partial")
    wanted = ["B.wav", "a.mp4", "b/10.wav", "b/2.WAV", "c/d/e/x", "é.flac"]
    assert keys(datasets.paths([tmp_path])) == wanted
    assert [clip.path for clip in datasets.paths([tmp_path])] == [tmp_path / name for name in wanted]


def test_what_a_killed_run_left_behind_is_no_media(tmp_path):
    make(tmp_path, "a.wav", "f.h5.parts/journal.jsonl", "f.h5.parts/worker-0.frames", "two.parts/b.wav")
    assert keys(datasets.paths([tmp_path])) == ["a.wav", "two.parts/b.wav"]


def test_loops_of_links_are_walked_once_and_dead_links_are_kept(tmp_path):
    make(tmp_path, "a/b.wav")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "also").symlink_to(tmp_path / "a")
    (tmp_path / "dead.wav").symlink_to(tmp_path / "none")
    (tmp_path / "link.wav").symlink_to(tmp_path / "a" / "b.wav")
    assert keys(datasets.paths([tmp_path])) == ["a/b.wav", "dead.wav", "link.wav"]


def test_pipes_and_sockets_are_passed_over(tmp_path, monkeypatch):
    make(tmp_path, "a.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        assert keys(datasets.paths([tmp_path])) == ["a.wav"]


def test_keys_of_files_are_their_names_without_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "a.txt", "b/c.wav")
    assert keys(datasets.paths([tmp_path / "a.txt"])) == [str(tmp_path / "a.txt").lstrip("/")], (
        "named, so not passed over"
    )
    assert keys(datasets.paths(path for path in (tmp_path.__class__("b/./c.wav"),))) == ["b/c.wav"]


TABLE = """path,class,split,recording,start,end
a.wav,dog;cat,1,r1,,
sub/b.wav,,2,,1.5,4
sub/b.wav,cat,2,,36000.125,36001.125
sub/b.wav,cat,2,,36000.126,
c.wav,dog,,,0,0.5
"""


@pytest.mark.parametrize("change", ["comma", "tab", "bom", "short"])
def test_a_table_gives_spans_classes_and_splits(tmp_path, change):
    text = TABLE.replace(",", "\t") if change == "tab" else TABLE
    text = text.replace("a.wav,dog;cat,1,r1,,", "a.wav,dog;cat,1,r1") if change == "short" else text
    path = tmp_path / "t.csv"
    path.write_text(text, "utf-8-sig" if change == "bom" else "utf-8")
    media = tmp_path / "media"
    assert list(datasets.table.clips(path, media)) == [
        Clip("a.wav", media / "a.wav", 0.0, None, ("dog", "cat"), "r1", "1"),
        Clip("sub/b.wav@1.5-4", media / "sub/b.wav", 1.5, 4.0, None, "sub/b.wav", "2"),
        Clip("sub/b.wav@36000.125-36001.125", media / "sub/b.wav", 36000.125, 36001.125, ("cat",), "sub/b.wav", "2"),
        Clip("sub/b.wav@36000.126-", media / "sub/b.wav", 36000.126, None, ("cat",), "sub/b.wav", "2"),
        Clip("c.wav@0-0.5", media / "c.wav", 0.0, 0.5, ("dog",), "c.wav", ""),
    ]
    assert next(iter(datasets.table.clips(path))).path == tmp_path / "a.wav", "else relative to the table"


def test_the_columns_have_other_names_too(tmp_path):
    (tmp_path / "t.csv").write_text(" filename , labels , fold \nx.wav, dog , 3\n")
    assert list(datasets.table.clips(tmp_path / "t.csv")) == [
        Clip("x.wav", tmp_path / "x.wav", classes=("dog",), recording="x.wav", split="3")
    ]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("name,class\nx,y\n", "t.csv line 1 has no column path or file or .*; its columns are name, class"),
        ("path,class\na.wav,x\n ,y\n", "t.csv line 3: the path is empty"),
        ("path,class\na.wav,dog,cat\n", "t.csv line 2 has 3 cells, its header 2; put a cell with a comma in quotes"),
        ('path,class\na.wav,"dog\nb.wav,cat\n', "t.csv line 2 is no CSV: .*; look for a lone quotation mark"),
        ('path,class\na.wav,"dog\nb.wav,cat"\n', "t.csv line 3: the class .* holds a line break; look for a lone"),
        ("", "t.csv is empty; it needs a header and a row for each entry"),
        ("path,start\na.wav,1\na.wav,soon\n", "t.csv line 3: start and end are seconds, and .*, not 'soon'"),
        ("path,start,end\na.wav,2,1\n", "t.csv line 2: .* not '2', '1'"),
        ("path,start\na.wav,-1\n", "t.csv line 2: .* not '-1'"),
        ("path,start\na.wav,nan\n", "t.csv line 2: .* not 'nan'"),
    ],
)  # fmt: skip
def test_a_table_that_makes_no_sense_is_refused_by_its_line(tmp_path, text, fact):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=fact):
        list(datasets.table.clips(tmp_path / "t.csv"))


def test_an_enormous_cell_is_refused_in_words(tmp_path):
    (tmp_path / "t.csv").write_text("path\n" + "x" * 200_000 + "\n")
    with pytest.raises(TableError, match=r"t\.csv line 2 is no CSV: field larger than field limit"):
        list(datasets.table.clips(tmp_path / "t.csv"))


@pytest.mark.parametrize("place", ["meta/esc50.csv", "meta.csv"])
def test_esc50(tmp_path, place):
    make(tmp_path, place, "audio/1-100032-A-0.wav")
    (tmp_path / place).write_text(
        "filename,fold,category,src_file\n1-100032-A-0.wav,1,dog,100032\n5-9-B-10.wav,5,rain,9\n"
    )
    assert list(datasets.esc50.clips(tmp_path)) == [
        Clip("1-100032-A-0.wav", tmp_path / "audio/1-100032-A-0.wav", classes=("dog",), recording="100032", split="1"),
        Clip("5-9-B-10.wav", tmp_path / "audio/5-9-B-10.wav", classes=("rain",), recording="9", split="5"),
    ]
    (tmp_path / place).write_text("filename,fold,category\n1-100032-A.ogg,1,dog\n")
    assert next(datasets.esc50.clips(tmp_path)).recording == "100032"
    (tmp_path / place).write_text("filename,fold,category\nplain.ogg,1,dog\n")
    with pytest.raises(TableError, match=r"line 2: no column src_file, and 'plain.ogg' does not name its source"):
        list(datasets.esc50.clips(tmp_path))
    (tmp_path / place).write_text("filename,fold\na.wav,1\n")
    with pytest.raises(
        TableError,
        match="has no column category; its columns are filename, fold; give another layout as --dataset csv",
    ):
        list(datasets.esc50.clips(tmp_path))


def test_another_layout_than_that_of_esc50_names_the_remedy(tmp_path):
    remedy = (
        "name the folder that ESC-50 was unpacked into, or give another layout as --dataset csv TABLE --root FOLDER"
    )
    with pytest.raises(TableError, match=f"neither meta/esc50.csv nor meta.csv; {remedy}"):
        list(datasets.esc50.clips(tmp_path))
    (tmp_path / "meta.csv").write_text("filename,fold,category\n1-2-A.wav,1,dog\n")
    with pytest.raises(TableError, match=f"has no folder audio; {remedy}"):
        list(datasets.esc50.clips(tmp_path))
    make(tmp_path, "audio/1-2-A.wav")
    (tmp_path / "meta.csv").write_text("filename,fold,category\n1-2-A.wav,1,dog\n,2,cat\n")
    with pytest.raises(TableError, match=r"meta.csv line 3: the filename is empty"):
        list(datasets.esc50.clips(tmp_path))


def test_esc50_as_a_spreadsheet_saved_it(tmp_path):
    make(tmp_path, "audio/1-2-A.wav")
    (tmp_path / "meta.csv").write_text('sep=;\n;;;\n"Filename";FOLD;Category;\n1-2-A.wav;1;;\n;;;\n', "utf-16")
    wanted = Clip("1-2-A.wav", tmp_path / "audio/1-2-A.wav", recording="2", split="1")
    assert list(datasets.esc50.clips(tmp_path)) == [wanted], "an empty category says nothing"


def test_a_table_as_a_spreadsheet_saved_it(tmp_path):
    text = '\r\n;;;\r\n"Path";LABEL;Start;End;\r\na.wav;"dog; cat";1,5;4,25;\r\n;;;;\r\n'
    (tmp_path / "t.csv").write_bytes(text.encode("utf-16"))
    clip = Clip("a.wav@1.5-4.25", tmp_path / "a.wav", 1.5, 4.25, ("dog", "cat"), "a.wav")
    assert list(datasets.table.clips(tmp_path / "t.csv")) == [clip]
    (tmp_path / "t.csv").write_bytes(b"path,end\na\xff.wav,inf\n")
    assert [os.fsencode(clip.key) for clip in datasets.table.clips(tmp_path / "t.csv")] == [b"a\xff.wav"]


def test_the_layout_names_every_header(tmp_path):
    for column in (*datasets.table.PATH, *datasets.table.CLASS, *datasets.table.SPLIT, "recording", "start", "end"):
        assert column in datasets.DATASETS["csv"]


def test_a_folder_a_class(tmp_path):
    make(tmp_path, "dog/a.wav", "dog/deep/b.wav", "cat/a.wav", "loose.wav")
    assert [(clip.key, clip.classes) for clip in datasets.folders.clips(tmp_path)] == [
        ("cat/a.wav", ("cat",)), ("dog/a.wav", ("dog",)), ("dog/deep/b.wav", ("dog",)), ("loose.wav", None),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["esc50", "csv", "folders"])  # test_collections has the others
def test_every_collection_is_loaded_by_its_name(tmp_path, name):
    make(tmp_path, "audio/1-2-A.wav", "meta.csv")
    (tmp_path / "meta.csv").write_text("filename,fold,category\naudio/1-2-A.wav,1,dog\n")
    assert len(datasets.load(name, tmp_path / "meta.csv" if name == "csv" else tmp_path)) == 1


def test_an_unknown_collection_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no collection is called 'esc5'; there are esc50, csv"):
        datasets.load("esc5", tmp_path)
