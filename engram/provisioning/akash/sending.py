"""Sends transactions: written down before they are sent, and followed until the chain's word is final.

    simulate -> sign -> commit (hash, bytes, timeout) -> send, and send the same bytes again -> included | refused
                                                            until a block's time is past the timeout -> expired

The chain takes unordered transactions: any number is in flight at once, and sending one twice does nothing. That one is
not there is certain only when its time is over and `quorum` endpoints say so. A chain that refuses unordered ones gets
ordered ones, one at a time (`turn`), of all gateways that share the ledger: there, one that is open is the turn.
"""

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeAlias, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.clock import Clock
from engram.http.client import HttpError
from engram.ledger import Ledger, owners
from engram.provisioning.akash import cosmos_model as c
from engram.provisioning.akash import sending_rules, transactions
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.endpoints import Endpoint, Head, Unanswered, decoded
from engram.provisioning.akash.messages import Message
from engram.provisioning.akash.model import blocks
from engram.provisioning.akash.sending_rules import Taken
from engram.provisioning.akash.signing import NS, Rejected, Signing
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from engram.provisioning.errors import Unavailable

INDEX_LAG_S: Final = 15.0
"""An endpoint may find a transaction this much later than its block was made."""
ALONE_S: Final = 600.0
"""So long after its time one endpoint's word is enough that a transaction is not there: the others may be gone."""
ORDERED_S: Final = 300.0
"""An ordered transaction is over after this for certain (signing.TTL_BLOCKS): one that nobody follows delays no other
for longer."""
RENUMBERED: Final = 5
LOOK_S: Final = 0.5
LOOK_AGAIN_S: Final = 2.0
AHEAD_BLOCKS: Final = 100
"""An answer may be of so many blocks after the endpoint's newest one that was seen."""
SEND_AGAIN_S: Final = 7.0
"""Seconds of the chain after which the same bytes go out again, to another endpoint."""

_log = structlog.get_logger("engram.provisioning.akash")


class SendingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How transactions are followed."""

    index_lag_s: float = INDEX_LAG_S
    look_s: float = LOOK_S


class Absent(msgspec.Struct, frozen=True):
    """An endpoint does not find the transaction."""


_NO_TURN: Final = "an ordered transaction of another gateway is under way; the account's next one waits for it"
Also: TypeAlias = Callable[[Connection], object]
Settled: TypeAlias = Callable[[Connection, Outgoing], None]


@final
class Sender:
    """Signs and sends for one account. Other programs may use the account at the same time."""

    def __init__(self, chain: Chain, signing: Signing, ledger: Ledger, clock: Clock, settings: SendingSettings) -> None:
        self._chain = chain
        self._signing = signing
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._one_at_a_time = trio.Lock()
        self._fresh: set[bytes] = set()
        """Transactions that this process committed to and has not sent yet."""

    @property
    def is_ordered(self) -> bool:
        """Whether the chain takes only ordered transactions."""
        return self._signing.is_ordered

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold this from `prepare` to the end of `follow`: ordered transactions go one after the other.

        Raises Unavailable, also where those of other gateways leave no room.
        """
        await self._signing.probe()
        if not self.is_ordered:
            await trio.lowlevel.checkpoint()
            yield
            return
        async with self._one_at_a_time:
            with trio.move_on_after(ORDERED_S) as patience:
                while await self._ledger.read(self._is_ordered_open):  # noqa: ASYNC110 - of another process
                    await trio.sleep(self._settings.look_s)
            if patience.cancelled_caught:
                raise Unavailable(_NO_TURN)
            yield

    async def prepare(
        self, wanted: tuple[Message, ...], subject: Subject, dseq: int | None, amount_uact: int = 0
    ) -> Outgoing | Rejected:
        """Simulate and sign; nothing is sent or written down. Raises Unavailable."""
        return await self._signing.make(wanted, subject, dseq, amount_uact)

    async def commit(self, outgoing: Outgoing, also: Also = lambda connection: True) -> bool:
        """Write the transaction down, with what is committed together with it; False when `also` returned False.

        Raises what the ledger raises, and Unavailable where another gateway has an ordered one under way: two would
        bear the same sequence.
        """

        def work(connection: Connection) -> bool:
            if outgoing.sequence is not None and self._is_ordered_open(connection):
                raise Unavailable(_NO_TURN)
            return _add(connection, outgoing, also)

        return await self._commit(outgoing, work)

    async def _commit(self, outgoing: Outgoing, work: Callable[[Connection], bool]) -> bool:
        if not await self._ledger.write(work):
            return False
        self._fresh.add(outgoing.hash)
        return True

    def _is_ordered_open(self, connection: Connection) -> bool:
        return transactions.is_ordered_open(connection, self._clock.now() - ORDERED_S)

    async def follow(self, outgoing: Outgoing, also: Settled | None = None) -> Outgoing:
        """Send it and return it once its state is final; that state is committed, together with what `also` writes.

        Waits as long as it takes.
        """
        renumbered = 0
        while outgoing.state is TxState.OPEN:
            settled = await self._follow(outgoing)
            if isinstance(settled, int):  # the sequence that the chain wants
                renumbered += 1
                if renumbered < RENUMBERED:
                    outgoing = await self._renumber(outgoing, settled)
                    continue
                settled = msgspec.structs.replace(outgoing, state=TxState.EXPIRED)
            outgoing = msgspec.structs.replace(settled, settled_at=self._clock.now())
            await self._ledger.write(partial(_settle, after=outgoing, also=also))
        self._fresh.discard(outgoing.hash)
        return outgoing

    async def _renumber(self, outgoing: Outgoing, sequence: int) -> Outgoing:
        """Sign the same messages under the sequence that the chain wants; the old one can never be on chain."""
        again = await self._signing.renumber(outgoing, sequence)
        expired = msgspec.structs.replace(outgoing, state=TxState.EXPIRED, settled_at=self._clock.now())
        also = partial(_settle, after=expired)  # open until here: no other gateway has begun one
        await self._commit(again, partial(_add, outgoing=again, also=also))
        return again

    # Following.

    async def _follow(self, outgoing: Outgoing) -> Outgoing | int:
        """Return the transaction in its final state, or the sequence that it must have instead."""
        maybe_sent = outgoing.hash not in self._fresh
        refused_by: set[str] = set()
        sent_at = looked_at = -1e9
        looked_height = sends = looks = 0
        is_logged = False
        while True:
            try:
                usable = await self._chain.endpoints.usable()
                head = await self._chain.endpoints.head()
                now = trio.current_time()
                if maybe_sent and (head.height > looked_height or now - looked_at >= LOOK_AGAIN_S):
                    looked_at, looked_height = now, head.height
                    first = looks % len(usable)  # one that hides it would do so again
                    looks += 1
                    found = await self._look_up(outgoing, usable[first:] + usable[:first])
                    if found is not None:
                        if found.state is TxState.EXPIRED:
                            self._chain.endpoints.rotate()
                        return found
                over = self._is_over(outgoing, head)
                if not over and head.time - sent_at >= SEND_AGAIN_S:
                    sent_at = head.time
                    others = [one for one in usable if one.url not in refused_by] or usable
                    endpoint = others[sends % len(others)]  # one that swallowed it would do so again
                    sends += 1
                    answer = await self._broadcast(outgoing, endpoint, maybe_sent=maybe_sent)
                    if isinstance(answer, int):
                        return answer
                    if answer is not None and answer.state is TxState.OPEN:  # kept for what may become of it
                        outgoing, answer = answer, None
                        if not is_logged and (outgoing.codespace, outgoing.code) == sending_rules.LOW_FEE:
                            is_logged = True
                            _log.error(
                                "akash_fee_too_low",
                                setting="akash.gas_price",
                                transaction=outgoing.name,
                                subject=outgoing.subject,
                                endpoint=endpoint.url,
                                reason=(outgoing.log or "")[:200],
                            )
                    if answer is not None:
                        refused_by.add(endpoint.url)
                        if len(refused_by) >= min(self._chain.endpoints.quorum, len(usable)):
                            return answer
                        sent_at = -1e9  # one endpoint's word alone: it may have passed the bytes on
                        continue
                    maybe_sent = True
                elif not maybe_sent:
                    return msgspec.structs.replace(outgoing, state=TxState.EXPIRED)
            except Unavailable as error:
                _log.warning("akash_unanswered", transaction=outgoing.name, reason=str(error))
            await trio.sleep(self._settings.look_s)

    async def _broadcast(self, outgoing: Outgoing, endpoint: Endpoint, *, maybe_sent: bool) -> Outgoing | int | None:
        """Send it to one endpoint; None: look for it, or send it again. It may have been taken even so.

        One that is still open was refused in a way that binds nobody else: it bears what was said.
        """
        raw = base64.b64encode(outgoing.raw).decode()
        await owners.until_held(self._ledger)
        self._fresh.discard(outgoing.hash)  # from here on it may have been taken, also when this task is cancelled
        kill_points.point(f"broadcast:{outgoing.subject}:before")
        answer = await self._chain.endpoints.ask(
            endpoint, "POST", "/cosmos/tx/v1beta1/txs", {"tx_bytes": raw, "mode": "BROADCAST_MODE_SYNC"}
        )
        kill_points.point(f"broadcast:{outgoing.subject}:after")
        if isinstance(answer, Unanswered) or answer.status != 200:
            why = answer.reason if isinstance(answer, Unanswered) else f"it answers {answer.status}"
            self._chain.endpoints.failed(endpoint, why)
            return None
        try:
            response = answer.decode(c.TxAnswer).tx_response
        except HttpError as error:
            self._chain.endpoints.failed(endpoint, str(error))
            return None
        log = response.raw_log[:1_000]
        match sending_rules.taken(response.codespace, response.code, log, maybe_sent=maybe_sent):
            case Taken.RENUMBER if outgoing.sequence is not None:
                expected = sending_rules.expected_sequence(log)
                return None if expected is None else expected[0]
            case Taken.REFUSED | Taken.RENUMBER:
                return _settled(outgoing, TxState.REFUSED, response)
            case Taken.AGAIN:
                _log.info("akash_send_again", transaction=outgoing.name, code=response.code, reason=log[:200])
                return msgspec.structs.replace(outgoing, code=response.code, codespace=response.codespace, log=log)
            case Taken.TAKEN:
                pass
        return None

    async def _look_up(self, outgoing: Outgoing, usable: Sequence[Endpoint]) -> Outgoing | None:
        """Return it in its final state, on which endpoints agree; None when that is not known yet.

        One that shows it alone is believed once the others have had time to index it.
        """
        absent = shown = 0
        votes: dict[tuple[str, int], list[c.TxResponse]] = {}
        alone = is_over = False
        for endpoint in usable:
            response = await self._shown_by(endpoint, outgoing)
            if response is None or endpoint.head is None:
                continue
            is_over = self._is_over(outgoing, endpoint.head, self._settings.index_lag_s)
            if isinstance(response, c.TxResponse):
                shown += 1
                those = votes.setdefault((response.codespace, response.code), [])
                those.append(response)
                if len(those) >= self._chain.endpoints.quorum:
                    return _found(outgoing, those[0])
            elif not is_over:
                return None  # not yet: the others are not asked before its time is over
            else:
                absent += 1
                alone = alone or self._is_over(outgoing, endpoint.head, ALONE_S)
        if absent and (absent >= self._chain.endpoints.quorum or (alone and not shown)):
            return msgspec.structs.replace(outgoing, state=TxState.EXPIRED)
        if shown and (is_over or (not absent and shown == 1)):
            return _found(outgoing, max(votes.values(), key=len)[0])
        return None

    async def _shown_by(self, endpoint: Endpoint, outgoing: Outgoing) -> c.TxResponse | Absent | None:
        """Return what the endpoint shows of it; None when that cannot be used."""
        answer = await self._chain.endpoints.ask(endpoint, "GET", f"/cosmos/tx/v1beta1/txs/{outgoing.name}")
        if isinstance(answer, Unanswered):
            self._chain.endpoints.failed(endpoint, answer.reason)
            return None
        if answer.status == 404:
            return Absent()
        if answer.status != 200:
            return None
        try:
            response = decoded(answer, c.TxAnswer).tx_response
        except Unavailable as error:
            self._chain.endpoints.failed(endpoint, str(error))
            return None
        height = int(response.height)
        if response.txhash.upper() != outgoing.name or height <= 0:
            return None
        if endpoint.head is None or height > endpoint.head.height + AHEAD_BLOCKS:
            self._chain.endpoints.failed(endpoint, f"it shows a transaction in its future block {height}")
            return None
        return response

    def _is_over(self, outgoing: Outgoing, head: Head, margin_s: float = 0.0) -> bool:
        """Whether the block is past the transaction's time by that much."""
        if outgoing.timeout_height is not None:
            return head.height > outgoing.timeout_height + blocks(margin_s)
        return head.time > outgoing.timeout_ns / NS + margin_s


def _add(connection: Connection, outgoing: Outgoing, also: Also) -> bool:
    if also(connection) is False:
        return False
    transactions.add(connection, outgoing)
    return True


def _settle(connection: Connection, after: Outgoing, also: Settled | None = None) -> None:
    if transactions.settle(connection, after) and also is not None:
        also(connection, after)


def _found(outgoing: Outgoing, response: c.TxResponse) -> Outgoing:
    return _settled(outgoing, TxState.INCLUDED if response.code == 0 else TxState.REFUSED, response)


def _settled(outgoing: Outgoing, state: TxState, response: c.TxResponse) -> Outgoing:
    return msgspec.structs.replace(
        outgoing,
        state=state,
        code=response.code,
        codespace=response.codespace,
        log=response.raw_log[:1_000],
        height=int(response.height) or None,
        gas_used=int(response.gas_used) or None,
    )
