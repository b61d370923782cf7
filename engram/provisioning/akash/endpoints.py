"""The chain's REST endpoints: which of them may be believed now.

An endpoint is used while it serves the right chain, is not catching up, shows no block of the future, and is at most
`LAG_BLOCKS` behind the newest block that is believed. Where two at least show one and none shows another, our clock is
behind: what runs is watched and closed then, by the chain's time, and nothing new is begun. What one says is not there
is not there only when another one says so too.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Final, TypeVar, final

import msgspec
import trio

from engram.clock import Clock
from engram.http.client import HttpClient, HttpError, NotSent, Response
from engram.provisioning.akash import cosmos_model as c
from engram.provisioning.errors import Unavailable

LAG_BLOCKS: Final = 3
FASTEST_S: Final = 0.5
"""No chain makes blocks faster: a head that is ahead by more is not believed."""
FUTURE_S: Final = 120.0
"""A block's time may be this much ahead of our clock. Timeouts follow it: one of the far future would stay open."""
BEHIND_MOST_S: Final = 86_400.0
"""Our clock is taken for wrong, and not the endpoints, where it is behind by no more than this."""
HEAD_KEPT_S: Final = 1.0
MAX_ANSWER_BYTES: Final = 4_000_000

T = TypeVar("T")


class Head(msgspec.Struct, frozen=True):
    """A block: its height and time (unix seconds)."""

    height: int
    time: float


def believed(heads: Sequence[Head]) -> list[bool]:
    """Return for each head whether it can be of the same chain as most of the others.

    A height is not believed when, seen from most others, no chain could have reached it in the time between the blocks.
    With two endpoints nobody knows which of them is wrong: both are believed.
    """

    def is_too_far(head: Head, other: Head) -> bool:
        ahead = head.height - other.height - LAG_BLOCKS
        return ahead > max(0.0, head.time - other.time) / FASTEST_S + LAG_BLOCKS

    return [2 * sum(is_too_far(head, other) for other in heads) <= max(2, len(heads) - 1) for head in heads]


def behind_s(heads: Sequence[Head], now: float) -> float:
    """Return by how much our clock is behind (seconds), 0 where it is not; `heads` are those of all that answer.

    Two at least must agree, within FUTURE_S, that it is more than FUTURE_S and at most BEHIND_MOST_S.
    """
    ahead = sorted(head.time - now for head in heads)
    if len(ahead) < 2 or ahead[0] <= FUTURE_S or ahead[-1] > BEHIND_MOST_S or ahead[-1] - ahead[0] > FUTURE_S:
        return 0.0
    return ahead[0]


class Unanswered(msgspec.Struct, frozen=True):
    """An endpoint gave no usable answer; `sent`: the request may have arrived all the same."""

    reason: str
    sent: bool


