"""Outputs: whole under their final name or not at all, by one run at a time, and nothing of others is touched."""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import re
import secrets
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, cast
from urllib.parse import quote_from_bytes

import filelock

from soundssl import SoundsslError

UMASK = os.umask(0)
os.umask(UMASK)  # the only way to ask for it is to set it

PARTIAL = re.compile(r"\.[0-9a-f]{8}\.partial$")
LONGEST = 230  # bytes of a name that leave room for what is added while it is written; file systems take 255

PATIENCE = 0.2  # seconds in which a run that is ending may let go of its lock

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # what a disk says that takes no more, or no more of one file

# What asking for a lock says on file systems that have none: network shares, and some that are mounted by a program.
LOCKLESS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class Exists(SoundsslError):
    """The output is there and --no-clobber was given."""

    status = 2


class Unusable(SoundsslError):
    """The output cannot be written there."""

    status = 2


def text(name: str | os.PathLike | bytes) -> str:
    """Return a file name as UTF-8 text, with every byte outside UTF-8 (and `%` beside one) written as %XX.

    >>> text(b"a\\xff.wav")
    'a%FF.wav'
    """
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(raw, safe=bytes(byte for byte in range(128) if byte != 0x25))


def is_special(path: str | os.PathLike) -> bool:
    """Return whether a device, a pipe or a socket stands at a path, also behind a link: what is never replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Give an OSError of a body that names no file the name of the one it writes: a full disk does not say it."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


@contextlib.contextmanager
def telling(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yield a file to write for a library that hides why writing failed; raise the OSError that came first."""
    with open(path, "wb") as file:
        told: list[OSError] = []

        class Stream(io.RawIOBase):
            def writable(self) -> bool:
                return True

            def write(self, data) -> int:
                try:
                    return file.write(data)
                except OSError as error:
                    told.append(OSError(error.errno, error.strerror, os.fspath(path)))
                    raise

        try:
            yield cast(BinaryIO, Stream())
            with naming(path):
                file.flush()
        except Exception as error:
            if told:
                raise told[0] from error
            raise
        finally:
            with contextlib.suppress(OSError):
                file.close()


@contextlib.contextmanager
def replace(path: str | os.PathLike, through: bool = False) -> Iterator[Path]:
    """Yield a fresh file to write, and rename it to `path` when the body succeeds; remove it when it fails.

    It lies beside the output, its name ending in .partial; no other run writes the output meanwhile. Where a device
    or a pipe stands at `path` the content is written to it at the end, if that may be gone `through`, and nothing is
    created beside it. Raises Unusable where it may not, and SoundsslError where another run writes the output.
    """
    final = Path(path)
    if is_special(final):
        refuse_special(final, through)
        with tempfile.TemporaryDirectory() as folder:
            spool = Path(folder) / final.name
            yield spool
            with open(spool, "rb") as made, open(final, "wb") as stream:
                shutil.copyfileobj(made, stream)
        return
    with alone(final, asked=_lock_of(final)[1] not in Lock.held_here):
        for left in final.parent.glob(f"{glob.escape(_stem(final))}.*.partial"):  # by a run that was killed
            if PARTIAL.search(left.name) and not left.is_symlink() and left.is_file():
                left.unlink()
        partial = final.with_name(f"{_stem(final)}.{secrets.token_hex(4)}.partial")
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o600))
        try:
            yield partial
            with open(partial, "r+b") as written:  # Windows settles nothing that is open for reading alone
                sync(written.fileno(), partial)
            os.chmod(partial, 0o666 & ~UMASK)
            os.replace(partial, final)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename == os.fspath(partial):
                error.filename = os.fspath(final)
            if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
                raise OSError(error.errno, error.strerror, os.fspath(final)) from error
            raise


def _stem(path: Path) -> str:
    """Return the name of an output, cut where a file system would not take a longer one."""
    return os.fsdecode(os.fsencode(path.name)[:LONGEST])


def refuse_special(path: Path, through: bool) -> None:
    """Raise Unusable where a device, a pipe or a socket stands at a path, unless content may go through it."""
    mode = os.stat(path).st_mode
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a disk"}
    kind = next((name for holds, name in kinds.items() if holds(mode)), "no regular file")
    if not through or kind in ("a socket", "a disk"):
        raise Unusable(f"{text(path)} is {kind}, which a file of this kind cannot be written to; name a file")


class Lock:
    """Be the only run that writes an output until `release`; `PATH.lock` says so.

    One that a killed run left is taken over. On a file system without locks nobody is refused. Raises SoundsslError
    where another run writes the same output, and where `PATH.lock` is a symbolic link.
    """

    held_here: ClassVar[set[tuple[int, str]]] = set()  # process and path of every lock that is held

    def __init__(self, output: str | os.PathLike) -> None:
        self.path, self.name = _lock_of(output)
        self.held = False
        os.stat(self.path.parent)  # filelock would make a folder that is not there
        self.lock = filelock.FileLock(self.path, timeout=PATIENCE, thread_local=False)
        try:
            with warnings.catch_warnings(action="ignore"):  # of a file system without flock, where a marker takes over
                self.lock.acquire()
        except filelock.Timeout:
            raise SoundsslError(f"another run is writing {text(output)}; let it end, or end it, first") from None
        except OSError as error:
            if self.path.is_symlink():
                raise SoundsslError(f"{text(self.path)} is a symbolic link; remove it") from error
            if error.errno not in LOCKLESS:
                raise
        self.held = True
        self.held_here.add(self.name)

    def release(self) -> None:
        """Let others write the output; remove `PATH.lock`."""
        if self.held:
            self.held = False
            self.held_here.discard(self.name)
            with contextlib.suppress(OSError):  # where an open file cannot be removed, releasing it does it
                self.path.unlink()
            self.lock.release()


def _lock_of(output: str | os.PathLike) -> tuple[Path, tuple[int, str]]:
    """Return the path of an output's lock, and what stands for it in this process."""
    path = Path(output).with_name(_stem(Path(output)) + ".lock")
    return path, (os.getpid(), os.path.abspath(path))


@contextlib.contextmanager
def alone(path: str | os.PathLike, asked: bool = True) -> Iterator[None]:
    """Be the only run that writes `path` while the body runs, if `asked`; see Lock."""
    if not asked:
        yield
        return
    lock = Lock(path)
    try:
        yield
    finally:
        lock.release()


def sync(descriptor: int, name: str | os.PathLike) -> None:
    """Wait until the disk has what was written to a file. Raises OSError with the file's name."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(name)) from error


def guard(path: str | os.PathLike, no_clobber: bool, through: bool = False) -> None:
    """Raise Exists when `path` is there and must not be replaced, and Unusable where nothing can be written to it.

    Devices and pipes are refused unless what is written may go `through` them.
    """
    path = Path(path)
    if is_special(path):
        refuse_special(path, through)
        return
    if no_clobber and path.exists():
        raise Exists(f"{text(path)} exists; leave out --no-clobber to replace it")
    if path.is_dir():
        raise Unusable(f"{text(path)} is a folder; name the file to write in it")
    if not path.parent.is_dir():
        raise Unusable(f"{text(path.parent)} is not a folder; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise Unusable(f"{text(path.parent)} cannot be written to; check its permissions")


def guard_inputs(path: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> None:
    """Raise Unusable when `path` is one of the files that are about to be read."""
    with contextlib.suppress(OSError):
        output = os.stat(path)
        for source in inputs:
            with contextlib.suppress(OSError):
                if os.path.samestat(output, os.stat(source)):
                    raise Unusable(f"{text(path)} is one of the inputs; name another output")
