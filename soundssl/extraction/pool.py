"""A pool of processes for tasks that may crash or hang: a dead worker is one failed task, never a failed run."""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any, NamedTuple

# BLAS threads of several workers fight for the same cores, and spinning ones count as work.
PINNED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Without these, glibc gives every block of sound back to the system and faults its pages in again for the next: a
# quarter of the CPU time of log-mel from WAV, measured. They bound what a process keeps, in bytes.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 26), "MALLOC_TRIM_THRESHOLD_": str(1 << 26)}

# Short tasks wait in a worker's pipe, and its answers in the parent's: to wake another process takes as long as a short
# clip. Of one-second recordings this saves a fifth of the CPU time, measured.
HELD = 0.1  # seconds of work that a worker holds
MOST = 64  # tasks that a worker holds
SHARES = 3  # so many times what a worker holds is left for it: at the end nobody waits long for another
PAUSE = 0.02  # seconds for which answers to short tasks gather


class WorkerDied(Exception):
    """The worker that held a task crashed or, where it was `late`, ran out of time."""

    late = False


class _Raised(NamedTuple):
    error: Exception


class _Unanswered:
    """Stand for the answer to a task that waited behind a long one: it is for whoever is free first."""


def cores() -> int:
    """Return the number of cores that this process may use, as the scheduler or the control group says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    prepare: Callable[[int], Callable[[Any], Any]], tasks: Iterable[Any], jobs: int, timeout: float | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yield (task, answer) as answers come; the answer is a WorkerDied where the worker crashed or hung.

    `prepare(number)` runs once in each worker process and returns the function that answers a task; both must be
    picklable. Workers are spawned, not forked. `timeout` is in seconds a task. An exception that `prepare` or the
    function raises ends the run; ChildProcessError where a worker cannot even start.
    """
    waiting, numbers = collections.deque(tasks), itertools.count()
    workers: list[_Worker] = []
    try:
        while True:
            _share_out(waiting, workers, jobs, lambda: _Worker(prepare, next(numbers)))
            busy = [worker for worker in workers if worker.tasks]
            if not busy:
                break
            ready, answers = wait([worker.pipe for worker in busy], timeout=1.0), list[tuple[Any, Any]]()
            if waiting and all(worker.room > 1 for worker in busy):
                time.sleep(PAUSE)
            for worker in busy:
                found = worker.answers(worker.pipe in ready, timeout)
                answers += [(task, answer) for task, answer in found if not isinstance(answer, _Unanswered)]
                back = [task for task, answer in found if isinstance(answer, _Unanswered)]
                if worker.dead:  # the task it was at is to blame; those behind it are not
                    workers.remove(worker)
                    back += worker.tasks
                waiting.extendleft(reversed(back))
            _share_out(waiting, workers, jobs, None)
            for task, answer in answers:
                if isinstance(answer, _Raised):
                    raise answer.error
                yield task, answer
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.process.join(timeout=5)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def _share_out(waiting: collections.deque, workers: list[_Worker], jobs: int, employ: Callable | None) -> None:
    """Give every worker as many of the waiting tasks as it may hold; `employ` makes a worker where one is missing."""
    for worker in list(workers):
        if waiting and not worker.tasks and not worker.process.is_alive():  # no task is to blame for this death
            workers.remove(worker)
    while employ and waiting and len(workers) < jobs:
        workers.append(employ())
        workers[-1].give(waiting.popleft())
    for worker in workers:
        while waiting and worker.takes(1 + len(waiting) // (SHARES * jobs)):
            worker.give(waiting.popleft())


class _Worker:
    """Hold a process and the tasks given to it, the one that it is at first."""

    def __init__(self, prepare: Callable, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, prepare, number), daemon=True)
        with _pinned():
            if hasattr(signal, "pthread_sigmask"):
                resource_tracker.ensure_running()  # where its process is started, Ctrl-C is let through again
            with _sheltered():
                self.process.start()
        theirs.close()
        self.tasks = collections.deque[Any]()
        self.room, self.dead = 1, False
        self.space = select.poll() if hasattr(select, "poll") else None
        if self.space:
            self.space.register(self.pipe, select.POLLOUT)
        self.begun: float | None = None  # when it took the task that it is at, None while it still starts

    def takes(self, most: int) -> bool:
        """Return whether it may be given a task; where its pipe is full, both sides could wait for each other."""
        free = len(self.tasks) < min(most, self.room) and self.space is not None and bool(self.space.poll(0))
        return not self.tasks or free

    def give(self, task: Any) -> None:
        """Send a task."""
        if not self.tasks and self.begun is not None:
            self.begun = time.monotonic()
        self.tasks.append(task)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died, and is found dead next
            self.pipe.send(task)

    def answers(self, ready: bool, timeout: float | None) -> list[tuple[Any, Any]]:
        """Return (task, answer) of what it has answered; where it has died or is late, the last is a WorkerDied."""
        late = self.begun is not None and time.monotonic() - self.begun > (timeout or math.inf)
        found: list[tuple[Any, Any]] = []
        while (ready or late) and self.tasks and not self.dead and self.pipe.poll():  # also while others were heard
            try:
                answer = self.pipe.recv()
            except (EOFError, OSError):  # one of them also where it was killed in the middle of an answer
                answer = self._died()
            if self.begun is not None:
                found.append((self.tasks.popleft(), answer))
            elif isinstance(answer, _Raised):
                raise answer.error
            else:
                self.begun = time.monotonic()
                return []
        answered = sum(not isinstance(answer, _Unanswered) for _, answer in found)
        if answered and self.begun is not None:
            now = time.monotonic()
            self.room = max(1, min(MOST, int(answered * HELD / max(now - self.begun, 1e-6))))
            self.begun = now
        elif late and not found:
            self._end()
            found = [(self.tasks.popleft(), WorkerDied(f"its decoder took longer than {timeout:g} s"))]
            found[0][1].late = True
        return found

    def _end(self) -> None:
        self.dead = True
        self.process.kill()
        self.process.join()

    def _died(self) -> WorkerDied:
        """Return how the process ended; raise ChildProcessError where it could not begin."""
        self.dead = True
        self.process.join()
        code = self.process.exitcode or 0
        how = f"crashed (signal {-code})" if code < 0 else f"exited ({code})"
        if self.begun is None:
            raise ChildProcessError(f"a worker process {how} before it could begin") from None
        return WorkerDied(f"its decoder {how}")


def _serve(pipe: Any, prepare: Callable[[int], Callable], number: int) -> None:
    """Answer tasks until the parent hangs up; an exception of the work's own is the parent's to raise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _hush_libraries()
    try:
        work = prepare(number)
        pipe.send(None)  # ready: from here on the clock runs
        while True:
            task, begun = pipe.recv(), time.monotonic()
            pipe.send(work(task))
            while time.monotonic() - begun > HELD and pipe.poll():
                pipe.recv()
                pipe.send(_Unanswered())
    except (EOFError, ConnectionError):  # reset: it was killed with an answer unread
        sys.stderr.flush()
        os._exit(0)  # all that it did is told; to take an interpreter apart takes as long as twenty clips
    except Exception as error:  # also an answer that cannot be pickled
        pipe.send(_Raised(error))


def _hush_libraries() -> None:
    """Send what codecs written in C print on standard error to nowhere; Python's own messages still come through."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


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
