"""A program that gets Ctrl-C while something of a system runs: one round for each line on its standard input.

A line is `place: act` or the name of a storm, with `, at checkpoints` for the mode of trio that raises the interrupt
nowhere else. The program says `at` when the interrupt may come, and then how the round ended: the class of what came
out of `trio.run`, or `went on` when it was swallowed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from actors import (
    Actor,
    ActorDown,
    Backoff,
    ChildSpec,
    Context,
    DrainingJob,
    ExitReason,
    Intensity,
    Job,
    MailboxFull,
    Message,
    SupervisorSpec,
    System,
    open_system,
)

BOUND_S = 5.0
SHUTDOWN_S = 0.03
INTERRUPTED_WITHIN_S = 0.25
"""The limit of a stop within which the interrupt is to come."""
MANY = Intensity(1_000_000, 1)
Act = Callable[[], Awaitable[object]]
Block = Callable[[System], Awaitable[object]]


class Do(Message[None], frozen=True):
    """Runs `act` in the handler."""

    act: Act


class Doer(Actor[Do]):
    """Does what it is sent; its hooks do what it was made with."""

    def __init__(self, on_start: Act | None = None, on_stop: Act | None = None) -> None:
        self._on_start = on_start
        self._on_stop = on_stop

    async def on_start(self, context: Context) -> None:
        if self._on_start is not None:
            await self._on_start()

    async def handle(self, message: Do) -> None:
        await message.act()

    async def on_stop(self, reason: ExitReason) -> None:
        if self._on_stop is not None:
            await self._on_stop()


def at() -> None:
    """Says that the interrupt may come."""
    sys.stdout.write("at\n")
    sys.stdout.flush()


async def sleeps() -> None:
    at()
    await trio.sleep_forever()


async def spins() -> None:
    at()
    while True:
        pass


async def blocks() -> None:
    at()
    time.sleep(60)  # noqa: ASYNC251  # a handler that blocks is one of the places


async def works() -> None:
    """Computes, and lets others run now and then."""
    at()
    while True:
        sum(range(500))
        await trio.lowlevel.checkpoint()


async def in_a_thread() -> None:
    at()
    await trio.to_thread.run_sync(time.sleep, 0.05)
    await trio.sleep_forever()


async def opens_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(works)


async def raises_at_the_end() -> None:
    try:
        await works()
    finally:
        raise ValueError("at the end")


async def crashes() -> None:
    raise ValueError("crash")


ACTS: dict[str, Act] = {
    "sleeps": sleeps,
    "spins": spins,
    "blocks": blocks,
    "works": works,
    "waits for a thread": in_a_thread,
    "opens a nursery": opens_a_nursery,
    "raises at the end": raises_at_the_end,
}


async def _waits(_: System) -> None:
    await trio.sleep_forever()


async def _returns(_: System) -> None:
    await trio.lowlevel.checkpoint()


async def _run(block: Block, *children: ChildSpec | SupervisorSpec, **options: Any) -> None:
    spec = SupervisorSpec("root", children, intensity=MANY, name="root", **options)
    async with open_system(spec) as system:
        await block(system)


def _doer(system: System, name: str = "doer") -> Any:
    return system.registry.ref(Doer, name)


DOER = ChildSpec("doer", Doer, name="doer", shutdown=SHUTDOWN_S)


async def block(act: Act) -> None:
    await _run(lambda _: act(), DOER)


async def block_that_waits_for_the_handler(act: Act) -> None:
    await _run(lambda system: _doer(system).call(Do(act), timeout=60.0), DOER)


async def handler(act: Act) -> None:
    async def tells(system: System) -> None:
        _doer(system).tell(Do(act))
        await trio.sleep_forever()

    await _run(tells, ChildSpec("by", Doer), DOER)


async def start_of_an_actor(act: Act) -> None:
    await _run(_waits, ChildSpec("starting", lambda: Doer(on_start=act), shutdown=SHUTDOWN_S))


async def restart_of_an_actor(act: Act) -> None:
    lives = 0

    def start() -> Doer:
        nonlocal lives
        lives += 1
        return Doer() if lives == 1 else Doer(on_start=act)

    async def tells(system: System) -> None:
        _doer(system).tell(Do(crashes))
        await trio.sleep_forever()

    await _run(tells, ChildSpec("doer", start, name="doer", shutdown=SHUTDOWN_S))


async def stop_hook(act: Act) -> None:
    await _run(_returns, ChildSpec("doer", lambda: Doer(on_stop=act), shutdown=INTERRUPTED_WITHIN_S))


async def stop_hook_after_a_crash(act: Act) -> None:
    async def tells(system: System) -> None:
        _doer(system).tell(Do(crashes))
        await trio.sleep_forever()

    await _run(tells, ChildSpec("doer", lambda: Doer(on_stop=act), name="doer", shutdown=SHUTDOWN_S))


async def aside(act: Act) -> None:
    class Busy(Doer):
        async def on_start(self, context: Context) -> None:
            context.start_soon(act)

    await _run(_waits, ChildSpec("doer", Busy, shutdown=SHUTDOWN_S))


async def job(act: Act) -> None:
    async def run(context: Context) -> None:
        context.ready()
        await act()

    await _run(_waits, ChildSpec("job", lambda: Job(run), shutdown=SHUTDOWN_S))


async def job_before_it_is_ready(act: Act) -> None:
    await _run(_waits, ChildSpec("job", lambda: Job(lambda _: act()), shutdown=SHUTDOWN_S))


async def draining_job(act: Act) -> None:
    async def run(context: Context) -> None:
        context.ready()
        await act()

    await _run(_waits, ChildSpec("job", lambda: DrainingJob(run), shutdown=SHUTDOWN_S))


async def cleanup_of_a_job(act: Act) -> None:
    async def run(context: Context) -> None:
        context.ready()
        try:
            await trio.sleep_forever()
        finally:
            with context.cleanup():
                await act()

    await _run(_returns, ChildSpec("job", lambda: Job(run), shutdown=INTERRUPTED_WITHIN_S))


async def dynamic_child(act: Act) -> None:
    async def starts(system: System) -> None:
        spec = ChildSpec("doer", lambda: Doer(on_start=act), shutdown=SHUTDOWN_S)
        await system.registry.supervisor("pool").start_child(spec)

    await _run(starts, SupervisorSpec("pool", strategy="dynamic", name="pool"))


PLACES: dict[str, Callable[[Act], Awaitable[None]]] = {
    place.__name__: place
    for place in (
        block,
        block_that_waits_for_the_handler,
        handler,
        start_of_an_actor,
        restart_of_an_actor,
        stop_hook,
        stop_hook_after_a_crash,
        aside,
        job,
        job_before_it_is_ready,
        draining_job,
        cleanup_of_a_job,
        dynamic_child,
    )
}


# --- the framework itself at work: the interrupt may come anywhere in it


async def factory() -> None:
    def start() -> Doer:
        at()
        while True:
            pass

    await _run(_waits, ChildSpec("doer", start))


async def storm_of_crashes() -> None:
    async def tells(system: System) -> None:
        at()
        ref = _doer(system)
        while True:
            with suppress(MailboxFull, ActorDown):
                ref.tell(Do(crashes))
            await trio.lowlevel.checkpoint()

    await _run(tells, DOER, ChildSpec("by", Doer), strategy="one_for_all")


async def storm_of_failing_starts() -> None:
    lives = 0

    def start() -> Doer:
        nonlocal lives
        lives += 1
        return Doer() if lives == 1 else Doer(on_start=crashes)

    async def tells(system: System) -> None:
        _doer(system).tell(Do(crashes))
        at()
        await trio.sleep_forever()

    await _run(tells, ChildSpec("doer", start, name="doer"))


async def storm_of_messages() -> None:
    async def nothing() -> None:
        pass

    async def tells(system: System) -> None:
        at()
        ref = _doer(system)
        while True:
            with suppress(MailboxFull):
                for _ in range(100):
                    ref.tell(Do(nothing))
            await ref.call(Do(nothing))
            await ref.send(Do(nothing))

    await _run(tells, DOER)


async def storm_of_children() -> None:
    async def starts(system: System) -> None:
        at()
        pool = system.registry.supervisor("pool")
        while True:
            await pool.start_child(ChildSpec("a", Doer))
            await pool.stop_child("a")

    await _run(starts, SupervisorSpec("pool", strategy="dynamic", name="pool"))


async def storm_of_timers() -> None:
    async def nothing() -> None:
        pass

    class Ticking(Doer):
        async def on_start(self, context: Context) -> None:
            for n in range(20):
                context.every(0.0002 + n / 1e5, Do(nothing), jitter=0.5)

    async def waits(_: System) -> None:
        at()
        await trio.sleep_forever()

    await _run(waits, ChildSpec("ticking", Ticking))


async def backoff() -> None:
    async def tells(system: System) -> None:
        _doer(system).tell(Do(crashes))
        await trio.lowlevel.checkpoint()
        at()
        await trio.sleep_forever()

    await _run(tells, ChildSpec("doer", Doer, name="doer", backoff=Backoff(60.0, 60.0)))


async def opening_and_closing() -> None:
    at()
    while True:
        await _run(_returns, DOER, ChildSpec("by", Doer))


@enable_ki_protection
async def _open_and_close() -> None:
    async with open_system(SupervisorSpec("root", [ChildSpec("doer", Doer)], intensity=MANY)) as system:
        await disable_ki_protection(_returns)(system)


async def opening_and_closing_protected() -> None:
    at()
    while True:
        await _open_and_close()


STORMS: dict[str, Callable[[], Awaitable[None]]] = {
    storm.__name__: storm
    for storm in (
        factory,
        storm_of_crashes,
        storm_of_failing_starts,
        storm_of_messages,
        storm_of_children,
        storm_of_timers,
        backoff,
        opening_and_closing,
        opening_and_closing_protected,
    )
}


def _round(run: Act, *, at_checkpoints: bool) -> str:
    async def main() -> None:
        with trio.move_on_after(BOUND_S) as patience:
            await run()
        if patience.cancelled_caught:
            raise TimeoutError("went on")

    try:
        trio.run(main, restrict_keyboard_interrupt_to_checkpoints=at_checkpoints)
    except TimeoutError:
        return "went on"
    except BaseException as error:  # noqa: BLE001  # this is what is looked at
        return type(error).__name__
    return "returned"


def _named(name: str) -> Act:
    place, _, act = name.partition(": ")
    return STORMS[place] if not act else lambda: PLACES[place](ACTS[act])


def main() -> None:
    """Runs rounds until the end of the standard input."""
    for line in sys.stdin:
        name, _, mode = line.strip().partition(", ")
        ended = _round(_named(name), at_checkpoints=bool(mode))
        sys.stdout.write(f"{ended}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
