"""The command line in processes of its own, each forked from one that has loaded the package: loading takes seconds.

A run that is given variables which libraries read while they are loaded gets a process of its own from the start.
Makefiles take `python program.py SOCKET` as the program, and as the interpreter of their scripts: it hands its words,
folder, variables and streams over.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
# What a forked process still takes up; the second line is what torchrun tells each of its processes.
READ_LATE = {"CUDA_VISIBLE_DEVICES", "PYTHONPATH", "PYTEST_CURRENT_TEST"}
READ_LATE |= {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
SECONDS = 120  # a run that takes longer is ended


class Outcome(NamedTuple):
    """Hold what a run of the command line gave."""

    status: int
    stdout: str
    stderr: str


class Running:
    """Hold a run of the command line that goes on by itself, in a process group of its own."""

    def __init__(self, words: list[str], cwd: str, environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        self.stderr = ""
        err, told = os.pipe()
        nothing = os.open(os.devnull, os.O_RDWR)
        self._there = _asked(loaded(), words, cwd, environment, [nothing, nothing, told])
        os.close(nothing), os.close(told)
        self.pid = _number(self._there)
        self._listener = threading.Thread(target=self._listen, args=(err,), daemon=True)
        self._listener.start()

    def _listen(self, descriptor: int) -> None:
        self.stderr = _drain(descriptor).decode(errors="replace")

    def poll(self) -> int | None:
        """Return the status, None while it goes on."""
        if self.returncode is None and select.select([self._there], [], [], 0)[0]:
            self._end()
        return self.returncode

    def send_signal(self, number: int, group: bool = False) -> None:
        """Send a signal to the process, or to it and all that it started; where it has ended already, to nobody."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> int:
        """Return the status once it has ended, and all that it said is in `stderr`; kill it where that takes long."""
        if self.returncode is None:
            if not select.select([self._there], [], [], SECONDS)[0]:
                self.send_signal(signal.SIGKILL, group=True)
            self._end()
        self._listener.join(SECONDS)
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        self.returncode = _number(self._there)
        self._there.close()


def start(*words: object, cwd: Path | None = None, **environment: str) -> Running:
    """Begin a run of the command line; the variables must be such as are not read while the package is loaded."""
    assert set(environment) <= READ_LATE, environment
    wanted = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return Running([str(word) for word in words], str(cwd or os.getcwd()), wanted)