@final
class Endpoint:
    """One endpoint and what was last seen of it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.head: Head | None = None
        self.trouble = ""
        """Why it is not used now; empty: it is."""


@final
class Endpoints:
    """All endpoints of one chain."""

    def __init__(
        self,
        http: HttpClient,
        urls: Sequence[str],
        chain_id: str,
        clock: Clock,
        *,
        timeout_s: float,
        head_kept_s: float = HEAD_KEPT_S,
    ) -> None:
        self._http = http
        self._chain_id = chain_id
        self._clock = clock
        self._all = [Endpoint(url) for url in urls]
        self._timeout_s = timeout_s
        self._head_kept_s = head_kept_s
        self._looked_at = -1e9
        self._looking = trio.Lock()
        self._first = 0
        self._behind_s = 0.0

    @property
    def quorum(self) -> int:
        """How many endpoints must agree that something is not there."""
        return min(2, len(self._all))

    def troubles(self) -> dict[str, str]:
        """Return the endpoints that are not used, with the reason."""
        return {endpoint.url: endpoint.trouble for endpoint in self._all if endpoint.trouble}

    async def usable(self, at_height: int = 0) -> list[Endpoint]:
        """Return the endpoints that may be believed, the one that answered last first, at this height or above.

        Raises Unavailable when there is none.
        """
        await self._look()
        # Of those that do not answer now as well: what they showed before makes others stale.
        seen = [(e, e.head) for e in self._all if e.head is not None]
        newest = 0
        for (endpoint, head), is_believed in zip(seen, believed([head for _, head in seen]), strict=True):
            if is_believed:
                newest = max(newest, head.height)
            else:
                endpoint.trouble = endpoint.trouble or f"its block {head.height} is too far ahead of the others'"
        found = [
            e
            for e in self._all[self._first :] + self._all[: self._first]
            if not e.trouble and e.head is not None and e.head.height >= max(newest - LAG_BLOCKS, at_height)
        ]
        if not found:
            troubles = "; ".join(f"{url}: {why}" for url, why in self.troubles().items())
            raise Unavailable(f"no endpoint of {self._chain_id} can be used ({troubles or 'all are behind'})")
        return found

    async def head(self) -> Head:
        """Return the newest block that a usable endpoint knows. Raises Unavailable."""
        return max((e.head for e in await self.usable() if e.head is not None), key=lambda head: head.height)

    async def require_clock(self) -> None:
        """Raise Unavailable where endpoints agree that our clock is behind, or none can be used."""
        await self.usable()
        if self._behind_s:
            raise Unavailable(f"this machine's clock is {self._behind_s:.0f} s behind the chain's: set it (NTP)")

    def failed(self, endpoint: Endpoint, why: str) -> None:
        """Leave the endpoint alone until it is looked at again, and ask another one first."""
        endpoint.trouble = why
        self._first = (self._all.index(endpoint) + 1) % len(self._all)

    def rotate(self) -> None:
        """Ask another endpoint first: the one so far took what never came to be."""
        self._first = (self._first + 1) % len(self._all)

    async def ask(self, endpoint: Endpoint, method: str, path: str, json: object = None) -> Response | Unanswered:
        """Ask one endpoint, whatever the status of its answer."""
        try:
            answer = await self._http.request(
                method,
                endpoint.url + path,
                json=json,
                read_s=self._timeout_s,
                total_s=self._timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except HttpError as error:
            return Unanswered(str(error), sent=not isinstance(error, NotSent))
        return answer

    async def _look(self) -> None:
        async with self._looking:
            if trio.current_time() - self._looked_at < self._head_kept_s:
                return
            seen: dict[Endpoint, Head] = {}
            async with trio.open_nursery() as nursery:
                for endpoint in self._all:
                    nursery.start_soon(self._look_at, endpoint, seen)
            now = self._clock.now()
            self._behind_s = behind_s(list(seen.values()), now)
            for endpoint, head in seen.items():
                if head.time <= now + FUTURE_S or self._behind_s:
                    endpoint.head = head
                else:
                    endpoint.trouble = f"its newest block is of the future: {head.time - now:.0f} s ahead of our clock"
            self._looked_at = trio.current_time()

    async def _look_at(self, endpoint: Endpoint, seen: dict[Endpoint, Head]) -> None:
        block = await self._decoded(endpoint, "/cosmos/base/tendermint/v1beta1/blocks/latest", c.LatestBlock)
        syncing = await self._decoded(endpoint, "/cosmos/base/tendermint/v1beta1/syncing", c.Syncing)
        if isinstance(block, str) or isinstance(syncing, str):
            endpoint.trouble = block if isinstance(block, str) else str(syncing)
            return
        header = block.block.header
        try:
            head = Head(int(header.height), dt.datetime.fromisoformat(header.time).timestamp())
        except (ValueError, OverflowError):
            endpoint.trouble = f"its newest block has height {header.height[:40]!r} and time {header.time[:40]!r}"
            return
        if header.chain_id != self._chain_id:
            endpoint.trouble, endpoint.head = f"it serves {header.chain_id[:40]!r}, not {self._chain_id!r}", None
            return
        endpoint.trouble = "it is catching up" if syncing.syncing else ""
        seen[endpoint] = head

    async def _decoded(self, endpoint: Endpoint, path: str, type_: type[T]) -> T | str:
        answer = await self.ask(endpoint, "GET", path)
        if isinstance(answer, Unanswered):
            return answer.reason
        if answer.status != 200:
            return f"it answers {answer.status}"
        try:
            return answer.decode(type_)
        except HttpError as error:
            return str(error)


def decoded(answer: Response, type_: type[T]) -> T:
    """Return the answer as this type. Raises Unavailable: an answer that cannot be read says nothing."""
    try:
        return answer.decode(type_)
    except HttpError as error:
        raise Unavailable(str(error)) from error


def refusal(answer: Response) -> c.Refusal:
    """Return the gateway's error answer, or what stands in its place."""
    try:
        return answer.decode(c.Refusal)
    except HttpError:
        return c.Refusal(0, answer.content[:300].decode("utf-8", "replace"))
