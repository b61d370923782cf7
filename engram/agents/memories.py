"""What an agent remembers on one node: stored, found, listed and forgotten under the node's own access rules.

A private memory is encrypted once, before its first attempt, so that an attempt of unknown outcome may be repeated and
is stored once. A node that restarts is waited for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar, final

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
"""The name by which agents call the namespace that everyone can read; no private one may have it."""
WAIT_S: Final = 45.0
"""For so long a node that does not answer is tried again."""
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 3.0
_UNSIGNED: Final = ("namespace_signature", "before_start")
"""Codes of a node that takes no signature of before its start; it may have started between signing and sending."""
_SIGNED_AGAIN: Final = 3
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


class _Namespace(NamedTuple):
    calls: NodeCalls
    vault: Vault | None
    """What encrypts; None for the one that is everyone's."""


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
        *,
        public: bool = False,
    ) -> None:
        """Take the private namespaces that agents may use, and whether they may use everyone's, as PUBLIC, too.

        The first is used where none is named. Raises ValueError for a private namespace without a vault, for one that
        is called PUBLIC, and for a name that every node refuses.
        """
        if not namespaces and not public:
            raise ValueError("name a namespace")
        if vault is None and namespaces:
            raise ValueError("a private namespace needs the hotkey that it belongs to")
        check_private(namespaces)
        self._transport = transport
        self._opened = {name: _Namespace(NodeCalls(clock, keypair, namespace=name), vault) for name in namespaces}
        if public:
            self._opened[PUBLIC] = _Namespace(NodeCalls(clock, keypair, namespace=None), None)
        self.namespaces = tuple(self._opened)

    async def remember(
        self, caller: Caller, namespace: str | None, text: str, metadata: Mapping[str, JsonValue]
    ) -> str:
        """Store a text and return its id. Raises ToolFailed."""
        name, (calls, vault) = self._allowed(caller, namespace)
        if vault is None:
            return await self._ask(lambda: calls.ingest(text, {**metadata, "text": text}))
        vector, sealed = await vault.vector(text), vault.seal(name, text, metadata)
        if len(sealed) > MAX_SEALED_BYTES:
            raise ToolFailed(
                f"text and metadata have {len(sealed)} bytes when they are encrypted, at most {MAX_SEALED_BYTES} fit"
                " into one memory: remember it in parts"
            )
        return await self._ask(lambda: calls.ingest_vector(vector, {FIELD: sealed}))

    async def recall(self, caller: Caller, namespace: str | None, text: str, limit: int) -> Page:
        """Find the memories nearest in meaning, best first. Raises ToolFailed."""
        name, (calls, vault) = self._allowed(caller, namespace)
        if vault is None:
            hits = await self._ask(lambda: calls.query(text, limit, None))
        else:
            vector = await vault.vector(text)
            hits = await self._ask(lambda: calls.query_vector(vector, limit, None))
        shown = [_shown(name, vault, hit, hit.score) for hit in hits]
        return _page(shown, None)

    async def page(self, caller: Caller, namespace: str | None, after: str | None, limit: int) -> Page:
        """Return memories in the order in which they were stored. Raises ToolFailed."""
        name, (calls, vault) = self._allowed(caller, namespace)
        listing = await self._ask(lambda: calls.walk(after, None, limit=limit))
        found = [Hit(each.cid, 0.0, each.metadata, kept_text=known(each.text)) for each in listing.records]
        return _page([_shown(name, vault, hit, None) for hit in found], known(listing.next))

    async def forget(self, caller: Caller, namespace: str | None, memory_id: str) -> bool:
        """Delete a memory; False when there was none. Raises ToolFailed.

        One that is gone after an attempt of unknown outcome counts as deleted by that.
        """
        _, (calls, _) = self._allowed(caller, namespace)
        in_doubt: list[SdkError] = []
        return await self._ask(lambda: calls.delete(memory_id), in_doubt.append) or bool(in_doubt)

    def _allowed(self, caller: Caller, namespace: str | None) -> tuple[str, "_Namespace"]:
        """Return the namespace to use: a field of authority is obeyed or refused."""
        names = [name for name in self.namespaces if caller.namespaces is None or name in caller.namespaces]
        if namespace is None and names:
            namespace = names[0]
        if namespace in names:
            assert namespace is not None
            return namespace, self._opened[namespace]
        there = f"use {' or '.join(names)}" if names else "this token opens none"
        raise ToolFailed(f"namespace {namespace!r} is not open here: {there}")

    async def _ask(self, call: Callable[[], Call[T]], in_doubt: Callable[[SdkError], None] = lambda error: None) -> T:
        """Send a call, signed anew for each attempt, until the node answers. All calls here may be repeated.

        `in_doubt` is called after each attempt that may have been carried out.
        """
        until, pause_s, refused = trio.current_time() + WAIT_S, _FIRST_PAUSE_S, 0
        while True:
            try:
                return await self._transport.ask(call())
            except (NotReached, OutcomeUnknown, ApiError) as error:
                busy = not isinstance(error, ApiError) or error.status in (429, 503)
                if isinstance(error, ApiError) and error.code in _UNSIGNED:
                    refused += 1
                    busy = refused <= _SIGNED_AGAIN
                if not busy or trio.current_time() + pause_s > until:
                    raise ToolFailed(_advice(error)) from None
                if isinstance(error, OutcomeUnknown):
                    in_doubt(error)
            except NodeRefused as error:
                raise ToolFailed(f"the node refuses: {error}") from None
            except SdkError as error:
                raise ToolFailed(str(error)) from None
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def check_private(namespaces: Sequence[str]) -> None:
    """Check names of private namespaces. Raises ValueError."""
    if PUBLIC in namespaces:
        raise ValueError(
            f"a private namespace cannot be called {PUBLIC!r}, as agents call the one that everyone can read: --public"
            " opens that"
        )


def _shown(namespace: str, vault: Vault | None, hit: Hit, score: float | None) -> Remembered | None:
    if vault is None:
        metadata = {key: value for key, value in hit.metadata.items() if key != "text"}
        return Remembered(id=hit.cid, text=hit.text, metadata=metadata, score=score)
    sealed = hit.metadata.get(FIELD)
    opened = vault.open(namespace, sealed) if isinstance(sealed, str) else None
    if opened is None:
        return None
    return Remembered(id=hit.cid, text=opened.text, metadata=opened.metadata, score=score)


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
