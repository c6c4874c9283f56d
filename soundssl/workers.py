"""Worker processes for tasks that may crash or hang: a dead worker is one failed task, never a failed run."""

from __future__ import annotations

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
    task: Any = None
    begun: float | None = None  # when it took its task, None while it still starts


@dataclass
class _Raised:
    error: Exception


def _serve(pipe: Connection, prepare: Callable[[int], Callable], number: int) -> None:
    """Answer tasks until the parent hangs up; an exception of the work's own is the parent's to raise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _hush_libraries()
    try:
        work = prepare(number)
        pipe.send(None)  # ready: from here on the clock runs
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, ConnectionError):  # reset: it was killed with an answer unread
        return
    except Exception as error:
        pipe.send(_Raised(error))


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

    `prepare(number)` runs once in each worker process and returns the function that answers a task; both must be
    picklable. Workers are spawned, not forked. `timeout` is in seconds a task. An exception that `prepare` or the
    function raises ends the run; ChildProcessError where a worker cannot even start.
    """
    context = multiprocessing.get_context("spawn")
    waiting, numbers = iter(tasks), iter(range(1 << 30))
    workers: list[_Worker] = []

    def employ(worker: _Worker | None) -> None:
        """Give the next task to `worker`, or to a new one; with none left, let it go."""
        for task in waiting:
            if worker is None:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, prepare, next(numbers)), daemon=True)
                with _pinned(), _sheltered():
                    process.start()
                theirs.close()
                worker = _Worker(process, ours)
            elif worker.begun is not None:
                worker.begun = time.monotonic()
            worker.task = task
            workers.append(worker)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died idle, and is found dead next
                worker.pipe.send(task)
            return
        if worker is not None:
            worker.pipe.close()
            worker.process.join(timeout=5)

    try:
        for _ in range(jobs):
            employ(None)
        while workers:
            yield from _collect(workers, timeout, employ)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def _collect(workers: list[_Worker], timeout: float | None, employ) -> Iterator[tuple[Any, Any]]:
    """Yield what has come in, and give every free worker its next task."""
    ready = wait([worker.pipe for worker in workers], timeout=1.0)
    for worker in list(workers):
        if worker.pipe in ready:
            answer = _answer(worker)
            if worker.begun is None:
                worker.begun = time.monotonic()
                continue
        elif timeout and worker.begun is not None and time.monotonic() - worker.begun > timeout:
            worker.process.kill()
            worker.process.join()
            answer = WorkerDied(f"its decoder took longer than {timeout:g} s")
            answer.late = True
        else:
            continue
        task = worker.task
        workers.remove(worker)
        employ(None if isinstance(answer, WorkerDied) else worker)
        yield task, answer


def _answer(worker: _Worker) -> Any:
    """Receive an answer; a WorkerDied where the worker is dead. Raise what the worker raised."""
    try:
        answer = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode
        how = f"crashed (signal {-code})" if code < 0 else f"exited ({code})"
        if worker.begun is None:
            raise ChildProcessError(f"a worker process {how} before it could begin") from None
        return WorkerDied(f"its decoder {how}")
    if isinstance(answer, _Raised):
        raise answer.error
    return answer


@contextlib.contextmanager
def _sheltered() -> Iterator[None]:
    """Keep Ctrl-C from children while they start: they inherit the mask, and would die with a traceback each."""
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
