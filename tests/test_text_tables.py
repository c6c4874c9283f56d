"""Tables as spreadsheets write them: one meaning whatever the coding and ends of lines, or a line that says why not."""

import pytest

from soundssl import tables
from soundssl.tables import TableError

MEANT = [{"path": "a.wav", "class": "dog; cat", "start": "1,5"}, {"path": "b, c.wav", "class": "", "start": "2"}]
PLAIN = 'path,class,start\na.wav,dog; cat,"1,5"\n"b, c.wav",,2\n'


def rows(content: bytes) -> list[dict[str, str]]:
    return [row.cells for row in tables.read(content, "t.csv").rows]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        b'Path;CLASS;"Start"\na.wav;"dog; cat";1,5\nb, c.wav;;2\n',
        b'path\tclass\tstart\na.wav\tdog; cat\t1,5\n"b, c.wav"\t\t2\n',
        b'sep=;\npath;class;start\na.wav;"dog; cat";1,5\n"b, c.wav";;2\n',
        b'"sep=\t"\npath\tclass\tstart\na.wav\tdog; cat\t1,5\nb, c.wav\t\t2',
        b'\n,,,\npath,class,start,,\na.wav,dog; cat,"1,5",,\n\n"b, c.wav",,2\n,,,,\n\n',
        b' path , class , start \n a.wav ,dog; cat, "1,5"\n'.replace(b' "1,5"', b'"1,5"') + b'"b, c.wav",, 2 \n',
    ],
)
def test_one_table_however_it_is_written(content):
    assert rows(content) == MEANT


def test_rows_are_numbered_as_an_editor_numbers_them():
    table = tables.read(b'\npath,class\na,"x\ny"\n\nb,z\n', "t.csv")
    assert [(row.number, row.cells["path"]) for row in table.rows] == [(4, "a"), (6, "b")]
    assert table.rows[0].first(("file", "path")) == "a" and table.rows[0].first(("file",)) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "t.csv is empty; it needs a header"),
        (b"\n\n,,\n", "t.csv is empty"),
        (b"path,class\na.wav,dog,cat\n", "line 2 has 3 cells, its header 2; put a cell with a comma in quotes"),
        (b'path,class\na.wav,"dog\nb.wav,cat\n', "line 2 is no CSV: .*; look for a lone quotation mark"),
        (b'path,class\n"a.wav,dog\n"b.wav",cat\n', "line 2 is no CSV"),
        (b'sep=;\npath;class\na.wav;dog\n\n"b.wav;cat\nc.wav;cat\n', "line 5 is no CSV"),
        (b"path,path\na,b\n", "line 1 has two columns 'path'"),
        (b"path,class\na\xff.wav,dog\n", "line 2 is not UTF-8; save it as CSV in UTF-8"),
        (b"path,class\na\0.wav,dog\n", "line 2 holds a NUL byte"),
    ],
)
def test_what_cannot_be_meant_is_named_with_its_line(content, words):
    with pytest.raises(TableError, match=words):
        tables.read(content, "t.csv")


def test_names_of_files_may_have_bytes_outside_utf8():
    table = tables.read(b"path\na\xff.wav\n", "t.csv", "surrogateescape")
    assert table.rows[0].cells["path"].encode("utf-8", "surrogateescape") == b"a\xff.wav"


@pytest.mark.parametrize(
    "cell", ["=1+1", "'=1", "''@x", "+dog", "-", "-5", "-5.", "@a", "\tb", "dog", "'tis", "", "=", "-1e5"]
)
def test_a_spreadsheet_shows_text_and_the_reader_what_was_meant(cell):
    shown = tables.text_cell(cell)
    assert tables.plain_cell(shown) == cell
    assert shown[:1] not in ("=", "@", "\t") and (shown[:1] not in ("+", "-") or float(shown) == float(cell))
    if cell.strip() == cell and cell:
        assert rows(("head,x\n" + tables.row_text([cell, "y"])).encode())[0]["head"] == cell


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf", "1,2,3", "1.000,5"])
def test_what_is_no_number_is_refused(cell):
    with pytest.raises(ValueError):
        tables.number(cell)
