"""Lists of paths and folders as they come: what a list means however it is written, and no entry that ends a run."""

import errno
import os
import sys

import pytest
from conftest import unprivileged
from test_featurize import call, few, keys, tone  # noqa: F401

from soundssl import datasets, files
from soundssl.commands import options
from soundssl.datasets import lists

LINES = "a.wav\né/b c.wav\n"


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode(),
        LINES.encode("utf-8-sig"),
        LINES.encode("utf-16"),
        b"\xfe\xff" + LINES.encode("utf-16-be"),
        LINES.replace("\n", "\r\n").encode(),
        LINES.replace("\n", "\r\n").encode("utf-16"),
        ("\n \n" + LINES + "\n").encode(),
        LINES.rstrip().encode(),
    ],
)
def test_one_list_however_it_is_written(content):
    assert list(map(str, lists.read(content))) == ["a.wav", "é/b c.wav"]


def test_names_ended_by_nul_hold_anything_else():
    assert list(map(str, lists.read(b"a\nb.wav\0 c.wav\r\0", null=True))) == ["a\nb.wav", " c.wav\r"]
    assert os.fsencode(lists.read(b"\xff\xfeab\n")[0]) == b"\xff\xfeab", "an odd number of bytes is no UTF-16"
    assert lists.read(b"a\nb.wav\0", null=True) == lists.read(b"\xef\xbb\xbfa\nb.wav\0", null=True)


@pytest.mark.parametrize(
    ("content", "null", "fact"),
    [
        (b"a.wav\0b.wav\0", False, "standard input line 1 holds a NUL byte; give -0"),
        (b"a.wav\nb\0.wav\n", False, "standard input line 2 holds a NUL byte; give -0"),
        (LINES.encode("utf-16-le"), False, "line 1 holds a NUL byte; give -0 if paths end with NUL, or write them in"),
        (b"a.wav\nb.wav\n", True, "standard input holds lines and no NUL byte; leave out -0"),
        (LINES.encode("utf-16"), True, "leave out -0"),
    ],
)
def test_a_list_that_is_none_names_the_remedy(content, null, fact, tmp_path, call, monkeypatch):  # noqa: F811
    with pytest.raises(lists.ListError, match=fact):
        lists.read(content, null)
    (tmp_path / "list").write_bytes(content)
    with open(tmp_path / "list") as given:
        monkeypatch.setattr(sys, "stdin", given)
        status, _, error = call("-", *(["-0"] if null else []), "-o", tmp_path / "f.h5")
    assert status == 2 and fact in error and os.listdir(tmp_path) == ["list"]


def test_lines_that_name_nothing_are_skipped_inputs(few, tmp_path, call, monkeypatch):  # noqa: F811
    names = [few / "0.wav", "none.wav", "x" * 5000, few / "0.wav" / "in.wav", few / "nowhere.wav"]
    (tmp_path / "list").write_text("\n".join(map(str, names)))
    monkeypatch.chdir(tmp_path)
    with open(tmp_path / "list") as given:
        monkeypatch.setattr(sys, "stdin", given)
        status, _, error = call("-", "-o", tmp_path / "f.h5")
    assert status == 3 and f": none.wav: does not exist in {tmp_path}; skipped" in error
    absent = f"{few}/0.wav/in.wav: does not exist; skipped, and 1 more for such a reason: {few}/nowhere.wav"
    assert absent in error and "(File name too long); skipped" in error
    assert error.endswith("4 inputs skipped\n") and len(keys(tmp_path / "f.h5")) == 1


def test_what_is_named_and_cannot_be_looked_at_is_there(tmp_path, monkeypatch):
    def denied(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with pytest.raises(files.Missing, match="does not exist; check the path"):
        options.listed([tmp_path / "none.wav"], False)
    monkeypatch.setattr(options.Path, "stat", denied)
    assert options.listed([tmp_path / "a.wav"], False) == [tmp_path / "a.wav"]


def test_a_folder_that_cannot_be_listed_is_one_skipped_input(few, tmp_path):  # noqa: F811
    media = tmp_path / "media"
    (media / "shut").mkdir(parents=True)
    (media / "0.wav").symlink_to(few / "0.wav")
    tone(media / "shut" / "1.wav")
    tone(media / "2.wav")
    (media / "shut").chmod(0)
    tmp_path.chmod(0o777)
    for folder in (few, *few.parents):
        if folder.is_relative_to(tmp_path.parents[1]):
            folder.chmod(0o755)
    done = unprivileged("featurize", media, "-o", tmp_path / "f.h5", "-j", "1")
    fact = f"soundssl featurize: {media / 'shut'}: cannot be read (Permission denied); skipped"
    assert (done.returncode, done.stderr.splitlines()[0]) == (3, fact)
    assert keys(tmp_path / "f.h5") == ["0.wav", "2.wav"]
    (media / "shut").chmod(0o700)


def test_folders_as_deep_as_a_path_is_long(tmp_path):
    depth, place = 0, tmp_path
    while len(os.fspath(place)) < 3000:
        place, depth = place / "d", depth + 1
        place.mkdir()
    (place / "a.wav").touch()
    (tmp_path / "z.wav").touch()
    try:
        assert depth > sys.getrecursionlimit()
        assert [clip.key for clip in datasets.paths([tmp_path])] == ["d/" * depth + "a.wav", "z.wav"]
    finally:  # what clears temporary folders up recurses
        (place / "a.wav").unlink()
        while place != tmp_path:
            place.rmdir()
            place = place.parent


def test_a_folder_beyond_the_longest_path_is_one_entry(tmp_path, monkeypatch):
    name = "n" * 200
    (tmp_path / "z.wav").touch()
    monkeypatch.chdir(tmp_path)
    for _ in range(25):
        os.mkdir(name)
        os.chdir(name)
    os.close(os.open("a.wav", os.O_CREAT | os.O_WRONLY))
    found = [clip.key for clip in datasets.paths([tmp_path])]
    assert len(found) == 2 and found[1] == "z.wav" and set(found[0].split("/")) == {name}
