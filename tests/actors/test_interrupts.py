"""Ctrl-C as a signal to a program of its own, at every place where something of a system can be."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.interrupted import ACTS, PLACES, STORMS
from tests.sampling import NIGHTLY, SEED

ROUNDS = 200 if NIGHTLY else 2
ENDS_WITHIN_S = 4.0
ANSWERS_WITHIN_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


class Program:
    """The program under test, started when it is needed and again once it has died."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._delays = random.Random(SEED)

    def rounds(self, name: str) -> Counter[str]:
        """How each round ended, `late` when it took longer than the bound."""
        try:
            return Counter(self._round(name) for _ in range(ROUNDS))
        except BaseException:
            self.end()
            raise

    def _round(self, name: str) -> str:
        running = self._running = self._running or self._start()
        assert running.stdin is not None
        running.stdin.write(f"{name}\n".encode())
        running.stdin.flush()
        assert self._line() == "at"
        time.sleep(self._delays.uniform(0.0, 0.004))
        began = time.monotonic()
        os.kill(running.pid, signal.SIGINT)
        ended = self._line()
        while ended == "at":  # the place was reached a second time
            ended = self._line()
        return ended if time.monotonic() - began < ENDS_WITHIN_S else f"{ended}, late"

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.actors.interrupted"]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _line(self) -> str:
        assert self._running is not None
        assert self._running.stdout is not None
        fd, got = self._running.stdout.fileno(), b""
        until = time.monotonic() + ANSWERS_WITHIN_S
        while not got.endswith(b"\n"):
            ready, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"nothing within {ANSWERS_WITHIN_S} s, after {got!r}"
            one = os.read(fd, 1)
            assert one, "the program died"
            got += one
        return got.decode().strip()

    def end(self) -> None:
        """Kills the program."""
        running, self._running = self._running, None
        if running is not None:
            with running:
                running.kill()


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.end()


# Where only checkpoints raise it, nothing ends what never comes to one. A block that turns its own interrupt into
# another error is obeyed.
CASES = [f"{place}: {act}" for place in PLACES for act in ACTS if (place, act) != ("block", "raises at the end")]
AT_CHECKPOINTS = [case for case in CASES if not case.endswith(("spins", "blocks"))]


@pytest.mark.parametrize("case", CASES)
def test_ctrl_c_ends_the_program_as_keyboard_interrupt_wherever_the_users_code_is(program: Program, case: str) -> None:
    assert program.rounds(case) == {"KeyboardInterrupt": ROUNDS}


@pytest.mark.parametrize("storm", [storm for storm in STORMS if storm != "opening_and_closing"])
def test_ctrl_c_ends_the_program_as_keyboard_interrupt_whatever_the_framework_does(
    program: Program, storm: str
) -> None:
    assert program.rounds(storm) == {"KeyboardInterrupt": ROUNDS}


def test_ctrl_c_while_systems_are_opened_and_closed_always_ends_the_program(program: Program) -> None:
    """Python may raise it between the call of `__aexit__` and its await, in the frame of the block: then no async
    context manager gets to its end, and trio ends the run with TrioInternalError."""
    outcomes = program.rounds("opening_and_closing")
    assert outcomes["KeyboardInterrupt"] >= 0.9 * ROUNDS - 1
    assert set(outcomes) <= {"KeyboardInterrupt", "TrioInternalError"}


def test_ctrl_c_at_checkpoints_alone_always_closes_a_system(program: Program) -> None:
    assert program.rounds("opening_and_closing, at checkpoints") == {"KeyboardInterrupt": ROUNDS}


@pytest.mark.parametrize("case", AT_CHECKPOINTS)
def test_ctrl_c_at_checkpoints_alone_ends_the_program_as_keyboard_interrupt(program: Program, case: str) -> None:
    assert program.rounds(f"{case}, at checkpoints") == {"KeyboardInterrupt": ROUNDS}


def test_a_block_that_replaces_its_own_interrupt_is_obeyed(program: Program) -> None:
    assert program.rounds("block: raises at the end") == {"ValueError": ROUNDS}
