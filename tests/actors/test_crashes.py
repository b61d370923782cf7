"""A crash that nobody listens for: it is in the log, and a test can fail by it."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import Backoff, ChildSpec, Intensity, Registry, StartFailed, SupervisorSpec, open_system
from actors.testing import Crashes, no_unexpected_crashes, settle
from tests.actors.messages import Add, Boom, Counter, Crash, Ping
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

ROOT = Path(__file__).resolve().parents[2]
MANY = Intensity(1_000_000, 1)


def root(*children: ChildSpec | SupervisorSpec, intensity: Intensity = MANY) -> SupervisorSpec:
    return SupervisorSpec("root", children, intensity=intensity)


async def crash(times: int = 1, *, log_crashes: bool | None = None) -> None:
    """A child that is restarted, so that nothing else shows."""
    registry = Registry()
    options: dict[str, Any] = {} if log_crashes is None else {"log_crashes": log_crashes}
    async with open_system(root(ChildSpec("a", Counter, name="a")), registry=registry, **options):
        for _ in range(times):
            registry.ref(Counter, "a").tell(Crash("why"))
        await settle()


async def test_a_crash_that_nobody_listens_for_is_logged_with_its_traceback(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await crash()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("actors", logging.ERROR)
    assert record.getMessage() == "worker root/a crashed and its supervisor decides: crashed (Boom: why)"
    assert record.exc_info is not None
    assert record.exc_info[0] is Boom
    assert "raise Boom(text)" in caplog.text


async def test_the_log_of_crashes_is_switched_off_by_one_argument(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await crash(log_crashes=False)
    assert caplog.records == []


async def test_a_failed_start_and_who_gives_up_are_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    lives = 0

    class Flaky(Counter):
        async def on_start(self, context: object) -> None:
            nonlocal lives
            lives += 1
            if lives > 1:
                raise Boom("start")

    registry = Registry()
    child = ChildSpec("a", Flaky, name="a", on_exceed="disable", intensity=Intensity(1, 60))
    async with open_system(root(child), registry=registry):
        registry.ref(Flaky, "a").tell(Crash("why"))
        await settle()
    assert [record.getMessage() for record in caplog.records] == [
        "worker root/a crashed and its supervisor decides: crashed (Boom: why)",
        "worker root/a crashed in its start: crashed (Boom: start)",
        "supervisor root leaves root/a, which restarts too often: crashed (Boom: start)",
    ]


async def test_a_storm_of_crashes_is_logged_in_part_and_says_how_much_was_left_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    async with open_system(root(ChildSpec("a", Counter, name="a")), registry=registry):
        ref = registry.ref(Counter, "a")
        for _ in range(500):
            ref.tell(Crash())
        await settle()
        assert len(caplog.records) == 20
        await trio.sleep(1)
        ref.tell(Crash())
        await settle()
        assert caplog.records[-1].getMessage().endswith("(480 crashes before it were not logged)")
        assert len(caplog.records) == 21


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_is_no_crash(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, interrupt: type[BaseException]
) -> None:
    class Ends(Counter):
        async def handle(self, message: object) -> object:
            raise interrupt

    registry = Registry()
    with pytest.raises(interrupt), no_unexpected_crashes() as crashes:
        async with open_system(root(ChildSpec("a", Ends, name="a")), registry=registry):
            registry.ref(Ends, "a").tell(Ping())
            await trio.sleep_forever()
    assert caplog.records == []
    assert crashes.events == []


# --- actors.testing


async def test_a_crash_that_a_restart_hides_fails_the_test(autojump_clock: MockClock) -> None:
    wanted = r"1 unexpected crashes:\n- root/a: crashed \(Boom: why\)"
    with pytest.raises(AssertionError, match=wanted), no_unexpected_crashes():
        await crash()


def test_it_works_around_a_run_of_trio() -> None:
    with pytest.raises(AssertionError, match="2 unexpected"), no_unexpected_crashes():
        trio.run(crash, 2)


async def test_a_failed_start_is_a_crash(autojump_clock: MockClock) -> None:
    def start() -> Counter:
        raise Boom("factory")

    with pytest.raises(AssertionError, match="1 unexpected"), no_unexpected_crashes(), pytest.raises(StartFailed):
        async with open_system(root(SupervisorSpec("sub", [ChildSpec("a", start)]))):
            raise AssertionError("the block must not run")  # pragma: no cover


EXPECTED = [
    (lambda crashes: crashes.expect(Boom), True),
    (lambda crashes: crashes.expect(Exception, path="root/a"), True),
    (lambda crashes: crashes.expect(Boom, path="root/b"), False),
    (lambda crashes: crashes.expect(ValueError), False),
]


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(("expect", "fine"), EXPECTED)
async def test_a_test_says_which_crash_it_expects(
    autojump_clock: MockClock, expect: object, fine: bool, after: bool
) -> None:
    assert callable(expect)

    async def scene() -> None:
        with no_unexpected_crashes() as crashes:
            assert isinstance(crashes, Crashes)
            if not after:
                expect(crashes)
            await crash()
            if after:
                expect(crashes)

    if fine:
        await scene()
    else:
        with pytest.raises(AssertionError, match="unexpected"):
            await scene()


async def test_an_expected_crash_need_not_happen_and_a_failure_of_the_test_comes_out_as_it_is(
    autojump_clock: MockClock,
) -> None:
    with no_unexpected_crashes(Boom):
        pass
    with pytest.raises(ValueError, match="of the test"), no_unexpected_crashes():
        await crash()
        raise ValueError("of the test")


async def test_backoff_hides_no_crash_either(autojump_clock: MockClock) -> None:
    registry = Registry()
    with pytest.raises(AssertionError, match="unexpected"), no_unexpected_crashes():
        async with open_system(root(ChildSpec("a", Counter, name="a", backoff=Backoff(1, 2))), registry=registry):
            registry.ref(Counter, "a").tell(Crash())
            assert await registry.ref(Counter, "a").call(Add(1)) == 1


def test_the_programs_log_each_crash_once() -> None:
    """They have a listener that logs crashes in their own form."""
    openings = 0
    for path in (ROOT / "run.py", *(ROOT / "engram").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "open_system":
                openings += 1
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("log_crashes") == "False", f"{path}:{node.lineno}"
                assert "events" in given, f"{path}:{node.lineno}"
    assert openings == 1
