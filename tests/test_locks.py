"""Locks: one run writes an output at a time; what a killed one left behind stands in nobody's way."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from soundssl import SoundsslError, files
from soundssl.files import outputs

HOLD = """
import sys
from soundssl import files
lock = files.Lock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "f.h5"


@pytest.fixture
def other(output):
    """Start another process that holds the lock of the output."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, output], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def left_beside(output):
    return sorted(os.listdir(output.parent))


def test_a_second_run_is_refused_until_the_first_has_ended(output):
    with files.alone(output):
        for _ in range(2):  # being refused changes nothing
            with (
                pytest.raises(SoundsslError, match=f"another run is writing {output}; let it end, or end it, first"),
                files.alone(output),
            ):
                pytest.fail("two runs at once")
        with files.alone(output, asked=False), files.alone(output.with_name("g.h5")):
            pass
    with files.alone(output):
        pass
    assert left_beside(output) == []


def test_the_lock_of_a_killed_run_is_taken_over(output, other):
    with pytest.raises(SoundsslError, match="another run is writing"):
        files.Lock(output)
    other.send_signal(signal.SIGKILL)
    assert other.wait() == -signal.SIGKILL and left_beside(output) == ["f.h5.lock"]
    with files.alone(output):
        assert left_beside(output) == ["f.h5.lock"]
    assert left_beside(output) == []


def test_a_run_that_fails_lets_go(output):
    with pytest.raises(KeyboardInterrupt), files.alone(output):
        raise KeyboardInterrupt
    assert left_beside(output) == []


def test_a_lock_released_twice_takes_it_from_nobody(output):
    first = files.Lock(output)
    first.release()
    second = files.Lock(output)
    first.release()
    with pytest.raises(SoundsslError, match="another run is writing"):
        files.Lock(output)
    second.release()


def test_a_run_that_is_just_ending_is_waited_for(output, monkeypatch):
    monkeypatch.setattr(outputs, "PATIENCE", 30.0)
    first = files.Lock(output)
    timer = threading.Timer(0.1, first.release)
    timer.start()
    with files.alone(output):
        assert not first.held
    timer.join()


def test_a_symbolic_link_is_refused_and_what_it_names_stays(output):
    precious = output.with_name("precious")
    precious.write_text("kept")
    output.with_name("f.h5.lock").symlink_to(precious)
    with pytest.raises(SoundsslError, match=r"f\.h5\.lock is a symbolic link; remove it"):
        files.Lock(output)
    assert precious.read_text() == "kept" and left_beside(output) == ["f.h5.lock", "precious"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_goes_on(output, number, monkeypatch, recwarn):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.alone(output):
        assert left_beside(output) == ["f.h5.lock"]
    assert left_beside(output) == [] and not recwarn.list


def test_a_folder_that_is_not_there_is_not_made(output):
    with pytest.raises(FileNotFoundError, match="none"):
        files.Lock(output.with_name("none") / "f.h5")
    assert left_beside(output) == []
