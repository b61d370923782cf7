"""What type checkers must know of `actors`. Checked by mypy and pyright, both with unneeded ignores as errors."""

from __future__ import annotations

from typing import Any, assert_type

from actors import Actor, ActorRef, ChildSpec, Context, Message, Registry, SupervisorSpec, open_system


class Get(Message[str | None], frozen=True):
    """Asks for a value."""

    key: str


class Put(Message[None], frozen=True):
    """Sets a value."""

    key: str
    value: str


class Count(Message[int], frozen=True):
    """Another actor's message."""


class Store(Actor[Get | Put]):
    """Takes two messages."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}

    async def on_start(self, context: Context) -> None:
        context.after(1.0, Put("a", "b"))

    async def handle(self, message: Get | Put) -> object:
        match message:
            case Get(key):
                return self.facts.get(key)
            case Put(key, value):
                self.facts[key] = value
                return None


async def replies_are_typed(store: ActorRef[Get | Put]) -> None:
    assert_type(await store.call(Get("a")), str | None)
    assert_type(await store.call(Put("a", "b"), timeout=1.0), None)
    length: int = await store.call(Get("a"))  # type: ignore[arg-type]
    del length


async def wrong_messages_are_rejected(store: ActorRef[Get | Put]) -> None:
    store.tell(Get("a"))
    await store.send(Put("a", "b"))
    store.tell(Count())  # type: ignore[arg-type]
    await store.send(Count())  # type: ignore[arg-type]
    await store.call(Count())  # type: ignore[arg-type]
    store.tell("text")  # type: ignore[arg-type]


def a_reference_may_stand_for_less(store: ActorRef[Get | Put]) -> ActorRef[Get]:
    return store


def but_not_for_more(getter: ActorRef[Get]) -> ActorRef[Get | Put]:
    return getter  # type: ignore[return-value]


async def registries_know_the_type(registry: Registry) -> None:
    assert_type(registry.ref(Store, "store"), ActorRef[Get | Put])
    assert_type(await registry.ref(Store, "store").call(Get("a")), str | None)


def fields_are_frozen(message: Get) -> None:
    message.key = "b"  # type: ignore[misc]


def specifications_are_checked() -> SupervisorSpec:
    ChildSpec("a", Store, restart="often")  # type: ignore[arg-type]
    ChildSpec("a", lambda: 42)  # type: ignore[arg-type, return-value]
    SupervisorSpec("s", strategy="all_for_none")  # type: ignore[arg-type]
    return SupervisorSpec("s", [ChildSpec("a", Store), SupervisorSpec("pool", strategy="dynamic")])


async def a_started_child_has_a_reference(spec: SupervisorSpec) -> None:
    async with open_system(spec) as system:
        assert_type(await system.registry.supervisor("pool").start_child(ChildSpec("a", Store)), ActorRef[Any] | None)
