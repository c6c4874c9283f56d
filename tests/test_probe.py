"""Files that make HDF5 loop, crash or take memory without end are found in a child process and named in one line."""

import os
import resource
import struct
import time
from functools import partial

import h5py
import pytest
from builder import columns, write
from cluster_world import run

from soundssl import files
from soundssl.files import probe

OBJECT = 16  # bytes of the head of an object in a global heap


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Write a labels file, and return its bytes."""
    path = tmp_path_factory.mktemp("heads") / "labels.h5"
    write(path, "labels", columns("labels"))
    return path.read_bytes()


@pytest.fixture
def quick(monkeypatch):
    """Give the child little time and memory."""
    monkeypatch.setattr(probe, "SECONDS", 0)
    monkeypatch.setattr(probe, "MEMORY", 1 << 27)


def number(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def objects(data):
    """Return where the objects of the first global heap begin: what holds the strings of attributes and columns."""
    heap = data.index(b"GCOL\1\0\0\0")
    at, end, found = heap + OBJECT, heap + number(data, heap + 8), []
    while at + OBJECT <= end:
        found.append(at)
        free = struct.unpack_from("<H", data, at)[0] == 0
        at += number(data, at + 8) if free else OBJECT + -(-number(data, at + 8) // 8) * 8
    return found


def free_space_of_no_size(data):
    return objects(data)[-1] + 8, 0


def object_that_ends_where_it_begins(data):
    return objects(data)[0] + 8, 2**64 - OBJECT


def free_list_that_leads_to_itself(data):
    heap = data.index(b"HEAP\0\0\0\0")
    free, block = number(data, heap + 16), number(data, heap + 24)
    return block + free, free


def neighbour_that_is_itself(data):
    tree = data.index(b"TREE\0\0")
    return tree + 16, tree


def changed(good, path, change):
    at, value = change(good)
    path.write_bytes(good[:at] + struct.pack("<Q", value) + good[at + 8 :])
    return path


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (free_space_of_no_size, "reads it without end"),  # h5py issue 2088, HDFGroup/hdf5 issue 1707
        (object_that_ends_where_it_begins, "reads it without end"),
        (free_list_that_leads_to_itself, "(takes memory for it|reads it) without end"),
    ],
)
def test_what_has_no_end_is_named(change, fact, good, quick, tmp_path):
    path = changed(good, tmp_path / "labels.h5", change)
    with pytest.raises(files.FormatError, match=rf"labels\.h5 is damaged: HDF5 {fact}; make it again"):
        files.Labels(path)
    assert files.attributes_of(path) == {}


def test_a_command_ends_with_the_line_and_its_status(good, quick, tmp_path):
    path = changed(good, tmp_path / "labels.h5", free_space_of_no_size)
    done = run("info", path)
    assert done.status == 4 and done.err.count("\n") == 1
    assert done.err.endswith("labels.h5 is damaged: HDF5 reads it without end; make it again\n")


def test_a_list_that_only_sizes_follow_is_not_followed(good, tmp_path):
    path = changed(good, tmp_path / "labels.h5", neighbour_that_is_itself)
    files.Labels(path)  # what it holds is whole
    assert "label" in files.inspect(path)["datasets"]


def test_groups_in_groups_by_many_ways_are_walked_once(good, tmp_path):
    path = tmp_path / "labels.h5"
    path.write_bytes(good)
    with h5py.File(path, "r+") as file:
        group = file.create_group("deep")
        for _ in range(60):
            low = group.create_group("left")
            group["right"] = low
            group = low
        group["up"] = file["deep"]
    files.Labels(path)


def test_a_dataset_made_of_itself_ends(good, quick, tmp_path):
    path = tmp_path / "labels.h5"
    path.write_bytes(good)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(".", "own", (4,))
    with h5py.File(path, "r+") as file:
        file.create_virtual_dataset("own", layout)
    with pytest.raises(files.FormatError, match="fetches own from"):
        files.Labels(path)


def test_a_reader_that_crashes_is_named(good, tmp_path, monkeypatch):
    path = tmp_path / "labels.h5"
    path.write_bytes(good)
    monkeypatch.setattr(probe, "_steps", lambda path: iter([os.abort]))
    assert files.Labels(path).classes, "a fork may fail by itself"
    probe._known.clear()
    monkeypatch.setattr(probe, "AFRESH", "import os; os.abort()")
    with pytest.raises(files.FormatError, match=r"HDF5 crashes on it \(signal 6\)"):
        files.Labels(path)


def test_a_child_that_stands_still_judges_nothing(good, tmp_path, monkeypatch):
    path = tmp_path / "labels.h5"
    path.write_bytes(good)
    monkeypatch.setattr(probe, "_steps", lambda path: iter([partial(time.sleep, 60)]))
    monkeypatch.setattr(probe, "PATIENCE", 0.2)
    assert files.Labels(path).classes


def test_a_file_is_probed_once_and_again_when_it_has_changed(good, tmp_path, monkeypatch):
    path, forks, fork = tmp_path / "labels.h5", [], os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    write(path, "labels", columns("labels"))
    files.Labels(path)  # its own
    assert not forks
    path.write_bytes(good + b"\0")
    files.Labels(path)
    files.Labels(path)
    assert len(forks) == 1


def test_parts_are_probed_together(good, tmp_path, monkeypatch):
    parts, forks, fork = [], [], os.fork
    for i in range(3):
        parts.append(tmp_path / f"{i}.h5")
        some = columns("features")
        some["clip/key"] = [f"{i}-{key}" for key in some["clip/key"]]
        write(parts[-1], "features", some)
        parts[-1].write_bytes(parts[-1].read_bytes())
    monkeypatch.setattr(os, "fork", lambda: forks.append(1) or fork())
    files.join("features", parts, tmp_path / "all.h5")
    assert len(forks) == 1
    assert files.Features(tmp_path / "all.h5").clips.key[0] == f"0-{columns('features')['clip/key'][0]}"


def test_what_has_no_end_among_parts_is_named(good, quick, tmp_path):
    bad = changed(good, tmp_path / "bad.h5", free_space_of_no_size)
    whole = tmp_path / "whole.h5"
    whole.write_bytes(good)
    torn = changed(good, tmp_path / "torn.h5", lambda data: (data.index(b"SNOD"), 0))
    probe.probe(torn, whole, bad)
    with pytest.raises(files.FormatError, match=r"torn\.h5 is damaged"):
        files.Labels(torn)
    with pytest.raises(files.FormatError, match=r"bad\.h5 is damaged: HDF5 reads it without end"):
        files.Labels(bad)
    files.Labels(whole)


def test_no_time_is_lost_on_limits_of_the_parent(good, tmp_path):
    path, before = tmp_path / "labels.h5", resource.getrlimit(resource.RLIMIT_CPU)
    path.write_bytes(good)
    files.Labels(path)
    assert resource.getrlimit(resource.RLIMIT_CPU) == before
