"""Questions in the terminal: what may be typed, and that no answer is lost or asked for twice."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cluster_world import NUMBER, World, make_world, run, write_clusters

from soundssl import files


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made, tmp_path) -> World:
    """Give the world with a folder of one's own for what is written."""
    return made._replace(folder=tmp_path)


def asked(text: str) -> list[int]:
    """Return the clusters asked about, in their order."""
    return [int(number) for number in re.findall(r"question \d+ of \d+, cluster (\d+)", text)]


def test_answers_typed_are_names_numbers_none_and_cannot_tell(world):
    out = world.folder / "spread.h5"
    done = run("label-clusters", world.clusters, "-o", out, "--spread", 1, typed="dog; rain\n2; 1\nnone\n?\n")
    assert done.status == 0 and asked(done.err) == NUMBER.tolist()
    assert "1 dog   2 rain" in done.err and re.search(r"clip \d+\.wav, \d\.\d\d to \d\.\d\d s", done.err)
    label = world.column(out)
    expected = {4: (1, 1), 17: (1, 1), 30: (0, 0), 31: (-1, -1)}
    assert all((label[world.cluster == number] == row).all() for number, row in expected.items())
    assert files.Labels(out).classes == ["dog", "rain"]


def test_what_is_no_answer_is_asked_again_and_u_takes_back(world):
    out = world.folder / "spread.h5"
    typed = ["u", "7", "", "dgo", "u", "dog", "cat", "u", "DOG", "1", "q"]
    done = run("label-clusters", world.clusters, "-o", out, "--spread", 1, typed="\n".join(typed) + "\n")
    for said in ("there is nothing to undo", "there is no class 7 so far", "there is no answer", "undone: dgo, clip"):
        assert said in done.err
    assert asked(done.err) == [4, 17, 4, 17, 30, 17, 30, 31] and "stopped; the same command goes on" in done.err
    assert files.Labels(out).classes == ["dog"] and "dgo" not in Path(f"{out}.answers.csv").read_text()
    assert set(world.cluster[(world.column(out) == 1).any(1)]) == {4, 17, 30}


def test_the_same_command_goes_on_and_asks_nothing_twice(world):
    out = world.folder / "spread.h5"
    words = ["label-clusters", world.clusters, "-o", out, "--order", "random", "--ask", "random", "--seed", 2]
    first, second = run(*words, typed="dog\n"), run(*words, typed="cat\n")
    third = run(*words, typed="1\n2\n")
    assert first.status == second.status == third.status == 0
    order = [*asked(first.err)[:1], *asked(second.err)[:1], *asked(third.err)]
    assert sorted(order) == NUMBER.tolist() and "going on: 2 answers" in third.err
    done = run(*words, typed="")
    assert asked(done.err) == [] and "is up to date" in done.err
    whole = world.folder / "whole.h5"
    run(*words[:2], "--answers", f"{out}.answers.csv", "-o", whole)
    assert (world.column(whole) == world.column(out)).all()
    more = run(*words, "--budget", 2, typed="")  # fewer questions than answers: none is asked, two are spent
    assert asked(more.err) == [] and more.rows()["questions"] == 2


def test_free_answers_are_replaced_and_random_windows_can_be_asked_about(world):
    words = ["label-clusters", world.clusters, "--budget", 2, "-o"]
    done = run(*words, world.folder / "a.h5", "--unanswered", "free", typed="none\n?\ndog\ncat\n")
    assert done.rows()["questions"] == 4 and asked(done.err) == NUMBER.tolist()
    done = run(*words, world.folder / "b.h5", "--random", typed="dog\nnone\n")
    assert done.rows() == {"questions": 2, "labelled_windows": 2} and "question 2 of 2: clip" in done.err


def test_a_torn_line_is_asked_again_and_foreign_answers_are_refused(world):
    out = world.folder / "spread.h5"
    journal = Path(f"{out}.answers.csv")
    run("label-clusters", world.clusters, "-o", out, typed="dog\ncat\n")
    journal.write_bytes(journal.read_bytes()[:-2])
    done = run("label-clusters", world.clusters, "-o", out, typed="rain\nq\n")
    assert asked(done.err) == [17, 30] and files.Labels(out).classes == ["dog", "rain"]
    other = world.folder / "other.h5"
    write_clusters(other, np.roll(world.cluster, 5), world.similarity)
    journal.write_text(journal.read_text().replace("\n4,", "\n17,").replace("\n17,", "\n31,", 1))
    refused = run("label-clusters", world.clusters, "-o", out, typed="")
    assert refused.status == 1 and re.search(r"answers\.csv line 2: .* it keeps the answers to other", refused.err)


def test_without_any_answer_nothing_is_written(world):
    done = run("label-clusters", world.clusters, "-o", world.folder / "spread.h5", typed="")
    assert done.status == 1 and "no question was answered" in done.err
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize(("end", "left_by"), [("\x03", 130), (None, -signal.SIGKILL)], ids=["Ctrl-C", "SIGKILL"])
def test_stopped_at_the_terminal_it_loses_no_answer(world, end, left_by):
    out = world.folder / "spread.h5"
    command = [sys.executable, "-m", "soundssl", "label-clusters", str(world.clusters), "-o", str(out)]

    def converse(answers: list[str], end: str | None) -> tuple[int, str]:
        """Answer prompt after prompt on a terminal; type `end` at the last one, or kill it there."""
        here, there = pty.openpty()
        process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, start_new_session=True,
                                   preexec_fn=_take_terminal)  # fmt: skip
        os.close(there)
        seen, left = "", [*(answer + "\n" for answer in answers), end]
        with contextlib.suppress(OSError):  # Linux says so when the other side closes
            while chunk := os.read(here, 4096):
                seen += chunk.decode()
                if seen.rstrip().endswith("q stop:") and left:
                    if typed := left.pop(0):
                        os.write(here, typed.encode())
                    else:
                        process.kill()
                    seen += "\n"
        os.close(here)
        return process.wait(timeout=60), seen

    status, first = converse(["dog", "cat"], end)
    assert status == left_by and not out.exists() and asked(first) == NUMBER[:3].tolist()
    status, second = converse(["1"], "rain\n")
    assert status == 0 and asked(second) == NUMBER[2:].tolist()
    assert files.Labels(out).classes == ["dog", "cat", "rain"]
    assert re.search(r"labelled_windows\s+90\.000", second)  # a table, on a terminal


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
