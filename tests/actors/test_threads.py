"""What is used from a thread that is not the system's refuses, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio

from actors import (
    LATER,
    Actor,
    ActorRef,
    ChildSpec,
    Context,
    ReplyTo,
    SupervisorSpec,
    System,
    Timer,
    WrongThread,
    open_system,
)
from actors.testing import settle
from tests.actors.messages import Add, Counter, Ping


class Keeper(Actor[Ping]):
    """Keeps the right to reply, and what its context gives."""

    def __init__(self) -> None:
        self.kept: list[ReplyTo] = []

    async def on_start(self, context: Context) -> None:
        self.timer: Timer = context.after(3600, Ping())

    async def handle(self, message: Ping) -> object:
        self.kept.append(self.context.reply_to())
        return LATER


class Scene:
    """A running system, and everything of it that a thread could get hold of."""

    def __init__(self, system: System, keeper: Keeper) -> None:
        self.system, self.keeper, self.context = system, keeper, keeper.context
        self.idle: ActorRef[Any] = system.registry.ref(Counter, "idle")
        self.busy: ActorRef[Any] = system.registry.ref(Keeper, "keeper")
        self.supervisor = system.registry.supervisor("root")


def _step(coroutine: Coroutine[Any, Any, object]) -> None:
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


USES: dict[str, Callable[[Scene], object]] = {
    "tell": lambda scene: scene.idle.tell(Add(1)),
    "tell to a queue": lambda scene: scene.busy.tell(Ping()),
    "tell of a wrong message": lambda scene: scene.idle.tell(object()),
    "send": lambda scene: _step(scene.idle.send(Add(1))),
    "call": lambda scene: _step(scene.idle.call(Add(1))),
    "reply": lambda scene: scene.keeper.kept[0].reply("pong"),
    "refuse": lambda scene: scene.keeper.kept[0].refuse(ValueError()),
    "after": lambda scene: scene.context.after(1, Ping()),
    "every": lambda scene: scene.context.every(1, Ping()),
    "cancel a timer": lambda scene: scene.keeper.timer.cancel(),
    "context.stop": lambda scene: scene.context.stop(),
    "ready": lambda scene: scene.context.ready("info"),
    "reply_to": lambda scene: scene.context.reply_to(),
    "start_soon": lambda scene: scene.context.start_soon(trio.sleep_forever),
    "cleanup": lambda scene: scene.context.cleanup(),
    "request_stop": lambda scene: scene.system.request_stop(),
    "kill": lambda scene: scene.system.kill(),
    "stop": lambda scene: _step(scene.system.stop()),
    "start_child": lambda scene: _step(scene.supervisor.start_child(ChildSpec("new", Counter))),
    "stop_child": lambda scene: _step(scene.supervisor.stop_child("idle")),
    "restart_child": lambda scene: _step(scene.supervisor.restart_child("idle")),
    "delete_child": lambda scene: _step(scene.supervisor.delete_child("idle")),
}


@pytest.mark.parametrize("use", USES)
async def test_another_thread_is_refused_and_changes_nothing(use: str) -> None:
    keeper = Keeper()
    children = [ChildSpec("idle", Counter, name="idle"), ChildSpec("keeper", lambda: keeper, name="keeper")]
    with trio.fail_after(5):
        async with open_system(SupervisorSpec("root", children, name="root")) as system, trio.open_nursery() as nursery:
            scene = Scene(system, keeper)
            replies: list[str] = []

            async def caller() -> None:
                replies.append(await scene.busy.call(Ping()))

            nursery.start_soon(caller)
            await settle()
            before = (system.tree(), len(system.timers))
            with pytest.raises(WrongThread, match="thread"):
                await trio.to_thread.run_sync(USES[use], scene)
            await settle()
            assert (system.tree(), len(system.timers)) == before
            assert keeper.timer.armed
            keeper.kept[0].reply("pong")
            assert await scene.idle.call(Add(1)) == 1
            await settle()
            assert replies == ["pong"]


async def test_another_thread_may_tell_by_way_of_the_loop() -> None:
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Counter, name="a")])) as system:
        ref = system.registry.ref(Counter, "a")
        await trio.to_thread.run_sync(lambda: trio.from_thread.run_sync(ref.tell, Add(2)))
        assert await ref.call(Add(1)) == 3
