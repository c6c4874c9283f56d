"""Worker processes for tasks that may crash or hang: a dead worker is one failed task, never a failed run."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

# BLAS threads of several workers fight for the same cores, and spinning ones count as work.
PINNED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Without these, glibc gives every block of sound back to the system and faults its pages in again for the next: a
# quarter of the CPU time of log-mel from WAV, measured. They bound what a process keeps, in bytes.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 26), "MALLOC_TRIM_THRESHOLD_": str(1 << 26)}


BUNDLE = 0.1  # seconds that a worker goes on before it answers: waking another process takes as long as a short clip
MOST = 64  # tasks in a bundle
SHARES = 3  # bundles a worker that what is left is for, at the least: at the end nobody waits long for another


class WorkerDied(Exception):
    """The worker that held a task crashed or, where it was `late`, ran out of time."""

    late = False


def cores() -> int:
    """Return the number of cores that this process may use, as the scheduler or the control group says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    tasks: list[Any]
    size: int = 1  # tasks to give it next
    begun: float | None = None  # when it took its tasks, None while it still starts


@dataclass
class _Raised:
    error: Exception


class _Tasks:
    """Hand out tasks in order; those that come back go first, one at a time where one of them may kill a worker."""

    def __init__(self, tasks: Iterable[Any], jobs: int) -> None:
        self.new = collections.deque(tasks)
        self.back, self.suspects = collections.deque[Any](), collections.deque[Any]()
        self.shares = SHARES * jobs

    def take(self, count: int) -> list[Any]:
        """Return the next tasks, `count` at the most."""
        if self.suspects:
            return [self.suspects.popleft()]
        bundle = [self.back.popleft() for _ in range(min(len(self.back), count))]
        return bundle or [self.new.popleft() for _ in range(min(count, -(-len(self.new) // self.shares)))]

    def give_back(self, tasks: list[Any], suspect: bool) -> None:
        """Put tasks before all others."""
        (self.suspects if suspect else self.back).extendleft(reversed(tasks))


def _serve(pipe: Connection, prepare: Callable[[int], Callable], number: int) -> None:
    """Answer tasks until the parent hangs up; an exception of the work's own is the parent's to raise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _hush_libraries()
    try:
        work = prepare(number)
    except Exception as error:
        pipe.send([_Raised(error)])
        return
    try:
        pipe.send([])  # ready: from here on the clock runs
        while True:
            pipe.send(_answers(work, pipe.recv()))
    except (EOFError, ConnectionError):  # reset: it was killed with an answer unread
        sys.stderr.flush()
        os._exit(0)  # all that it did is told; to take an interpreter apart takes as long as twenty clips
    except Exception as error:  # an answer that cannot be pickled
        pipe.send([_Raised(error)])


def _answers(work: Callable[[Any], Any], tasks: list[Any]) -> list[Any]:
    """Answer as many of the tasks as its time allows, one at least; the others are for whoever is free first."""
    begun, found = time.monotonic(), []
    for task in tasks:
        try:
            found.append(work(task))
        except Exception as error:
            return [*found, _Raised(error)]
        if time.monotonic() - begun > BUNDLE:
            break
    return found


def _hush_libraries() -> None:
    """Send what codecs written in C print on standard error to nowhere; Python's own messages still come through."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def run(
    prepare: Callable[[int], Callable[[Any], Any]], tasks: Iterable[Any], jobs: int, timeout: float | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yield (task, answer) as answers come; the answer is a WorkerDied where the worker crashed or hung.

    Short tasks are given and answered in bundles.
    `prepare(number)` runs once in each worker process and returns the function that answers a task; both must be
    picklable. Workers are spawned, not forked. `timeout` is in seconds a task. An exception that `prepare` or the
    function raises ends the run; ChildProcessError where a worker cannot even start.
    """
    context = multiprocessing.get_context("spawn")
    waiting, numbers = _Tasks(tasks, jobs), iter(range(1 << 30))
    workers: list[_Worker] = []
    idle: list[_Worker] = []  # others may give back what they have no time for

    def employ(worker: _Worker | None) -> None:
        """Give the next tasks to `worker`, or to a new one; with none left, let it wait."""
        tasks = waiting.take(worker.size if worker else 1)
        if not tasks:
            idle.extend([worker] if worker else [])
            return
        if worker is None:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, prepare, next(numbers)), daemon=True)
            with _pinned(), _sheltered():
                process.start()
            theirs.close()
            worker = _Worker(process, ours, tasks)
        elif worker.begun is not None:
            worker.begun = time.monotonic()
        worker.tasks = tasks
        workers.append(worker)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died, and is found dead next
            worker.pipe.send(tasks)

    try:
        for _ in range(jobs):
            employ(None)
        while workers:
            yield from _collect(workers, timeout, employ, waiting)
            for _ in range(len(idle)):
                worker = idle.pop(0)
                employ(worker if worker.process.is_alive() else None)  # no task is to blame for a death before it
        for worker in idle:
            worker.pipe.close()
        for worker in idle:
            worker.process.join(timeout=5)
    finally:
        for worker in workers + idle:
            worker.process.kill()
            worker.process.join()


def _collect(workers: list[_Worker], timeout: float | None, employ, waiting: _Tasks) -> Iterator[tuple[Any, Any]]:
    """Yield what has come in, and give every free worker its next tasks."""
    ready = wait([worker.pipe for worker in workers], timeout=1.0)
    for worker in list(workers):
        taken = 0.0 if worker.begun is None else time.monotonic() - worker.begun
        late = timeout and taken > timeout + (BUNDLE if len(worker.tasks) > 1 else 0)  # the last begins after so long
        if worker.pipe in ready or (late and worker.pipe.poll()):  # or has answered while others were heard
            answers = _receive(worker)
            if worker.begun is None:
                worker.begun = time.monotonic()
                continue
        elif late:
            worker.process.kill()
            worker.process.join()
            answers = WorkerDied(f"its decoder took longer than {timeout:g} s")
            answers.late = True
        else:
            continue
        tasks, died = worker.tasks, isinstance(answers, WorkerDied)
        if isinstance(answers, WorkerDied):  # which of several killed it shows when each has a worker of its own
            answers = [answers] if len(tasks) == 1 else []
        worker.size = max(1, min(MOST, 2 * worker.size, int(len(answers) * BUNDLE / max(taken, 1e-6))))
        workers.remove(worker)
        waiting.give_back(tasks[len(answers) :], suspect=died)
        employ(None if died else worker)
        for task, answer in zip(tasks, answers, strict=False):
            if isinstance(answer, _Raised):
                raise answer.error
            yield task, answer


def _receive(worker: _Worker) -> list[Any] | WorkerDied:
    """Receive answers; a WorkerDied where the worker is dead. Raise what kept it from beginning."""
    try:
        answers = worker.pipe.recv()
    except (EOFError, OSError):  # one of them also where it was killed in the middle of an answer
        worker.process.join()
        code = worker.process.exitcode
        how = f"crashed (signal {-code})" if code < 0 else f"exited ({code})"
        if worker.begun is None:
            raise ChildProcessError(f"a worker process {how} before it could begin") from None
        return WorkerDied(f"its decoder {how}")
    if worker.begun is None and answers:
        raise answers[0].error
    return answers


@contextlib.contextmanager
def _sheltered() -> Iterator[None]:
    """Keep Ctrl-C from children while they start: they inherit the mask, and would die with a traceback each.

    Windows has no such mask.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _pinned() -> Iterator[None]:
    """Give children one BLAS thread each, whatever the parent has, and an allocator that keeps what it will need."""
    given = {**dict.fromkeys(PINNED, "1"), **{name: os.environ.get(name, own) for name, own in ALLOCATOR.items()}}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
