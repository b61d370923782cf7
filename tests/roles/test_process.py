"""The life of a process without a process: what it claims, how it ends, and its exit status."""

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio

from actors import ChildSpec, Context, Intensity, Job, SupervisorSpec
from engram.roles.process import EXIT_CANNOT_START, EXIT_FAILED, EXIT_OK, Process
from tests.crashes import may_crash


class Refused(Exception):
    """What keeps the program of these tests from starting."""


class Program:
    """Notes what happens to it; its one child does as it is told."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.seen: list[str] = []
        self.in_child: BaseException | None = None
        self.on_open: Exception | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SupervisorSpec]:
        if self.on_open is not None:
            raise self.on_open

        async def run(context: Context) -> None:
            if self.in_child is not None:
                raise self.in_child
            context.ready()
            await trio.sleep_forever()

        try:
            yield SupervisorSpec("root", [ChildSpec("child", lambda: Job(run))], intensity=Intensity(0, 1.0))
        finally:
            self.seen.append("closed")

    def started(self) -> None:
        self.seen.append("started")
        os.kill(os.getpid(), signal.SIGTERM)

    def ended(self) -> None:
        self.seen.append("ended")


class Life:
    """One process of these tests."""

    def __init__(self, ready_fd: int | None = None) -> None:
        self.process = Process("this program", (Refused, OSError), ready_fd)
        self.program = Program(self.process)
        self.claim_fails: Exception | None = None

    @contextmanager
    def claimed(self, process: Process) -> Iterator[Program]:
        if self.claim_fails is not None:
            raise self.claim_fails
        self.program.seen.append("claimed")
        yield self.program
        self.program.seen.append("released")

    def live(self) -> int:
        return self.process.live(self.claimed)


def test_a_signal_ends_the_tree_in_order_and_the_claim_is_the_last_thing_given_back() -> None:
    life = Life()
    assert life.live() == EXIT_OK
    assert life.program.seen == ["claimed", "started", "closed", "ended", "released"]


@may_crash(OSError)
@pytest.mark.parametrize("where", ["claim", "open", "start of a child"])
def test_what_keeps_it_from_starting_is_one_line_and_status_2(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    life, error = Life(), OSError("the port is taken")
    match where:
        case "claim":
            life.claim_fails = error
        case "open":
            life.program.on_open = error
        case _:
            life.program.in_child = error
    assert life.live() == EXIT_CANNOT_START
    assert capsys.readouterr().err.splitlines()[-1] == "this program cannot start: the port is taken"


def test_an_error_that_is_no_refusal_is_not_taken_for_one() -> None:
    life = Life()
    life.claim_fails = KeyError("a fault of ours")
    with pytest.raises(KeyError):
        life.live()


def test_a_loss_that_no_restart_mends_ends_the_process_as_failed() -> None:
    life, reports = Life(), list[str]()
    life.program.started = lambda: life.process.fail(lambda: reports.append("lost"))  # type: ignore[method-assign]
    assert life.live() == EXIT_FAILED
    assert reports == ["lost"]
    assert "ended" not in life.program.seen


def test_a_loss_while_the_tree_starts_ends_the_process_too() -> None:
    life, reports = Life(), list[str]()

    class LostAtOnce(Program):
        @asynccontextmanager
        async def opened(self) -> AsyncIterator[SupervisorSpec]:
            self.process.fail(lambda: reports.append("lost"))
            async with super().opened() as tree:
                yield tree

        def started(self) -> None:
            self.seen.append("started")

    life.program = LostAtOnce(life.process)

    async def run() -> int:
        with trio.fail_after(10):
            return await life.process.run(life.program)
        raise AssertionError

    assert trio.run(run) == EXIT_FAILED
    assert reports == ["lost"]


def test_the_ready_line_names_every_url_once() -> None:
    reading, writing = os.pipe()
    life = Life(writing)
    life.process.say_ready(gateway_url="http://127.0.0.1:1", ops_url="http://127.0.0.1:2")
    with os.fdopen(reading, "rb") as pipe:
        line = json.loads(pipe.read())
    assert line == {
        "ready": True,
        "pid": os.getpid(),
        "url": "http://127.0.0.1:1",
        "gateway_url": "http://127.0.0.1:1",
        "ops_url": "http://127.0.0.1:2",
    }
