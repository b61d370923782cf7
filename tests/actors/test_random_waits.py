"""Handlers that call, race, join, give up and put off at random: what is refused as a circle is never answered."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from actors import (
    LATER,
    Actor,
    ActorDown,
    ActorRef,
    CallCycle,
    ChildSpec,
    Message,
    Registry,
    SupervisorSpec,
    open_system,
)
from actors._waits import refuse_cycle
from actors.testing import run_deterministic
from tests.sampling import NIGHTLY, SEED

SCRIPTS = 3000 if NIGHTLY else 150
PATIENCE_S = 10_000.0
OVER_S = 1000.0
"""By then everything that a script does by itself has long been done, and no call is near its deadline."""

Act = Callable[["Does"], Awaitable[object]]


class Do(Message[None], frozen=True):
    """Has the actor do something in its handler."""

    act: Any


class Does(Actor[Do]):
    """Does what it is sent."""

    async def handle(self, message: Do) -> object:
        return await message.act(self)


class Script:
    """Random acts of four actors. What would be refused is let through and looked at."""

    def __init__(self, seed: int, refs: list[ActorRef[Do]]) -> None:
        self._rng = random.Random(seed)
        self._refs = refs
        self.suspects = set[trio.lowlevel.Task]()
        self.refused = 0
        self.answered: list[str] = []

    def act(self, depth: int) -> Act:
        """One or two acts in a row."""
        parts = [self._part(depth) for _ in range(self._rng.randint(1, 2))]

        async def in_a_row(does: Does) -> object:
            out: object = None
            for part in parts:
                out = await part(does) or out
            return out

        return in_a_row

    def _part(self, depth: int) -> Act:
        seconds = self._rng.uniform(0.0, 10.0)
        kind = self._rng.choice(["sleep", "call", "call", "call", "race", "join", "scope", "later"])
        if depth == 0 or kind == "sleep":
            return self._sleep(seconds)
        if kind == "call":
            return self._call(self._rng.choice(self._refs), self.act(depth - 1))
        inner, other = self._part(depth - 1), self._part(depth - 1)
        match kind:
            case "race":
                return self._together([inner, other], race=True)
            case "join":
                return self._together([inner, other], race=False)
            case "scope":
                return self._scope(seconds, inner)
            case _:
                return self._later(self._sleep(seconds), inner)

    def _sleep(self, seconds: float) -> Act:
        async def act(_: Does) -> None:
            await trio.sleep(seconds)

        return act

    def _call(self, ref: ActorRef[Do], inner: Act) -> Act:
        async def act(_: Does) -> None:
            task = trio.lowlevel.current_task()
            self.suspects.discard(task)
            try:
                await ref.call(Do(inner), timeout=PATIENCE_S)
            except ActorDown:  # the end of the run
                return
            if task in self.suspects:
                self.answered.append(ref.name)

        return act

    def _together(self, parts: list[Act], *, race: bool) -> Act:
        async def act(does: Does) -> None:
            async with trio.open_nursery() as nursery:

                async def run(part: Act) -> None:
                    await part(does)
                    if race:
                        nursery.cancel_scope.cancel()

                for part in parts:
                    nursery.start_soon(run, part)

        return act

    def _scope(self, seconds: float, inner: Act) -> Act:
        async def act(does: Does) -> None:
            with trio.move_on_after(seconds):
                await inner(does)

        return act

    def _later(self, aside: Act, rest: Act) -> Act:
        async def act(does: Does) -> object:
            reply = does.context.reply_to()

            async def answer() -> None:
                await aside(does)
                reply.reply(None)

            does.context.start_soon(answer)
            await rest(does)
            return LATER

        return act


def _run(seed: int, monkeypatch: pytest.MonkeyPatch) -> Script:
    found: list[Script] = []
    refuse = refuse_cycle  # what it refuses is let through

    def note(*args: Any) -> None:
        try:
            refuse(*args)
        except CallCycle:
            if trio.current_effective_deadline() > OVER_S:  # else two waits end at about the same time
                found[0].suspects.add(trio.lowlevel.current_task())
                found[0].refused += 1

    async def scenario() -> None:
        registry = Registry()
        names = ["a", "b", "c", "d"]
        script = Script(seed, [registry.ref(Does, name) for name in names])
        found.append(script)
        spec = SupervisorSpec("root", [ChildSpec(name, Does, name=name, shutdown="brutal_kill") for name in names])
        async with open_system(spec, registry=registry):
            for name in names[:3]:
                registry.ref(Does, name).tell(Do(script.act(5)))
            await trio.sleep(OVER_S)

    with monkeypatch.context() as patch:
        patch.setattr("actors._refs.refuse_cycle", note)
        run_deterministic(scenario, seed=seed)
    return found[0]


def test_a_call_that_is_refused_as_a_circle_would_not_be_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = 0
    for seed in range(SEED * SCRIPTS, (SEED + 1) * SCRIPTS):
        script = _run(seed, monkeypatch)
        refused += script.refused
        assert script.answered == [], f"seed {seed}"
    assert refused > SCRIPTS / 10