def start_several(count: int, *words: object) -> list[Running]:
    """Begin a run in several processes that work together, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
    return [start(*words, RANK=str(rank), LOCAL_RANK=str(rank), **told) for rank in range(count)]


def run(*words: object, stdin: bytes = b"", cwd: Path | None = None, **environment: str) -> Outcome:
    """Run the command line in a process of its own."""
    wanted = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    arguments = [str(word) for word in words]
    if _early(wanted) == _early(os.environ) and hasattr(os, "fork"):
        status, out, err = _run(arguments, stdin, str(cwd or os.getcwd()), wanted)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "soundssl", *arguments], input=stdin, capture_output=True, cwd=cwd, env=wanted,
            timeout=SECONDS,
        )  # fmt: skip
        status, out, err = done.returncode, done.stdout, done.stderr
    return Outcome(status, out.decode(errors="replace"), err.decode(errors="replace"))


def for_makefiles() -> str:
    """Return the program as a Makefile takes it, for rules that give it no variables of their own."""
    return f"{sys.executable} -S {__file__} {loaded()}" if hasattr(os, "fork") else f"{sys.executable} -m soundssl"


def for_scripts() -> str:
    """Return the interpreter as a Makefile takes it, for rules that name a script: it has the package loaded."""
    return for_makefiles() if hasattr(os, "fork") else sys.executable


@functools.cache
def loaded() -> str:
    """Start the process that has loaded the package, in the environment of now; return the path of its socket."""
    path = os.path.join(tempfile.mkdtemp(), "soundssl")
    there = socket.socket(socket.AF_UNIX)
    there.bind(path)
    there.listen(16)
    alive, held = os.pipe()  # closed when this process ends, however it ends
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT), str(Path(__file__).parent)]!r}; import program; program.serve({{}})"
    )
    numbers = [there.fileno(), alive]
    words = [sys.executable, "-c", code.format(f"*{numbers}")]
    subprocess.Popen(words, pass_fds=numbers, start_new_session=True)
    there.close(), os.close(alive)
    _HELD.append(held)
    return path


_HELD: list[int] = []


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in READ_LATE}


def _run(words: list[str], stdin: bytes, cwd: str, environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    (given, writer), (out, written), (err, told) = os.pipe(), os.pipe(), os.pipe()
    with _asked(loaded(), words, cwd, environment, [given, written, told]) as there:
        for descriptor in (given, written, told):
            os.close(descriptor)
        child = _number(there)
        overdue = threading.Timer(SECONDS, os.kill, (child, signal.SIGKILL))
        feeder = threading.Thread(target=_feed, args=(writer, stdin))
        errors: list[bytes] = []
        listener = threading.Thread(target=lambda: errors.append(_drain(err)))
        for thread in (overdue, feeder, listener):
            thread.start()
        output = _drain(out)
        feeder.join(), listener.join()
        status = _number(there)
        overdue.cancel()
    return status, output, errors[0]


def _asked(path: str, words: list[str], cwd: str, environment: dict[str, str], streams: list[int]) -> socket.socket:
    there = socket.socket(socket.AF_UNIX)
    there.connect(path)
    request = json.dumps([words, cwd, environment]).encode()
    socket.send_fds(there, [len(request).to_bytes(8, "little")], streams)
    there.sendall(request)
    return there


def _send(number: int, there: socket.socket) -> None:
    there.sendall(struct.pack("<q", number))


def _number(there: socket.socket) -> int:
    return struct.unpack("<q", there.recv(8, socket.MSG_WAITALL))[0]


def _feed(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(descriptor, "wb") as stream:
        stream.write(data)


def _drain(descriptor: int) -> bytes:
    with open(descriptor, "rb") as stream:
        return stream.read()


def serve(number: int, alive: int) -> None:
    """Load the package, then fork a run for every request at a socket, until the process that asked for this ends."""
    import soundssl

    for module in pkgutil.walk_packages(soundssl.__path__, "soundssl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("torch._dynamo")  # takes a second of the first step of any optimiser
    for name in _loaded_by(["info", "/nothing/there"]):
        importlib.import_module(name)
    gc.collect(), gc.freeze()  # no forked process walks, and so copies, what was loaded
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    there = socket.socket(fileno=number)
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # what wakes the loop is the byte that Python writes
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([there, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _tell_those_that_ended(running)
        if there not in ready:
            continue
        connection, _ = there.accept()
        head, streams, _, _ = socket.recv_fds(connection, 8, 3)
        length = int.from_bytes(head, "little")
        request = connection.recv(length, socket.MSG_WAITALL)
        if not length or len(request) < length:  # whoever asked was killed; others go on asking
            for stream in streams:
                os.close(stream)
            connection.close()
            continue
        child = os.fork()
        if not child:
            signal.set_wakeup_fd(-1), signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (there, woken, wakes, connection, *running.values()):
                each.close()
            os.close(alive)
            _become(*json.loads(request), streams)
        for stream in streams:
            os.close(stream)
        running[child] = connection
        with contextlib.suppress(OSError):  # whoever asked may have been killed
            _send(child, connection)


def _loaded_by(words: list[str]) -> list[str]:
    """Return the modules that are loaded only while a command line is read, as what it is read with loads them."""
    read, write = os.pipe()
    if not os.fork():
        os.close(read)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        before, sys.argv = set(sys.modules), ["soundssl", *words]
        from soundssl.__main__ import main

        with contextlib.suppress(SystemExit):
            main()
        os.write(write, json.dumps(sorted(set(sys.modules) - before)).encode())
        os._exit(0)
    os.close(write)
    names = json.loads(_drain(read))
    os.wait()
    return names


def _tell_those_that_ended(running: dict[int, socket.socket]) -> None:
    while running:
        child, ended = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with running.pop(child) as connection, contextlib.suppress(OSError):  # as above
            _send(os.waitstatus_to_exitcode(ended), connection)


def _end_with(alive: int) -> None:
    os.read(alive, 1)
    os._exit(0)


def _become(words: list[str], cwd: str, environment: dict[str, str], streams: list[int]) -> NoReturn:
    """Run the command line in this process, as if it had been started with these words, streams and surroundings."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (until the process ends)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    script = bool(words) and words[0].endswith(".py")  # no command ends so
    sys.argv = words if script else [str(ROOT / "soundssl" / "__main__.py"), *words]
    from soundssl.__main__ import main

    status: object = 0
    try:
        if script:
            path = Path(words[0]).absolute()
            sys.path.insert(0, str(path.parent))
            runpy.run_path(str(path), run_name="__main__")
        else:
            main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown(), atexit._run_exitfuncs()  # all that Python does at an end, but for taking modules apart
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    with _asked(sys.argv[1], sys.argv[2:], os.getcwd(), dict(os.environ), [0, 1, 2]) as server:
        _number(server)
        ended_with = _number(server)
    sys.exit(ended_with if ended_with >= 0 else 128 - ended_with)
