"""What is not ours stays whole: devices, pipes, links, folders and files of others beside an output."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest

from soundssl import SoundsslError, files
from soundssl.commands import terminal
from soundssl.files.outputs import Unusable, guard, replace
from soundssl.files.spooling import JOURNAL, Store, spool_folder


def write(path, through=False, content=b"made"):
    with replace(path, through=through) as partial:
        partial.write_bytes(content)


@pytest.fixture
def null(tmp_path):
    """Make a device that takes everything, as /dev/null is one; skip where this user may not."""
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.write_bytes(b"")
    except PermissionError:
        pytest.skip("only root makes devices")
    return path


def test_a_device_is_written_through_or_refused_and_stays_one(null, tmp_path):
    write(null, through=True)
    for call in (lambda: write(null), lambda: guard(null, no_clobber=False)):
        with pytest.raises(
            Unusable, match="null is a device, which a file of this kind cannot be written to; name a file"
        ):
            call()
    guard(null, no_clobber=False, through=True)
    assert stat.S_ISCHR(os.stat(null).st_mode) and os.listdir(tmp_path) == ["null"]


def test_a_full_device_is_said_to_be_full():
    with pytest.raises(OSError, match="No space left"):
        write("/dev/full", through=True)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_pipe_is_written_through(tmp_path):
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    files.write_matrix(path, (2, 2), "float32", iter([np.eye(2, dtype="f4")]))
    reader.join(10)
    assert found[0].startswith(b"\x93NUMPY") and os.listdir(tmp_path) == ["pipe"]
    with pytest.raises(Unusable, match="pipe is a pipe"):
        guard(path, no_clobber=False)


def test_a_socket_is_refused(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(Unusable, match="is a socket"):
            write(path, through=True)


@pytest.mark.parametrize("words", [("evaluate", "retrieval"), ("embed",), ("sample-triplets",)])
def test_commands_leave_a_device_alone(words, toy, null, soundssl):
    inputs = {"evaluate": ("--labels", toy.labels), "embed": ("-m", toy.features), "sample-triplets": ()}[words[0]]
    done = soundssl(*words, toy.features, *inputs, "-o", null)
    assert done.status == (0 if words[0] == "evaluate" else 2), done.stderr
    assert stat.S_ISCHR(os.stat(null).st_mode) and os.listdir(null.parent) == ["null"]


def test_links_beside_an_output_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    victim.chmod(0o600)
    for name in ("a.h5.partial", "a.h5.00000000.partial", "a.h5.lock"):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises(SoundsslError, match=r"a\.h5\.lock is a symbolic link; remove it"):
        write(tmp_path / "a.h5")
    (tmp_path / "a.h5.lock").unlink()
    write(tmp_path / "a.h5")
    assert victim.read_text() == "mine" and stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.h5.00000000.partial", "a.h5.partial", "victim"]


def test_what_a_killed_run_left_is_cleared_and_what_others_left_is_not(tmp_path):
    for name in ("a.h5.0123abcd.partial", "a.h5.mine.partial", "b.h5.0123abcd.partial", "a.h5.partial"):
        (tmp_path / name).write_text("left")
    write(tmp_path / "a.h5")
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.h5.mine.partial", "a.h5.partial", "b.h5.0123abcd.partial"]


def test_two_writers_of_one_output_never_meet(tmp_path):
    with replace(tmp_path / "a.h5") as partial:
        partial.write_text("first")
        with pytest.raises(SoundsslError, match=r"another run is writing .*a\.h5"):
            threading_write(tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "first"


def threading_write(path):
    """Write as another process would: without what this one holds."""
    held = set(files.outputs.Lock.held_here)
    files.outputs.Lock.held_here.clear()
    try:
        write(path)
    finally:
        files.outputs.Lock.held_here.update(held)


def test_a_name_as_long_as_may_be_is_written(tmp_path):
    path = tmp_path / ("ä" * 126 + ".h5")
    write(path)
    assert path.read_bytes() == b"made" and len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize(
    "content", [{"notes.txt": b"mine"}, {"notes.txt": b"mine", JOURNAL: b"not ours\n"}, {"worker-x": b"mine"}]
)
def test_a_folder_of_somebody_else_is_refused_and_stays(content, tmp_path):
    folder = spool_folder(tmp_path / "a.h5")
    folder.mkdir()
    for name, what in content.items():
        (folder / name).write_bytes(what)
    with pytest.raises(Unusable, match=r"a\.h5\.parts holds .*, and no journal of an interrupted run; move it away"):
        Store(tmp_path / "a.h5", {}, "f4", "x")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert os.listdir(tmp_path) == ["a.h5.parts"]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_or_a_file_in_the_place_of_the_folder_is_refused(kind, tmp_path):
    mine, folder = tmp_path / "mine", spool_folder(tmp_path / "a.h5")
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    folder.symlink_to(mine) if kind == "link" else folder.write_text("mine")
    with pytest.raises(Unusable, match="is in the way, and no folder of an interrupted run"):
        Store(tmp_path / "a.h5", {}, "f4", "x")
    assert (mine / "notes.txt").read_text() == "mine" and os.path.lexists(folder)


def test_of_a_folder_of_ours_only_what_we_wrote_is_removed(tmp_path):
    store = Store(tmp_path / "a.h5", {}, "f4", "x")
    spool = files.Spool(store.folder, "worker-1", "f4")
    (store.folder / "notes.txt").write_text("mine")
    store.discard()
    assert os.listdir(store.folder) == ["notes.txt"] and spool.name.startswith("worker-1-")


@pytest.mark.parametrize("way", ["external", "virtual", "soft link", "external link"])
def test_rows_of_other_files_are_not_fetched(way, toy, tmp_path):
    path, secret = tmp_path / "a.h5", tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 64)
    path.write_bytes(toy.features.read_bytes())
    with h5py.File(path, "r+") as file:
        shape, kind = file["frames"].shape, file["frames"].dtype
        del file["frames" if way in ("external", "virtual") else "images"]
        if way == "external":
            file.create_dataset("frames", shape, kind, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        elif way == "virtual":
            layout = h5py.VirtualLayout(shape, kind)
            layout[:] = h5py.VirtualSource(str(toy.features), "frames", shape)
            file.create_virtual_dataset("frames", layout)
        else:
            file["images"] = (
                h5py.SoftLink("/frames") if way == "soft link" else h5py.ExternalLink(str(toy.features), "frames")
            )
    with pytest.raises(files.FormatError, match=r"fetches (frames|images) .*it is not trusted"):
        files.Features(path)


def test_control_characters_of_names_are_shown_and_not_obeyed(capsys):
    terminal.say("featurize", "a\x1b[2J\x07\u202e.wav: \N{DOG FACE} ä is kept\nas it is")
    assert capsys.readouterr().err == "soundssl featurize: a\\x1b[2J\\x07\\u202e.wav: \N{DOG FACE} ä is kept as it is\n"
    terminal.print_table(["na\tme"], [["\x1b[31mred"]])
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", capsys.readouterr().out)


def test_away_from_a_terminal_long_work_is_told_in_lines(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "SPOKEN", 0.0)
    with terminal.Terminal("train").track("train", 4, "steps") as advance:
        advance(2, "loss 1.5")
        advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("soundssl train: train 3 of 4 steps, ") and lines[-1].endswith(", loss 1.5")
    assert "left " in lines[-1]
    with terminal.Terminal("train", quiet=True).track("train", 4, "steps") as advance:
        advance(4)
    assert capsys.readouterr().err == ""


def test_a_closed_standard_output_is_an_error_where_something_is_to_be_printed(toy):
    command = [sys.executable, "-m", "soundssl"]
    lost = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command, "info", str(toy.features)], capture_output=True, text=True, timeout=60
    )
    assert (lost.returncode, lost.stderr.count("\n")) == (1, 1) and "standard output is closed" in lost.stderr
    silent = [
        "sample-triplets",
        str(toy.features),
        "--count",
        "10",
        "-q",
        "-o",
        str(toy.features.with_name("closed.h5")),
    ]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command, *silent], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_pipe_as_input_is_refused_without_waiting(tmp_path, soundssl):
    os.mkfifo(tmp_path / "pipe")
    for words in (("info",), ("sample-triplets",), ("train",)):
        done = soundssl(*words, tmp_path / "pipe")
        assert done.status == 2 and "is a pipe or a device" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("wait", [0.05, 0.15, 0.3])
def test_an_interrupt_while_the_program_loads_ends_it_quietly(toy, wait):
    program = "import runpy; print('on', flush=True); runpy.run_module('soundssl', run_name='__main__')"
    command = [sys.executable, "-c", program, "info", str(toy.features)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 130) and "Traceback" not in errors
