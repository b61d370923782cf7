"""Programs that fork from one warmed interpreter for each process of the tests, instead of importing everything anew.

For tests whose subject is what a program does, not how it starts: a start costs half a second to a second of imports.
The warmed interpreter has imported what the programs import, and done nothing else. What it forks gets a working
directory, an environment and descriptors of its own, and runs its module or file as `__main__`, to the end of Python.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).resolve().parent.parent
_IMPORTED: Final = (
    "engram.cli",
    "engram.roles.shared",
    "engram.roles.gateway",
    "engram.roles.facilitator",
    "engram.roles.miner",
    "engram.roles.xeris",
)
_MOST_DESCRIPTORS: Final = 16
_MOST_BYTES: Final = 64 * 1024
_FORKED_WITHIN_S: Final = 60.0
_ABOVE: Final = 512
"""Descriptors wait from this number on, or above all that their program expects, until each takes its own."""


_OF_PYTHON: Final = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}


def starts_alike(environ: Mapping[str, str]) -> bool:
    """Return whether Python itself, which is started already, would have read nothing else in this environment."""
    return all(_OF_PYTHON.get(name) == value for name, value in environ.items() if name.startswith("PYTHON"))


class Orders(msgspec.Struct, frozen=True):
    """What a program is started with. `targets` are the numbers of the descriptors that come along, in their order."""

    words: list[str]
    cwd: str
    environ: dict[str, str]
    targets: list[int]
    is_leader: bool


class WarmProgram:
    """A running program, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> None:
        """`words` are those of Python's command line after the interpreter: `-m MODULE …` or `FILE …`.

        Standard input is empty; output goes where this process writes unless a descriptor is named.
        """
        self.args = tuple(words)
        self.returncode: int | None = None
        self._reads = threading.Lock()
        self._status, told = os.pipe()
        with open(os.devnull, "rb") as nothing:
            wanted = {
                0: nothing.fileno(),
                1: 1 if stdout is None else stdout,
                2: 2 if stderr is None else stderr,
                **{each: each for each in pass_fds},
            }
            orders = Orders(
                words=list(words),
                cwd=str(cwd),
                environ=dict(os.environ if env is None else env),
                targets=list(wanted),
                is_leader=start_new_session,
            )
            try:
                self.pid = interpreter().fork(orders, [told, *wanted.values()])
            finally:
                os.close(told)

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended. Raises subprocess.TimeoutExpired."""
        ended = select.poll()
        ended.register(self._status, select.POLLIN)
        if not ended.poll(None if timeout is None else max(0.0, timeout) * 1_000):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        with self._reads:
            if self.returncode is None:
                status = os.read(self._status, 4)
                assert len(status) == 4, "the warmed interpreter ended before its program"
                (self.returncode,) = struct.unpack("i", status)
        return self.returncode

    def __del__(self) -> None:
        os.close(self._status)

    def send_signal(self, number: int) -> None:
        """Signal the program unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class _Interpreter:
    """The warmed interpreter of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asks, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asks.settimeout(_FORKED_WITHIN_S)
        self.number = answers.fileno()
        """The descriptor on which it is asked, as it knows it."""
        with answers:
            os.set_inheritable(answers.fileno(), True)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warmed", str(answers.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=(answers.fileno(),),
            )
        atexit.register(self.close)

    def fork(self, orders: Orders, descriptors: Sequence[int]) -> int:
        """Return the id of a process that runs as ordered."""
        message = msgspec.json.encode(orders)
        assert len(message) <= _MOST_BYTES, "the environment is too long"
        assert len(descriptors) <= _MOST_DESCRIPTORS
        with self._lock:
            socket.send_fds(self._asks, [message], list(descriptors))
            answer = self._asks.recv(32)
        assert answer, "the warmed interpreter has ended"
        return int(answer)

    def close(self) -> None:
        self._asks.close()
        self._process.wait(10)


_running: dict[int, _Interpreter] = {}
_starting = threading.Lock()


def interpreter() -> _Interpreter:
    with _starting:
        mine = os.getpid()
        if mine not in _running:
            _running[mine] = _Interpreter()
        return _running[mine]


def _serve(asks: socket.socket) -> Orders:
    """Fork what is ordered until nobody can ask any more. Returns in each fork alone, with what it is to run."""
    ended = select.poll()
    ended.register(asks, select.POLLIN)
    children: dict[int, tuple[int, int]] = {}
    while True:
        for fd, _ in ended.poll():
            if fd in children:
                ended.unregister(fd)
                pid, told = children.pop(fd)
                _tell(told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(fd)
                continue
            message, descriptors, _, _ = socket.recv_fds(asks, _MOST_BYTES, _MOST_DESCRIPTORS)
            if not message:
                os._exit(0)
            orders = msgspec.json.decode(message, type=Orders)
            told, *given = descriptors
            became, becoming = os.pipe()
            if not (pid := os.fork()):
                asks.detach()  # its object would close whatever has its number by then
                _become(orders, given)  # which closes `becoming`
                return orders
            for each in (becoming, *given):
                os.close(each)
            os.read(became, 1)  # as a Popen returns when its program has begun: whoever asked may change its limits
            os.close(became)
            number = os.pidfd_open(pid)
            children[number] = pid, told
            ended.register(number, select.POLLIN)
            asks.send(str(pid).encode())


def _tell(told: int, status: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(told, struct.pack("i", status))
    os.close(told)


def _become(orders: Orders, given: Sequence[int]) -> None:
    if orders.is_leader:
        os.setsid()
    above = max(_ABOVE, *(target + 1 for target in orders.targets))
    waiting = [fcntl.fcntl(each, fcntl.F_DUPFD, above) for each in given]
    os.closerange(3, above)
    for each, target in zip(waiting, orders.targets, strict=True):
        os.dup2(each, target)
        os.close(each)
    os.chdir(orders.cwd)
    os.environ.clear()
    os.environ.update(orders.environ)
    from engram import kill_points

    importlib.reload(kill_points)  # they are read from the environment once


def _run(words: Sequence[str]) -> None:
    match words:
        case ["-m", module, *arguments]:
            sys.argv[:] = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [path, *arguments]:
            sys.argv[:] = [path, *arguments]
            runpy.run_path(path, run_name="__main__")
        case _:
            raise ValueError(f"these words start nothing: {words}")


if __name__ == "__main__":
    for each in _IMPORTED:
        importlib.import_module(each)
    gc.collect()
    gc.freeze()
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))).words)
