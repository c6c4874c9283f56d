"""Worker processes for tasks that may crash or hang: a dead worker is one failed task, never a failed run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

# BLAS threads of several workers fight for the same cores, and spinning ones count as work.
PINNED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerDied(Exception):
    """The worker that held a task crashed or ran out of time."""


def cores() -> int:
    """Return the number of cores that this process may use, as the scheduler or the control group says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    task: Any = None
    begun: float = 0.0


def _serve(pipe: Connection, prepare: Callable[[int], Callable], number: int) -> None:
    """Answer tasks until the parent hangs up."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    work = prepare(number)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(work(pipe.recv()))


def run(
    prepare: Callable[[int], Callable[[Any], Any]], tasks: Iterable[Any], jobs: int, timeout: float | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yield (task, answer) as answers come; the answer is a WorkerDied where the worker crashed or hung.

    `prepare(number)` runs once in each worker process and returns the function that answers a task; both must be
    picklable. Workers are spawned, not forked. `timeout` is in seconds a task.
    """
    context = multiprocessing.get_context("spawn")
    waiting, numbers = iter(tasks), iter(range(1 << 30))
    workers: list[_Worker] = []

    def begin() -> _Worker:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, prepare, next(numbers)), daemon=True)
        with _pinned():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def give(worker: _Worker) -> bool:
        task = next(waiting, None)
        if task is None:
            return False
        worker.task, worker.begun = task, time.monotonic()
        worker.pipe.send(task)
        return True

    try:
        for task in waiting:
            worker = begin()
            worker.task, worker.begun = task, time.monotonic()
            worker.pipe.send(task)
            workers.append(worker)
            if len(workers) >= jobs:
                break
        while workers:
            yield from _collect(workers, timeout, begin, give)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def _collect(workers: list[_Worker], timeout: float | None, begin, give) -> Iterator[tuple[Any, Any]]:
    """Yield what has come in, and give every free worker its next task."""
    ready = wait([worker.pipe for worker in workers], timeout=1.0)
    for worker in list(workers):
        answer: Any = None
        if worker.pipe in ready:
            try:
                answer = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join()
                code = worker.process.exitcode
                answer = WorkerDied(
                    f"its decoder crashed (signal {-code})" if code < 0 else f"its worker exited ({code})"
                )
        elif timeout and time.monotonic() - worker.begun > timeout:
            worker.process.kill()
            worker.process.join()
            answer = WorkerDied(f"its decoder took longer than {timeout:g} s")
        else:
            continue
        task, dead = worker.task, isinstance(answer, WorkerDied)
        workers.remove(worker)
        follower = begin() if dead else worker
        if give(follower):
            workers.append(follower)
        else:
            follower.pipe.close()
            follower.process.join(timeout=5)
        yield task, answer


@contextlib.contextmanager
def _pinned() -> Iterator[None]:
    """Give children one BLAS thread each, whatever the parent has."""
    before = {name: os.environ.get(name) for name in PINNED}
    os.environ.update(dict.fromkeys(PINNED, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
