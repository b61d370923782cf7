"""Sends transactions: written down before they are sent, and followed until the chain's word is final.

    simulate -> sign -> commit (hash, bytes, timeout) -> send, and send the same bytes again -> included | refused
                                                            until a block's time is past the timeout -> expired

The chain takes unordered transactions: any number is in flight at once, and sending one twice does nothing. That one is
not there is certain only when its time is over and `quorum` endpoints say so. A chain that refuses unordered ones gets
ordered ones, one at a time (`turn`).
"""

import base64
import binascii
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeAlias, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.clock import Clock
from engram.http.client import HttpError, Response
from engram.ledger import Ledger
from engram.provisioning.akash import chain_model as m
from engram.provisioning.akash import sending_rules, transactions, tx
from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.endpoints import Endpoint, Head, Unanswered, decoded, refusal
from engram.provisioning.akash.messages import CloseDeployment, DeploymentID, Message
from engram.provisioning.akash.model import blocks
from engram.provisioning.akash.sending_rules import Taken
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from engram.provisioning.errors import Unavailable

TTL_S: Final = 30.0
"""From the newest block's time to the timeout of an unordered transaction."""
TTL_BLOCKS: Final = 20
"""The same, of an ordered one."""
INDEX_LAG_S: Final = 15.0
"""An endpoint may find a transaction this much later than its block was made."""
ALONE_S: Final = 600.0
"""So long after its time one endpoint's word is enough that a transaction is not there: the others may be gone."""
RENUMBERED: Final = 5
LOOK_S: Final = 0.5
LOOK_AGAIN_S: Final = 2.0
SEND_AGAIN_S: Final = 7.0
"""Seconds of the chain after which the same bytes go out again, to another endpoint."""
_NS: Final = 1_000_000_000

_log = structlog.get_logger("engram.provisioning.akash")


class Rejected(msgspec.Struct, frozen=True):
    """The simulation refused it: nothing was signed."""

    text: str


class SendingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How transactions are made."""

    chain_id: str
    gas_price: str = "0.025"
    """uakt for each gas, decimal."""
    ttl_s: float = TTL_S
    index_lag_s: float = INDEX_LAG_S
    look_s: float = LOOK_S


Also: TypeAlias = Callable[[Connection], object]
Settled: TypeAlias = Callable[[Connection, Outgoing], None]


@final
class Sender:
    """Signs and sends for one account. Other programs may use the account at the same time."""

    def __init__(self, chain: Chain, signer: Signer, ledger: Ledger, clock: Clock, settings: SendingSettings) -> None:
        self._chain = chain
        self._signer = signer
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._ordered = False
        self._probed = False
        self._one_at_a_time = trio.Lock()
        self._last_ns = 0
        self._fresh: set[bytes] = set()
        """Transactions that this process committed to and has not sent yet."""

    @property
    def is_ordered(self) -> bool:
        """Whether the chain takes only ordered transactions."""
        return self._ordered

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold this from `prepare` to the end of `follow`: ordered transactions go one after the other.

        Raises Unavailable.
        """
        if not self._probed:
            async with self._one_at_a_time:
                await self._probe()
        if not self._ordered:
            await trio.lowlevel.checkpoint()
            yield
            return
        async with self._one_at_a_time:
            yield

    async def prepare(
        self, wanted: tuple[Message, ...], subject: Subject, dseq: int | None, amount_uact: int = 0
    ) -> Outgoing | Rejected:
        """Simulate and sign; nothing is sent or written down. Raises Unavailable."""
        ran_out_at = None if dseq is None else await self._ran_out_at(dseq, subject)
        ordering = await self._ordering()
        gas = await self._simulate(wanted, ordering)
        if isinstance(gas, str) and isinstance(ordering, tx.Unordered) and sending_rules.needs_order(gas):
            self._ordered = True
            ordering = await self._ordering()
            gas = await self._simulate(wanted, ordering)
        if isinstance(gas, str):
            return Rejected(gas)
        limit = sending_rules.gas_limit(gas, ran_out_at)
        if isinstance(ordering, tx.Unordered):
            ordering = await self._ordering()  # set anew after the simulation
        return await self._sign(wanted, ordering, limit, subject, dseq, amount_uact)

    async def commit(self, outgoing: Outgoing, also: Also = lambda connection: True) -> bool:
        """Write the transaction down, with what is committed together with it; False when `also` returned False.

        Raises what the ledger raises.
        """

        def work(connection: Connection) -> bool:
            if also(connection) is False:
                return False
            transactions.add(connection, outgoing)
            return True

        if not await self._ledger.write(work):
            return False
        self._fresh.add(outgoing.hash)
        return True

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

    # Making.

    async def _probe(self) -> None:
        """Learn from a simulation whether the chain takes unordered transactions. Raises Unavailable."""
        if self._probed:
            return
        harmless = CloseDeployment(DeploymentID(self._chain.owner, 1))
        answer = await self._simulate((harmless,), await self._ordering())
        if isinstance(answer, str) and sending_rules.needs_order(answer):
            _log.warning("akash_takes_ordered_transactions_only", reason=answer[:200])
            self._ordered = True
        self._probed = True

    async def _ordering(self) -> tx.Ordering:
        if self._ordered:
            account = await self._chain.account()
            if account is None:
                raise Unavailable(f"the account {self._chain.owner} was never funded: send AKT to it")
            head = await self._chain.endpoints.head()
            return tx.Ordered(int(account.sequence), head.height + TTL_BLOCKS)
        head = await self._chain.endpoints.head()
        # Unique for the account by chance: other gateways of it, and this one before its restart, know the same block.
        return tx.Unordered(int((head.time + self._settings.ttl_s) * _NS) + secrets.randbelow(_NS))

    async def _simulate(self, wanted: tuple[Message, ...], ordering: tx.Ordering) -> int | str:
        """Return the gas used, or the text of a refusal that no other endpoint contradicts. Raises Unavailable."""
        raw = base64.b64encode(tx.for_simulation(wanted, ordering, self._signer.public_key)).decode()
        reasons, refusals = [], list[str]()
        for endpoint in await self._chain.endpoints.usable():
            answer = await self._chain.endpoints.ask(endpoint, "POST", "/cosmos/tx/v1beta1/simulate", {"tx_bytes": raw})
            if isinstance(answer, Unanswered):
                self._chain.endpoints.failed(endpoint, answer.reason)
                reasons.append(answer.reason)
                continue
            if answer.status == 200:
                try:
                    return _gas(answer)
                except Unavailable as error:
                    why = str(error)
            else:
                refused = refusal(answer)
                if sending_rules.is_of_its_time(refused.message):
                    reasons.append(f"{endpoint.url}: {refused.message[:200]}")
                    continue
                if refused.code:  # the gateway's own words: the chain has looked at it
                    refusals.append(refused.message)
                    if len(refusals) >= self._chain.endpoints.quorum:
                        break
                    continue
                why = f"it answers {answer.status}"
            self._chain.endpoints.failed(endpoint, why)
            reasons.append(f"{endpoint.url}: {why}")
        if refusals:
            return refusals[0]
        raise Unavailable("; ".join(reasons))

    async def _sign(
        self,
        wanted: tuple[Message, ...],
        ordering: tx.Ordering,
        gas_limit: int,
        subject: Subject,
        dseq: int | None,
        amount_uact: int,
    ) -> Outgoing:
        fee = tx.fee_of(gas_limit, self._settings.gas_price)
        account = tx.Account(await self._chain.account_number(), self._settings.chain_id)
        signed = tx.sign(wanted, ordering, fee, account, self._signer)
        if isinstance(ordering, tx.Unordered):
            timeout_ns, height, sequence = ordering.timeout_ns, None, None
        else:
            self._last_ns = max(self._last_ns + 1, int(self._clock.now() * _NS))
            timeout_ns, height, sequence = self._last_ns, ordering.timeout_height, ordering.sequence
        return Outgoing(
            hash=bytes.fromhex(signed.hash),
            subject=subject,
            dseq=dseq,
            raw=signed.raw,
            timeout_ns=timeout_ns,
            timeout_height=height,
            sequence=sequence,
            gas_limit=gas_limit,
            fee_uakt=sum(int(coin.amount) for coin in fee.amount),
            amount_uact=amount_uact,
            created_at=self._clock.now(),
        )

    async def _ran_out_at(self, dseq: int, subject: Subject) -> int | None:
        last = await self._ledger.read(lambda c: transactions.latest(c, dseq, subject))
        ran_out = last is not None and (last.codespace, last.code) == sending_rules.OUT_OF_GAS
        return last.gas_used if ran_out and last is not None else None

    async def _renumber(self, outgoing: Outgoing, sequence: int) -> Outgoing:
        """Sign the same messages under the sequence that the chain wants; the old one can never be on chain."""
        head = await self._chain.endpoints.head()
        wanted = tx.decode_tx(outgoing.raw).messages
        ordering = tx.Ordered(sequence, head.height + TTL_BLOCKS)
        again = await self._sign(
            wanted, ordering, outgoing.gas_limit, outgoing.subject, outgoing.dseq, outgoing.amount_uact
        )
        expired = msgspec.structs.replace(outgoing, state=TxState.EXPIRED, settled_at=self._clock.now())
        await self.commit(again, partial(_settle, after=expired))
        return again

    # Following.

    async def _follow(self, outgoing: Outgoing) -> Outgoing | int:
        """Return the transaction in its final state, or the sequence that it must have instead."""
        maybe_sent = outgoing.hash not in self._fresh
        sent_at = looked_at = -1e9
        looked_height = sends = 0
        while True:
            try:
                usable = await self._chain.endpoints.usable()
                head = await self._chain.endpoints.head()
                now = trio.current_time()
                if maybe_sent and (head.height > looked_height or now - looked_at >= LOOK_AGAIN_S):
                    looked_at, looked_height = now, head.height
                    found = await self._look_up(outgoing, usable)
                    if found is not None:
                        if found.state is TxState.EXPIRED:
                            self._chain.endpoints.rotate()
                        return found
                over = self._is_over(outgoing, head)
                if not over and head.time - sent_at >= SEND_AGAIN_S:
                    sent_at = head.time
                    endpoint = usable[sends % len(usable)]  # one that swallowed it would do so again
                    sends += 1
                    answer = await self._broadcast(outgoing, endpoint, maybe_sent=maybe_sent)
                    if answer is not None:
                        return answer
                    maybe_sent = True
                elif not maybe_sent:
                    return msgspec.structs.replace(outgoing, state=TxState.EXPIRED)
            except Unavailable as error:
                _log.warning("akash_unanswered", transaction=outgoing.name, reason=str(error))
            await trio.sleep(self._settings.look_s)

    async def _broadcast(self, outgoing: Outgoing, endpoint: Endpoint, *, maybe_sent: bool) -> Outgoing | int | None:
        """Send it to one endpoint; None: look for it, or send it again. It may have been taken even so."""
        raw = base64.b64encode(outgoing.raw).decode()
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
            response = answer.decode(m.TxAnswer).tx_response
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
            case Taken.TAKEN:
                pass
        return None

    async def _look_up(self, outgoing: Outgoing, usable: list[Endpoint]) -> Outgoing | None:
        """Return it in its final state; None when that is not known yet."""
        absent = 0
        for endpoint in usable:
            answer = await self._chain.endpoints.ask(endpoint, "GET", f"/cosmos/tx/v1beta1/txs/{outgoing.name}")
            if isinstance(answer, Unanswered):
                self._chain.endpoints.failed(endpoint, answer.reason)
                continue
            if answer.status == 200:
                try:
                    response = decoded(answer, m.TxAnswer).tx_response
                except Unavailable as error:
                    self._chain.endpoints.failed(endpoint, str(error))
                    continue
                if response.txhash.upper() != outgoing.name or int(response.height) <= 0:
                    continue
                return _settled(outgoing, TxState.INCLUDED if response.code == 0 else TxState.REFUSED, response)
            if answer.status == 404 and endpoint.head is not None:
                if not self._is_over(outgoing, endpoint.head, self._settings.index_lag_s):
                    return None  # not yet: the others are not asked before its time is over
                absent += 1
                alone = self._is_over(outgoing, endpoint.head, ALONE_S)
                if absent >= self._chain.endpoints.quorum or alone:
                    return msgspec.structs.replace(outgoing, state=TxState.EXPIRED)
        return None

    def _is_over(self, outgoing: Outgoing, head: Head, margin_s: float = 0.0) -> bool:
        """Whether the block is past the transaction's time by that much."""
        if outgoing.timeout_height is not None:
            return head.height > outgoing.timeout_height + blocks(margin_s)
        return head.time > outgoing.timeout_ns / _NS + margin_s


def _settle(connection: Connection, after: Outgoing, also: Settled | None = None) -> None:
    if transactions.settle(connection, after) and also is not None:
        also(connection, after)


def _settled(outgoing: Outgoing, state: TxState, response: m.TxResponse) -> Outgoing:
    return msgspec.structs.replace(
        outgoing,
        state=state,
        code=response.code,
        codespace=response.codespace,
        log=response.raw_log[:1_000],
        height=int(response.height) or None,
        gas_used=int(response.gas_used) or None,
    )


def _gas(answer: Response) -> int:
    """Return the gas that a simulation used. Raises Unavailable for what none of ours can use."""
    used = int(decoded(answer, m.SimulateAnswer).gas_info.gas_used)
    if not 0 < used <= sending_rules.MOST_GAS:
        raise Unavailable(f"the simulation used {used} gas; one of ours uses 1 to {sending_rules.MOST_GAS}")
    return used


def answer_data(response: m.TxResponse) -> bytes:
    """Return the answers of the transaction's messages; empty when they cannot be read."""
    try:
        return binascii.unhexlify(response.data)
    except binascii.Error:
        return b""
