"""Worker processes: a task that crashes or hangs costs itself alone; what the work itself raises ends the run."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from soundssl.extraction import pool


class Meeting(NamedTuple):
    """Ask a worker to wait for another one."""

    folder: Path


def prepare(note: str | None, number: int):
    """Return a function that squares numbers and does other things when asked."""
    if note == "raise":
        raise PermissionError("the folder cannot be written to")
    if note == "die":
        os._exit(7)

    def work(task):
        if task == "abort":
            os.abort()
        if task == "exit":
            os._exit(5)
        if task == "sleep":
            time.sleep(60)
        if task == "raise":
            raise OSError(28, "No space left on device")
        if task == "environment":
            return [os.environ.get(name) for name in pool.PINNED]
        if isinstance(task, Path):  # an answer too long for a pipe, in whose middle it dies
            while not task.exists():
                time.sleep(0.01)
            threading.Timer(0.3, os._exit, (9,)).start()
            return bytes(1 << 24)
        if isinstance(task, Meeting):
            (task.folder / str(number)).touch()
            while len(list(task.folder.iterdir())) < 2:
                time.sleep(0.01)
        if task == "nap":
            time.sleep(0.3)
        if task == "print":
            os.write(2, b"from C\n")
            print("from Python", file=sys.stderr)
        return number, task

    return work


def test_a_crash_and_a_hang_cost_only_themselves():
    tasks = [1, "abort", 2, "sleep", 3, "exit", 4]
    answers = dict(pool.run(partial(prepare, None), tasks, 2, timeout=1.0))
    assert set(answers) == set(tasks)
    assert {task: answers[task][1] for task in (1, 2, 3, 4)} == {1: 1, 2: 2, 3: 3, 4: 4}
    assert all(isinstance(answers[task], pool.WorkerDied) for task in ("abort", "sleep", "exit"))
    assert str(answers["abort"]) == f"its decoder crashed (signal {signal.SIGABRT.value})"
    assert str(answers["sleep"]) == "its decoder took longer than 1 s"
    assert str(answers["exit"]) == "its decoder exited (5)"


def test_no_more_workers_than_tasks_and_one_serves_many():
    few = list(pool.run(partial(prepare, None), iter(range(2)), 8))
    assert sorted(task for task, _ in few) == [0, 1] and {number for _, (number, _) in few} <= {0, 1}
    many = list(pool.run(partial(prepare, None), range(20), 1))
    assert [task for task, _ in many] == list(range(20)) and {number for _, (number, _) in many} == {0}
    assert list(pool.run(partial(prepare, None), [], 3)) == []


def test_a_worker_that_dies_in_the_middle_of_its_answer_costs_its_task_alone(tmp_path):
    go, answers = tmp_path / "go", {}
    for task, answer in pool.run(partial(prepare, None), [1, go, 2], 2):
        if not answers:
            go.touch()
            time.sleep(1)  # the other one fills its pipe, and dies
        answers[task] = answer
    assert str(answers.pop(go)) == "its decoder exited (9)" and set(answers) == {1, 2}


def test_a_worker_that_has_answered_in_time_is_heard_late():
    answers = []
    for _, answer in pool.run(partial(prepare, None), ["nap"] * 9, 3, timeout=0.6):
        if len(answers) in (0, 3):
            time.sleep(1)  # a terminal that is held: the others answer meanwhile
        answers.append(answer)
    assert len(answers) == 9 and not any(isinstance(answer, pool.WorkerDied) for answer in answers)


def test_no_task_is_blamed_for_a_worker_that_died_idle():
    answers, last = {}, 0

    def shoot():  # by now one sleeps, with other tasks in its bundle, and the one that answered last has nothing to do
        process = sorted(multiprocessing.active_children(), key=lambda process: process.pid)[last]
        os.kill(process.pid, signal.SIGKILL)

    for task, answer in pool.run(partial(prepare, None), [*range(40), "sleep", *range(40, 60)], 2, timeout=2.0):
        if not answers:
            threading.Timer(1.0, shoot).start()
        answers[task] = answer
        last = last if isinstance(answer, pool.WorkerDied) else answer[0]
    died = {task for task, answer in answers.items() if isinstance(answer, pool.WorkerDied)}
    assert len(answers) == 61 and died == {"sleep"}


def test_tasks_behind_one_that_killed_its_worker_are_answered_in_order():
    tasks = [*range(200), "abort", *range(200, 220), "exit", *range(220, 230)]
    answers = list(pool.run(partial(prepare, None), tasks, 1))
    assert [task for task, _ in answers] == tasks, "each once, by one worker after another"
    died = [task for task, answer in answers if isinstance(answer, pool.WorkerDied)]
    assert died == ["abort", "exit"], "and no other is blamed"


def test_what_waits_behind_a_long_task_is_for_whoever_is_free_first(tmp_path):
    tasks = [*[Meeting(tmp_path)] * 2, *range(300), *["nap"] * 8]
    answers = list(pool.run(partial(prepare, None), tasks, 2))
    assert sorted(map(str, (task for task, _ in answers))) == sorted(map(str, tasks))
    shares = [number for _, (number, task) in answers if task == "nap"]
    assert 3 <= shares.count(shares[0]) <= 5, "about a half each, though one held several when they came"


def test_long_tasks_with_long_answers_do_not_fill_both_pipes():
    tasks = [f"{number}{'.' * 20_000}" for number in range(400)]  # a socket takes ten of them, or fewer
    answers = list(pool.run(partial(prepare, None), tasks, 2, timeout=20))
    assert sorted(task for task, _ in answers) == sorted(tasks)
    assert not any(isinstance(answer, pool.WorkerDied) for _, answer in answers)


def test_threads_are_pinned_in_workers_only(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    [(_, found)] = pool.run(partial(prepare, None), ["environment"], 1)
    assert found == ["1", "1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("note", "tasks", "error", "fact"),
    [
        ("raise", [1], PermissionError, "the folder cannot be written to"),
        ("die", [1], ChildProcessError, r"a worker process exited \(7\) before it could begin"),
        (None, ["raise", 1], OSError, "No space left on device"),
    ],
)
def test_what_is_no_fault_of_a_task_ends_the_run(note, tasks, error, fact):
    with pytest.raises(error, match=fact):
        list(pool.run(partial(prepare, note), tasks, 1))


def test_c_libraries_are_hushed_and_python_is_not(capfd):
    list(pool.run(partial(prepare, None), ["print"], 1))
    assert capfd.readouterr().err == "from Python\n"


def test_a_run_that_is_left_leaves_no_process():
    run = pool.run(partial(prepare, None), ["sleep", "sleep", 1], 3)
    assert next(run)[0] == 1
    before = time.monotonic()
    run.close()
    assert time.monotonic() - before < 10
    found = subprocess.run(["ps", "-o", "args", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    assert "spawn_main" not in found or "resource_tracker" in found


def test_the_number_of_cores_is_that_of_this_process():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from soundssl.extraction.pool import cores; print(cores())"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.stdout == "1\n"


WORKERS = """
import os, signal, sys
if __name__ == "__mp_main__":  # what a worker loads before anything of ours runs in it
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    os.write(1, b"sheltered " if blocked else b"open ")

def prepare(number):
    return abs

if __name__ == "__main__":
    from soundssl.extraction import pool
    assert sorted(pool.run(prepare, range(4), 2)) == [(i, i) for i in range(4)]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="a system without signal masks")
def test_no_worker_hears_an_interrupt_while_it_starts(tmp_path):
    """The first one did: with it multiprocessing starts a process that unblocks the signal again."""
    (tmp_path / "program.py").write_text(WORKERS)
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"sheltered"}
