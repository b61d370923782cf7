"""What children can do to the shell: never a hang, never a sibling hurt, never a lost dead letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    Actor,
    Backoff,
    ChildSpec,
    Context,
    Crashed,
    DrainingJob,
    ExitReason,
    GaveUp,
    Intensity,
    Job,
    MaxChildren,
    Message,
    Registry,
    Restarted,
    StartFailed,
    Stopped,
    SupervisorSpec,
    open_system,
)
from actors._supervision import decide
from actors.testing import Journal, Probe, Recorder, recording, settle
from tests.actors.messages import Add, Boom, Counter, Crash, Leave, Ping, Sleep
from tests.crashes import may_crash

pytestmark = may_crash(Boom)

MANY = Intensity(1_000_000, 1)


class OddError(BaseException):
    """Not an Exception."""


class Raise(Message[None], frozen=True):
    """Raises what `make` makes."""

    make: Callable[[], BaseException]


class Raiser(Actor[Raise | Ping]):
    """Raises what it is sent."""

    async def handle(self, message: Raise | Ping) -> object:
        if isinstance(message, Raise):
            raise message.make()
        return "pong"


ERRORS: dict[str, Callable[[], BaseException]] = {
    "an Exception": lambda: ValueError("x"),
    "a BaseException": lambda: OddError("x"),
    "an ExceptionGroup": lambda: ExceptionGroup("g", [ValueError("x"), KeyError("y")]),
    "a BaseExceptionGroup": lambda: BaseExceptionGroup("g", [OddError("x"), ValueError("y")]),
    "StopIteration": lambda: StopIteration(1),
    "trio.TooSlowError": lambda: trio.TooSlowError(),
    "GeneratorExit": lambda: GeneratorExit(),
    "a group with a GeneratorExit": lambda: BaseExceptionGroup("g", [GeneratorExit(), ValueError("y")]),
}


def root(*children: ChildSpec | SupervisorSpec, **options: Any) -> SupervisorSpec:
    return SupervisorSpec("root", list(children), **{"intensity": MANY, "name": "root", **options})


@may_crash(BaseException)
@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_a_handler_raises_is_a_crash_of_that_actor_alone(autojump_clock: MockClock, error: str) -> None:
    registry = Registry()
    children = [ChildSpec("a", Raiser, name="a"), ChildSpec("b", Counter, name="b")]
    async with open_system(root(*children), registry=registry) as system:
        with recording(system.events) as recorder:
            message = Raise(ERRORS[error])
            registry.ref(Raiser, "a").tell(message)
            assert await registry.ref(Raiser, "a").call(Ping()) == "pong"
            assert await registry.ref(Counter, "b").call(Add(1)) == 1
            assert [letter.message for letter in recorder.dead_letters] == [message]
            assert [event.path for event in recorder.of(Crashed)] == ["root/a"]
            assert system.tree()[2].restarts == 0


@may_crash(BaseException)
@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_a_start_raises_is_a_failed_start(autojump_clock: MockClock, error: str) -> None:
    class Bad(Actor[Ping]):
        async def on_start(self, context: Context) -> None:
            raise ERRORS[error]()  # noqa: RSE102  # a factory of errors

    async with open_system(root()) as system:
        with pytest.raises(StartFailed):
            await system.registry.supervisor("root").start_child(ChildSpec("bad", Bad))
        with pytest.raises(StartFailed):
            await system.registry.supervisor("root").start_child(ChildSpec("bad", _raising(ERRORS[error])))
        assert len(system.tree()) == 1


def _raising(make: Callable[[], BaseException]) -> Callable[[], Actor[Any]]:
    def start() -> Actor[Any]:
        raise make()

    return start


@may_crash(BaseException)
@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_a_stop_hook_raises_the_stop_goes_on(autojump_clock: MockClock, error: str) -> None:
    class Bad(Actor[Ping | Crash]):
        async def handle(self, message: Ping | Crash) -> object:
            if isinstance(message, Crash):
                raise Boom(message.text)
            return "pong"

        async def on_stop(self, reason: ExitReason) -> None:
            raise ERRORS[error]()  # noqa: RSE102  # a factory of errors

    registry = Registry()
    children = [ChildSpec("a", Counter), ChildSpec("b", Bad, name="b"), ChildSpec("c", Counter)]
    async with open_system(root(*children), registry=registry) as system:
        with recording(system.events) as recorder:
            registry.ref(Bad, "b").tell(Crash())
            assert await registry.ref(Bad, "b").call(Ping()) == "pong"
            first = recorder.of(Crashed)[0].reason.error
            assert isinstance(first, Boom), "the crash stays the reason"
            await system.stop()
            assert [event.path for event in recorder.of(Stopped)] == ["root/c", "root/a", "root"]
            assert recorder.of(Crashed)[-1].path == "root/b"


async def test_a_stop_hook_after_a_crash_is_bounded_by_the_shutdown_time(autojump_clock: MockClock) -> None:
    class Slow(Counter):
        async def on_stop(self, reason: ExitReason) -> None:
            await trio.sleep_forever()

    registry = Registry()
    async with open_system(root(ChildSpec("a", Slow, name="a", shutdown=2)), registry=registry) as system:
        with recording(system.events) as recorder:
            began = trio.current_time()
            registry.ref(Slow, "a").tell(Crash())
            assert await registry.ref(Slow, "a").call(Ping()) == "pong"
            assert trio.current_time() - began == pytest.approx(2.0)
            assert isinstance(recorder.of(Crashed)[0].reason.error, Boom)


async def test_a_child_that_ignores_cancellation_for_a_while_is_waited_for(autojump_clock: MockClock) -> None:
    async def stubborn(context: Context) -> None:
        context.ready()
        with trio.CancelScope(shield=True):
            await trio.sleep(30)

    async with open_system(root(ChildSpec("a", lambda: Job(stubborn), shutdown=1), ChildSpec("b", Counter))) as system:
        await settle()
        began = trio.current_time()
        await system.stop()
        assert trio.current_time() - began == pytest.approx(30.0)


async def test_a_job_cleans_up_until_it_is_killed(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    def cleaning(seconds: float) -> Callable[[Context], Awaitable[None]]:
        async def run(context: Context) -> None:
            context.ready()
            try:
                await trio.sleep_forever()
            finally:
                with context.cleanup():
                    await trio.sleep(seconds)
                    ended.append(f"clean after {seconds}")

        return run

    children = [
        ChildSpec("quick", lambda: Job(cleaning(2)), shutdown=5),
        ChildSpec("slow", lambda: Job(cleaning(60)), shutdown=5),
    ]
    async with open_system(root(*children)) as system:
        with recording(system.events) as recorder:
            began = trio.current_time()
            await system.stop()
            assert trio.current_time() - began == pytest.approx(7.0)
            kinds = {event.path: event.reason.kind for event in recorder.of(Stopped)}
            assert kinds == {"root/slow": "killed", "root/quick": "shutdown", "root": "shutdown"}
    assert ended == ["clean after 2"]


@may_crash(OddError)
@pytest.mark.parametrize("shutdown", [5.0, "brutal_kill"])
async def test_a_child_that_raises_while_being_cancelled(autojump_clock: MockClock, shutdown: Any) -> None:
    async def bad(context: Context) -> None:
        context.ready()
        try:
            await trio.sleep_forever()
        finally:
            raise OddError("while cancelled")

    async with open_system(
        root(ChildSpec("a", lambda: Job(bad), shutdown=shutdown), ChildSpec("b", Counter))
    ) as system:
        with recording(system.events) as recorder:
            await system.stop()
            assert [event.path for event in recorder.of(Crashed)] == ["root/a"]
            assert [event.path for event in recorder.of(Stopped)] == ["root/b", "root"]


@may_crash(ExceptionGroup)
async def test_a_nursery_inside_a_handler_that_is_killed_leaves_nothing(autojump_clock: MockClock) -> None:
    class Busy(Actor[Ping]):
        async def handle(self, message: Ping) -> object:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(_raise_when_cancelled)
            return "pong"

    registry = Registry()
    async with open_system(root(ChildSpec("a", Busy, name="a", shutdown=1)), registry=registry) as system:
        with recording(system.events) as recorder:
            registry.ref(Busy, "a").tell(Ping())
            await settle()
            await system.stop()
            assert len(recorder.dead_letters) == 1
            assert recorder.dead_letters[0].cause == "killed"


async def _raise_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("while cancelled")


async def test_a_draining_job_ends_by_itself_when_asked(autojump_clock: MockClock) -> None:
    drained: list[str] = []

    async def serve(context: Context) -> None:
        context.ready()
        await context.stop_requested.wait()
        await trio.sleep(3)
        drained.append("drained")

    async def never(context: Context) -> None:
        context.ready()
        await trio.sleep_forever()

    children = [
        ChildSpec("a", lambda: DrainingJob(serve), shutdown=10),
        ChildSpec("b", lambda: DrainingJob(never), shutdown=4),
    ]
    async with open_system(root(*children)) as system:
        await settle()
        began = trio.current_time()
        await system.stop()
        assert trio.current_time() - began == pytest.approx(7.0)
    assert drained == ["drained"]


async def test_a_supervisor_in_a_restart_loop_can_be_stopped(autojump_clock: MockClock) -> None:
    fails = False

    class Flaky(Counter):
        async def on_start(self, context: Context) -> None:
            if fails:
                raise Boom("start")

    registry = Registry()
    with trio.fail_after(10):
        for strategy in ("one_for_one", "one_for_all", "rest_for_one"):
            fails = False
            spec = root(ChildSpec("a", Flaky, name="a"), ChildSpec("b", Counter), strategy=strategy)
            async with open_system(spec, registry=registry) as system:
                fails = True
                registry.ref(Flaky, "a").tell(Crash())
                for _ in range(100):
                    await trio.lowlevel.checkpoint()
                assert system.tree()[1].restarts > 5


async def test_a_start_that_hangs_does_not_hold_up_the_stop(autojump_clock: MockClock) -> None:
    class Hanging(Actor[Ping]):
        async def on_start(self, context: Context) -> None:
            await trio.sleep_forever()

    async with open_system(root(ChildSpec("a", Counter))) as system, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(StartFailed):
                await system.registry.supervisor("root").start_child(ChildSpec("b", Hanging))

        nursery.start_soon(start)
        await settle()
        began = trio.current_time()
        await system.stop()
        assert trio.current_time() == began


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_a_boot_that_hangs_can_be_cancelled_from_outside(autojump_clock: MockClock, strategy: Any) -> None:
    stopped: list[ExitReason] = []
    journal: Journal[Ping] = Journal()
    journal.stops = stopped

    class Hanging(Actor[Ping]):
        async def on_start(self, context: Context) -> None:
            await trio.sleep_forever()

    spec = root(ChildSpec("a", lambda: Probe(journal)), ChildSpec("b", Hanging), strategy=strategy)
    with trio.move_on_after(5) as scope:
        async with open_system(spec):
            raise AssertionError("the block must not run")  # pragma: no cover
    assert scope.cancelled_caught
    assert [reason.kind for reason in stopped] == ["shutdown"]


async def test_cancelled_from_outside_the_tree_stops_in_order(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    journal: Journal[Any] = Journal()
    with trio.move_on_after(5) as scope:
        children = [ChildSpec("a", Counter), ChildSpec("b", lambda: Probe(journal)), ChildSpec("c", Counter)]
        async with open_system(root(*children)) as system:
            system.events.add_listener(recorder.put)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert [event.path for event in recorder.of(Stopped)] == ["root/c", "root/b", "root/a", "root"]
    assert journal.stops[0].kind == "shutdown"


async def test_an_error_of_the_block_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    journal: Journal[Any] = Journal()
    with pytest.raises(Boom, match="block"):
        async with open_system(root(ChildSpec("a", lambda: Probe(journal)))):
            raise Boom("block")
    assert journal.stops[0].kind == "shutdown"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_a_child_stops_the_system_in_order(autojump_clock: MockClock, interrupt: Any) -> None:
    registry = Registry()
    journal: Journal[Any] = Journal()
    children = [ChildSpec("a", lambda: Probe(journal)), ChildSpec("b", Raiser, name="b")]
    with pytest.raises(interrupt):
        async with open_system(root(*children), registry=registry):
            registry.ref(Raiser, "b").tell(Raise(interrupt))
            await trio.sleep_forever()
    assert journal.stops[0].kind == "shutdown"


@pytest.mark.parametrize("strategy", ["one_for_one", "dynamic"])
async def test_ten_thousand_children_crash_at_once(autojump_clock: MockClock, strategy: Any) -> None:
    count = 10_000 if strategy == "dynamic" else 2_000
    registry = Registry()
    spec = SupervisorSpec("pool", strategy=strategy, name="pool", intensity=MANY)
    async with open_system(root(spec, ChildSpec("by", Counter, name="by")), registry=registry) as system:
        pool = registry.supervisor("pool")
        refs = [await pool.start_child(ChildSpec(str(n), Counter)) for n in range(count)]
        with recording(system.events) as recorder:
            for ref in refs:
                assert ref is not None
                ref.tell(Crash())
            await settle()
            assert len(recorder.of(Restarted)) == len(recorder.dead_letters) == count
        assert await registry.ref(Counter, "by").call(Add(1)) == 1
        assert (await pool.count()).active == count


async def test_ten_thousand_crashes_at_once_end_their_supervisor_alone(autojump_clock: MockClock) -> None:
    registry = Registry()
    spec = SupervisorSpec("pool", strategy="dynamic", name="pool", intensity=Intensity(3, 5), restart="temporary")
    async with open_system(root(spec, ChildSpec("by", Counter, name="by")), registry=registry) as system:
        pool = registry.supervisor("pool")
        refs = [await pool.start_child(ChildSpec(str(n), Counter)) for n in range(2_000)]
        with recording(system.events) as recorder:
            for ref in refs:
                assert ref is not None
                ref.tell(Crash())
                ref.tell(Add(1))
            await settle()
            assert len(recorder.of(GaveUp)) == 1
            # Each crash is a dead letter, and so is everything that lay behind it.
            assert len(recorder.dead_letters) + _handled(recorder) >= 4_000 - 3
        assert await registry.ref(Counter, "by").call(Add(1)) == 1
        assert [node.path for node in system.tree()] == ["root", "root/by"]


def _handled(recorder: Recorder) -> int:
    """Messages that a restarted actor handled: at most one for each restart."""
    return len(recorder.of(Restarted))


async def test_an_aside_that_crashes_takes_its_actor_along(autojump_clock: MockClock) -> None:
    stops: list[ExitReason] = []
    lives = 0

    class Poller(Actor[Ping | Sleep]):
        async def on_start(self, context: Context) -> None:
            nonlocal lives
            lives += 1
            if lives == 1:
                context.start_soon(self.poll, 3.0)
            context.start_soon(self.forever)

        async def poll(self, seconds: float) -> None:
            await trio.sleep(seconds)
            raise Boom("aside")

        async def forever(self) -> None:
            await trio.sleep_forever()

        async def handle(self, message: Ping | Sleep) -> object:
            if isinstance(message, Sleep):
                await trio.sleep(message.seconds)
            return "pong"

        async def on_stop(self, reason: ExitReason) -> None:
            stops.append(reason)

    registry = Registry()
    async with open_system(root(ChildSpec("a", Poller, name="a")), registry=registry) as system:
        with recording(system.events) as recorder:
            registry.ref(Poller, "a").tell(Sleep(100))
            await trio.sleep(4)
            assert await registry.ref(Poller, "a").call(Ping()) == "pong"
            assert [letter.message for letter in recorder.dead_letters] == [Sleep(100)]
            assert isinstance(recorder.of(Crashed)[0].reason.error, Boom)
            await system.stop()
    assert [reason.kind for reason in stops] == ["crashed", "shutdown"]
    assert lives == 2


@may_crash(BaseException)
@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_an_aside_or_a_job_raises_is_a_crash_of_that_child_alone(
    autojump_clock: MockClock, error: str
) -> None:
    class Beside(Actor[Raise | Ping]):
        async def handle(self, message: Raise | Ping) -> object:
            if isinstance(message, Raise):
                self.context.start_soon(_raise, message.make)
                return None
            return "pong"

    jobs = 0

    async def run(context: Context) -> None:
        nonlocal jobs
        jobs += 1
        context.ready()
        if jobs == 1:
            await _raise(ERRORS[error])
        await trio.sleep_forever()

    registry = Registry()
    children = [ChildSpec("a", Beside, name="a"), ChildSpec("j", lambda: Job(run)), ChildSpec("b", Counter, name="b")]
    async with open_system(root(*children), registry=registry) as system:
        await settle()
        ref = registry.ref(Beside, "a")
        ref.tell(Raise(ERRORS[error]))
        await settle()
        assert await ref.call(Ping()) == "pong"
        assert [node.restarts for node in system.tree()] == [0, 1, 1, 0]
        assert await registry.ref(Counter, "b").call(Add(1)) == 1


async def _raise(make: Callable[[], BaseException]) -> None:
    raise make()


async def test_asides_end_with_their_life(autojump_clock: MockClock) -> None:
    running = 0

    class Busy(Actor[Crash | Leave | Ping]):
        async def on_start(self, context: Context) -> None:
            for _ in range(3):
                context.start_soon(self.work)

        async def work(self) -> None:
            nonlocal running
            running += 1
            try:
                await trio.sleep_forever()
            finally:
                running -= 1

        async def handle(self, message: Crash | Leave | Ping) -> object:
            if isinstance(message, Crash):
                raise Boom("x")
            if isinstance(message, Leave):
                self.context.stop()
                return None
            return "pong"

    registry = Registry()
    async with open_system(root(ChildSpec("a", Busy, name="a", restart="transient")), registry=registry):
        ref = registry.ref(Busy, "a")
        ref.tell(Crash())
        assert await ref.call(Ping()) == "pong"
        await settle()
        assert running == 3
        ref.tell(Leave())
        await settle()
        assert running == 0


async def test_a_disabled_child_leaves_its_siblings_alone_and_can_be_restarted(autojump_clock: MockClock) -> None:
    registry = Registry()
    bad = ChildSpec("a", Counter, name="a", on_exceed="disable", intensity=Intensity(2, 60))
    spec = root(bad, ChildSpec("b", Counter, name="b"), intensity=Intensity(0, 1))
    async with open_system(spec, registry=registry) as system:
        with recording(system.events) as recorder:
            ref = registry.ref(Counter, "a")
            for _ in range(3):
                ref.tell(Crash())
            ref.tell(Add(1))
            await settle()
            assert system.tree()[1].state == "disabled"
            assert [event.disabled for event in recorder.of(GaveUp)] == [True]
            assert len(recorder.dead_letters) == 4
            assert not ref.alive
            assert await registry.ref(Counter, "b").call(Add(1)) == 1
            await registry.supervisor("root").restart_child("a")
            assert await ref.call(Add(1)) == 1


@pytest.mark.parametrize("way", ["restart", "delete", "stop", "stop by reference"])
async def test_a_disabled_dynamic_child_gives_its_place_back(autojump_clock: MockClock, way: str) -> None:
    registry = Registry()
    pool = SupervisorSpec("pool", strategy="dynamic", name="pool", max_children=1)
    async with open_system(root(pool), registry=registry) as system:
        sup = registry.supervisor("pool")
        spec = ChildSpec("a", Counter, on_exceed="disable", intensity=Intensity(0, 60))
        ref = await sup.start_child(spec)
        assert ref is not None
        ref.tell(Crash())
        await settle()
        assert [node.state for node in system.tree()] == ["running", "running", "disabled"]
        with pytest.raises(MaxChildren):
            await sup.start_child(ChildSpec("b", Counter))
        match way:
            case "restart":
                await sup.restart_child("a")
                assert await ref.call(Add(1)) == 1
                return
            case "delete":
                await sup.delete_child("a")
            case "stop":
                await sup.stop_child("a")
            case _:
                await sup.stop_child(ref)
        assert await sup.start_child(ChildSpec("b", Counter)) is not None


async def test_backoff_grows_and_is_reset(autojump_clock: MockClock) -> None:
    registry = Registry()
    backoff = Backoff(1.0, 8.0, jitter=0.0, reset_after_s=20.0)
    async with open_system(root(ChildSpec("a", Counter, name="a", backoff=backoff)), registry=registry):
        ref = registry.ref(Counter, "a")

        async def seconds() -> float:
            began = trio.current_time()
            ref.tell(Crash())
            assert await ref.call(Ping(), timeout=60) == "pong"
            return trio.current_time() - began

        assert [await seconds() for _ in range(5)] == pytest.approx([1, 2, 4, 8, 8])
        await trio.sleep(20)
        assert await seconds() == pytest.approx(1)


@pytest.mark.parametrize("event", ["Exited", "Started", "StopTimedOut"])
async def test_a_fault_of_supervision_itself_ends_the_program_instead_of_hanging_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:

    def faulty(state: Any, what: Any) -> Any:
        if type(what).__name__ == event and state.spec.id == "sub":
            raise AssertionError("a fault")
        return decide(state, what)

    async def stubborn(context: Context) -> None:
        context.ready()
        with trio.CancelScope(shield=True):
            await trio.sleep(50)

    registry = Registry()
    sub = SupervisorSpec("sub", [ChildSpec("a", Counter, name="a"), ChildSpec("j", lambda: Job(stubborn), shutdown=1)])
    monkeypatch.setattr("actors._supervisor.decide", faulty)
    with trio.fail_after(100), pytest.raises(AssertionError, match="a fault"):
        async with open_system(root(ChildSpec("b", Counter), sub), registry=registry) as system:
            if event == "Exited":
                registry.ref(Counter, "a").tell(Crash())
                await trio.sleep(10)
            await system.stop()


async def test_two_systems_do_not_know_each_other(autojump_clock: MockClock) -> None:
    one, two = Registry(), Registry()
    async with open_system(root(ChildSpec("a", Counter, name="a")), registry=one):
        async with open_system(root(ChildSpec("a", Counter, name="a")), registry=two):
            one.ref(Counter, "a").tell(Add(1))
            assert await two.ref(Counter, "a").call(Add(1)) == 1
        assert not two.ref(Counter, "a").alive
        assert await one.ref(Counter, "a").call(Add(1)) == 2
