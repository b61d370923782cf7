"""What an agent remembers on one node: stored, found, listed and forgotten under the node's own access rules.

A private memory is encrypted once, before its first attempt, so that an attempt of unknown outcome may be repeated and
is stored once. A node that restarts is waited for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar, final

import msgspec
import trio

from engram.agents.vault import Vault
from engram.api.node_model import known
from engram.clock import Clock
from engram.hotkeys import Keypair
from engram.hotkeys.python_json import JsonValue
from engram.mcp import Caller, ToolFailed
from engram.sdk.async_transport import AsyncTransport
from engram.sdk.encryption import FIELD
from engram.sdk.errors import ApiError, NodeRefused, NotReached, OutcomeUnknown, SdkError
from engram.sdk.model import Hit
from engram.sdk.node_calls import Call, NodeCalls

T = TypeVar("T")

PUBLIC: Final = "public"
"""The name by which agents call the namespace that everyone can read."""
WAIT_S: Final = 45.0
"""For so long a node that does not answer is tried again."""
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 3.0
MAX_SEALED_BYTES: Final = 3_900
"""What a node takes as metadata, 4,096 bytes, less their JSON."""


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """A memory as an agent is shown it."""

    id: str
    text: str
    metadata: dict[str, object]
    score: float | None = None
    """Cosine similarity to what was looked for, -1 to 1; null in a list."""


class Page(msgspec.Struct, frozen=True):
    """A page of memories, and how to go on."""

    memories: list[Remembered]
    next: str | None
    unreadable: int
    """Memories of the namespace that were encrypted with another key."""


@final
class Memories:
    """One node, for one hotkey."""

    def __init__(
        self,
        transport: AsyncTransport,
        keypair: Keypair | None,
        namespaces: Sequence[str],
        vault: Vault | None,
        clock: Clock,
    ) -> None:
        """Take the namespaces that agents may use; the first is used where none is named. PUBLIC is everyone's.

        Raises ValueError for a private namespace without a key or a vault, and for a name that every node refuses.
        """
        if not namespaces:
            raise ValueError("name a namespace")
        if vault is None and any(name != PUBLIC for name in namespaces):
            raise ValueError("a private namespace needs the hotkey that it belongs to")
        self._transport = transport
        self._vault = vault
        self.namespaces = tuple(namespaces)
        self._calls = {
            name: NodeCalls(clock, keypair, namespace=None if name == PUBLIC else name) for name in namespaces
        }

    async def remember(
        self, caller: Caller, namespace: str | None, text: str, metadata: Mapping[str, JsonValue]
    ) -> str:
        """Store a text and return its id. Raises ToolFailed."""
        name = self._allowed(caller, namespace)
        calls = self._calls[name]
        if name == PUBLIC:
            return await self._ask(lambda: calls.ingest(text, {**metadata, "text": text}))
        vault = self._private()
        vector, sealed = await vault.vector(text), vault.seal(name, text, metadata)
        if len(sealed) > MAX_SEALED_BYTES:
            raise ToolFailed(
                f"text and metadata have {len(sealed)} bytes when they are encrypted, at most {MAX_SEALED_BYTES} fit"
                " into one memory: remember it in parts"
            )
        return await self._ask(lambda: calls.ingest_vector(vector, {FIELD: sealed}))

    async def recall(self, caller: Caller, namespace: str | None, text: str, limit: int) -> Page:
        """Find the memories nearest in meaning, best first. Raises ToolFailed."""
        name = self._allowed(caller, namespace)
        calls = self._calls[name]
        if name == PUBLIC:
            hits = await self._ask(lambda: calls.query(text, limit, None))
        else:
            vector = await self._private().vector(text)
            hits = await self._ask(lambda: calls.query_vector(vector, limit, None))
        shown = [self._shown(name, hit, hit.score) for hit in hits]
        return _page(shown, None)

    async def page(self, caller: Caller, namespace: str | None, after: str | None, limit: int) -> Page:
        """Return memories in the order in which they were stored. Raises ToolFailed."""
        name = self._allowed(caller, namespace)
        calls = self._calls[name]
        listing = await self._ask(lambda: calls.walk(after, None, limit=limit))
        found = [Hit(each.cid, 0.0, each.metadata, kept_text=known(each.text)) for each in listing.records]
        return _page([self._shown(name, hit, None) for hit in found], known(listing.next))

    async def forget(self, caller: Caller, namespace: str | None, memory_id: str) -> bool:
        """Delete a memory; False when there was none. Raises ToolFailed."""
        calls = self._calls[self._allowed(caller, namespace)]
        return await self._ask(lambda: calls.delete(memory_id))

    def _allowed(self, caller: Caller, namespace: str | None) -> str:
        """Return the namespace to use: a field of authority is obeyed or refused."""
        names = [name for name in self.namespaces if caller.namespaces is None or name in caller.namespaces]
        if namespace is None and names:
            return names[0]
        if namespace in names:
            assert namespace is not None
            return namespace
        there = f"use {' or '.join(names)}" if names else "this token opens none"
        raise ToolFailed(f"namespace {namespace!r} is not open here: {there}")

    def _private(self) -> Vault:
        assert self._vault is not None, "the constructor demands it for private namespaces"
        return self._vault

    def _shown(self, namespace: str, hit: Hit, score: float | None) -> Remembered | None:
        if namespace == PUBLIC:
            metadata = {key: value for key, value in hit.metadata.items() if key != "text"}
            return Remembered(id=hit.cid, text=hit.text, metadata=metadata, score=score)
        sealed = hit.metadata.get(FIELD)
        opened = self._private().open(namespace, sealed) if isinstance(sealed, str) else None
        if opened is None:
            return None
        return Remembered(id=hit.cid, text=opened.text, metadata=opened.metadata, score=score)

    async def _ask(self, call: Callable[[], Call[T]]) -> T:
        """Send a call, signed anew for each attempt, until the node answers. All calls here may be repeated."""
        until, pause_s = trio.current_time() + WAIT_S, _FIRST_PAUSE_S
        while True:
            try:
                return await self._transport.ask(call())
            except (NotReached, OutcomeUnknown, ApiError) as error:
                busy = not isinstance(error, ApiError) or error.status in (429, 503)
                if not busy or trio.current_time() + pause_s > until:
                    raise ToolFailed(_advice(error)) from None
            except NodeRefused as error:
                raise ToolFailed(f"the node refuses: {error}") from None
            except SdkError as error:
                raise ToolFailed(str(error)) from None
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _advice(error: NotReached | OutcomeUnknown | ApiError) -> str:
    match error:
        case NotReached():
            return f"the node cannot be reached, and nothing was sent: {error}"
        case OutcomeUnknown():
            return f"the node did not answer; it may have done it: {error}"
        case ApiError():
            return f"the node refuses: {error.message} ({error.code})"


def _page(shown: Sequence[Remembered | None], following: str | None) -> Page:
    readable = [each for each in shown if each is not None]
    return Page(readable, following, len(shown) - len(readable))
