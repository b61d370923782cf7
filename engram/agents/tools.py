"""The tools of `engram miner mcp`: remember, recall, forget, list."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engram import __version__
from engram.agents.memories import Memories, Remembered
from engram.mcp import Caller, Catalog, ServerInfo, Tool

MAX_TEXT: Final = 8_192

Namespace = Annotated[
    str, Meta(min_length=1, max_length=64, description="Where; the first of the server's namespaces when left out.")
]
Value = str | int | float | bool


class Remember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `remember`."""

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, description="What to remember, in words.")]
    namespace: Namespace | None = None
    metadata: Annotated[
        dict[Annotated[str, Meta(max_length=64)], Value],
        Meta(max_length=32, description="Facts about it, such as its source or date; shown again with it."),
    ] = {}


class Recall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `recall`."""

    query: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, description="What to look for, in words.")]
    namespace: Namespace | None = None
    limit: Annotated[int, Meta(ge=1, le=50, description="The most memories to return.")] = 10


class Forget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `forget`."""

    id: Annotated[str, Meta(min_length=1, max_length=128, description="The id of the memory.")]
    namespace: Namespace | None = None


class List(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of `list`."""

    namespace: Namespace | None = None
    after: Annotated[str, Meta(max_length=512, description="`next` of the page before.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=50, description="The most memories to return.")] = 20


class Stored(msgspec.Struct, frozen=True):
    """A memory is kept under this id."""

    id: str


class Found(msgspec.Struct, frozen=True):
    """The memories that were found, the best first."""

    memories: list[Remembered]
    unreadable: int
    """Memories that were encrypted with another key."""


class Forgotten(msgspec.Struct, frozen=True):
    """Whether there was such a memory; it is gone either way."""

    forgotten: bool


class Listed(msgspec.Struct, frozen=True):
    """A page of memories, the oldest first; `next` is null at the end."""

    memories: list[Remembered]
    next: str | None
    unreadable: int


def catalog(memories: Memories) -> Catalog:
    """Return what the server of one node's memory offers."""

    async def remember(given: Remember, caller: Caller) -> Stored:
        return Stored(await memories.remember(caller, given.namespace, given.text, given.metadata))

    async def recall(given: Recall, caller: Caller) -> Found:
        page = await memories.recall(caller, given.namespace, given.query, given.limit)
        return Found(page.memories, page.unreadable)

    async def forget(given: Forget, caller: Caller) -> Forgotten:
        return Forgotten(await memories.forget(caller, given.namespace, given.id))

    async def listed(given: List, caller: Caller) -> Listed:
        page = await memories.page(caller, given.namespace, given.after, given.limit)
        return Listed(page.memories, page.next, page.unreadable)

    names = ", ".join(memories.namespaces)
    return Catalog(
        info=ServerInfo(name="engram-memory", title="Engram memory", version=__version__),
        instructions=f"Long-term memory on an Engram node. Namespaces: {names}. Memories are found by meaning: store "
        "whole sentences that can be understood by themselves, and recall by a question or a description.",
        tools=(
            Tool(
                name="remember",
                title="Remember",
                description="Store a text in long-term memory. Returns its id.",
                takes=Remember,
                gives=Stored,
                run=remember,
                scope="write",
                idempotent=False,
            ),
            Tool(
                name="recall",
                title="Recall",
                description="Find the memories nearest in meaning to a question or description, best first.",
                takes=Recall,
                gives=Found,
                run=recall,
            ),
            Tool(
                name="forget",
                title="Forget",
                description="Delete a memory by its id, for good.",
                takes=Forget,
                gives=Forgotten,
                run=forget,
                scope="write",
                destructive=True,
            ),
            Tool(
                name="list",
                title="List memories",
                description="Return memories in the order in which they were stored, page by page.",
                takes=List,
                gives=Listed,
                run=listed,
            ),
        ),
    )
