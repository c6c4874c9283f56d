"""Probe: read an HDF5 file in a child process first, since a damaged one can make the library loop or crash.

What HDF5 stores strings in, and how it lists names, are chains of places in the file. It follows them without a limit
(HDFGroup/hdf5 issue 1707, h5py issue 2088), and no other thread of Python runs meanwhile. So the head of a file that
this process has neither written nor probed is read by a forked child, each step within seconds of CPU time. What the
child does not survive is read by a new process, too, before the file is said to be damaged.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import h5py

from soundssl.files.trust import fetched_from_elsewhere, items

if sys.platform != "win32":  # where nothing forks, nothing is probed
    with contextlib.suppress(ImportError):
        import resource

SECONDS = 2  # of CPU time that one step may take: an attribute, a listing, or a block of strings
PATIENCE = 60.0  # seconds without a step after which a disk is slow, or the child stuck, and the file is not judged
MEMORY = 1 << 29  # bytes that the child may take beside what this process has
BLOCK = 1 << 16  # strings read at a time
RUNAWAY = 2  # the child's status where it ran out of its memory

AFRESH = """
import sys
sys.path[:] = {path!r}
from pathlib import Path
from soundssl.files import probe
probe.SECONDS, probe.MEMORY = {limits!r}
probe._read([Path({name!r})], {told!r})
"""  # what a new process runs

_known: dict[str, tuple[tuple[int, ...], str]] = {}  # what was written or probed here, as it was then, and the fact


def probe(*paths: str | os.PathLike) -> None:
    """Raise ValueError where reading the head of a file makes HDF5 loop, crash or take memory without end.

    Of several files nothing is raised: one child reads them all, and where it fails, each is probed when it is opened.
    A file that was probed or written by this process costs nothing. Where a process cannot fork, nothing is known.
    """
    facts = {path: fact for path in paths if (fact := _fact(path)) is not None}
    unknown = [Path(path) for path in paths if path not in facts]
    if unknown and hasattr(os, "fork"):
        fact = _judged(_ended(*_begun(unknown)))
        if fact and len(unknown) == 1:  # a fork of a process with threads may fail by itself
            fact = _judged(_ended(*_begun_afresh(unknown[0])))
        for path in unknown if len(unknown) == 1 or not fact else []:
            trust(path, fact)
            facts[path] = fact
    if len(paths) == 1 and (fact := "".join(facts.values())):
        raise ValueError(fact)


def trust(path: str | os.PathLike, fact: str = "") -> None:
    """Take a file as it is now for one that need not be probed: this process wrote it, or knows what it comes to."""
    with contextlib.suppress(OSError):
        _known[os.path.abspath(path)] = _identity(path), fact


def _fact(path: str | os.PathLike) -> str | None:
    """Return what reading a file comes to, empty where nothing speaks against it, None where it is not known."""
    identity, fact = _known.get(os.path.abspath(path), ((), ""))
    return fact if identity == _identity(path) else None


def _identity(path: str | os.PathLike) -> tuple[int, ...]:
    about = os.stat(path)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _begun(paths: Sequence[Path]) -> tuple[int, int]:
    """Fork a child that reads the heads of files; return its number, and where it tells of its steps.

    The number is 0 where there is no memory or no process for it.
    """
    beats, told = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, whose locks the child does not need
            child = os.fork()
    except OSError:
        child = 0
    else:
        if not child:
            _read(paths, told)
    os.close(told)
    return child, beats


def _begun_afresh(path: Path) -> tuple[int, int]:
    """Start a new process that reads the head of a file; return its number, and where it tells of its steps."""
    beats, told = os.pipe()
    code = AFRESH.format(path=sys.path, limits=(SECONDS, MEMORY), name=os.fspath(path), told=told)
    try:
        python = sys.executable or ""  # empty where Python is built into another program
        child = os.posix_spawn(python, [python, "-c", code], os.environ, file_actions=_kept(told))
    except OSError:
        child = 0
    os.close(told)
    return child, beats


def _kept(descriptor: int) -> list[tuple]:
    """Let a descriptor stay open in a new process, which is to say nothing."""
    os.set_inheritable(descriptor, True)
    return [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]


def _ended(child: int, beats: int) -> int:
    """Wait for the child and return how it ended; 0 where it stood still, and was killed."""
    status, alive = 0, bool(child)
    try:
        while select.select([beats], [], [], PATIENCE)[0]:
            if not os.read(beats, 1 << 12):
                if alive:
                    _, status = os.waitpid(child, 0)
                    alive = False
                break
        return status
    finally:
        os.close(beats)
        if alive:  # also where this process is interrupted
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _judged(status: int) -> str:
    """Return in words what reading came to, empty where nothing speaks against the file."""
    if os.WIFSIGNALED(status):
        died = os.WTERMSIG(status)
        if died == signal.SIGXCPU:
            return "HDF5 reads it without end"
        return "" if died in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM) else f"HDF5 crashes on it (signal {died})"
    return "HDF5 takes memory for it without end" if os.WEXITSTATUS(status) == RUNAWAY else ""


# --- in the child ---


def _read(paths: Sequence[Path], told: int) -> NoReturn:
    """Read the heads of files and end the process: with status 0 also where it is torn, which its reader will say."""
    status, before = 0, _most()
    try:
        faulthandler.disable()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):
            _limit(resource.RLIMIT_AS, _virtual() + MEMORY)
        if any(_lacks_memory(path, told, before) for path in paths):
            status = RUNAWAY
    finally:
        os._exit(status)


def _lacks_memory(path: Path, told: int, before: int) -> bool:
    """Return whether reading a file takes more memory than it may; what else is wrong there ends that step alone."""
    steps = _steps(path)
    while True:
        _step(told)
        try:
            next(steps)()
        except StopIteration:
            return False
        except Exception as error:
            # HDF5 says in its own words that it got no memory, and may have given back what it had.
            if isinstance(error, MemoryError) or "alloc" in str(error) or _most() > before + MEMORY // 2:
                return True


def _step(told: int) -> None:
    """Give the next step its time, and let the parent know."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(spent.ru_utime + spent.ru_stime) + 1 + SECONDS)
    os.write(told, b".")


def _limit(what: int, soft: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _virtual() -> int:
    """Return the bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _most() -> int:
    """Return the most bytes of memory that this process ever had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _steps(path: Path) -> Iterator[Callable[[], object]]:
    """Yield what reads all that a reader looks at before it takes rows, a step at a time.

    Of strings these are all, of numbers the first row and the last: how their chunks are found.
    """
    with h5py.File(path, "r", locking=False) as file:
        for name in file.attrs:
            yield partial(file.attrs.get, name)
        if fetched_from_elsewhere(path, file):
            return
        for _, item in items(file):
            if not isinstance(item, h5py.Dataset) or not item.shape:
                continue
            strings = h5py.check_string_dtype(item.dtype) is not None
            for first in range(0, len(item), BLOCK if strings else max(1, len(item) - 1)):
                yield partial(item.__getitem__, slice(first, first + (BLOCK if strings else 1)))
