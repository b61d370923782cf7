"""Makes transactions: simulated as they will be sent, then signed; nothing is sent or written down here.

The chain takes unordered transactions. One that refuses them is found out by a simulation, and gets ordered ones from
then on.
"""

import base64
import secrets
from typing import Final, final

import msgspec
import structlog
import trio

from engram.clock import Clock
from engram.http.client import Response
from engram.ledger import Ledger
from engram.provisioning.akash import cosmos_model as c
from engram.provisioning.akash import sending_rules, transactions, tx
from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.endpoints import Unanswered, decoded, refusal
from engram.provisioning.akash.messages import CloseDeployment, DeploymentID, Message
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from engram.provisioning.errors import Unavailable

TTL_S: Final = 30.0
"""From the newest block's time to the timeout of an unordered transaction."""
TTL_BLOCKS: Final = 20
"""The same, of an ordered one."""
NUMBERED: Final = 5
"""So often an ordered transaction gets another sequence before it is signed."""
NS: Final = 1_000_000_000

_log = structlog.get_logger("engram.provisioning.akash")


class Rejected(msgspec.Struct, frozen=True):
    """The simulation refused it: nothing was signed."""

    text: str


class SigningSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How transactions are made."""

    chain_id: str
    gas_price: str = "0.025"
    """uakt for each gas, decimal."""
    ttl_s: float = TTL_S


@final
class Signing:
    """Makes the transactions of one account."""

    def __init__(self, chain: Chain, signer: Signer, ledger: Ledger, clock: Clock, settings: SigningSettings) -> None:
        self._chain = chain
        self._signer = signer
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._probing = trio.Lock()
        self._probed = False
        self._last_ns = 0
        self.is_ordered = False
        """Whether the chain takes only ordered transactions."""

    async def probe(self) -> None:
        """Learn from a simulation, once, whether the chain takes unordered transactions. Raises Unavailable."""
        async with self._probing:
            if self._probed:
                return
            harmless = CloseDeployment(DeploymentID(self._chain.owner, 1))
            answer = await self._simulate((harmless,), await self._ordering())
            if isinstance(answer, str) and sending_rules.needs_order(answer):
                _log.warning("akash_takes_ordered_transactions_only", reason=answer[:200])
                self.is_ordered = True
            self._probed = True

    async def make(
        self, wanted: tuple[Message, ...], subject: Subject, dseq: int | None, amount_uact: int = 0
    ) -> Outgoing | Rejected:
        """Simulate and sign. Raises Unavailable."""
        ran_out_at = await self._ran_out_at(dseq, subject)
        ordering = await self._ordering()
        gas = await self._simulate(wanted, ordering)
        if isinstance(gas, str) and isinstance(ordering, tx.Unordered) and sending_rules.needs_order(gas):
            self.is_ordered = True
            ordering = await self._ordering()
            gas = await self._simulate(wanted, ordering)
        if isinstance(gas, str) and isinstance(ordering, tx.Ordered):
            gas, ordering = await self._resequenced(wanted, ordering, gas)
        if isinstance(gas, str):
            return Rejected(gas)
        limit = sending_rules.gas_limit(gas, ran_out_at)
        if isinstance(ordering, tx.Unordered):
            ordering = await self._ordering()  # set anew after the simulation
        return await self._sign(wanted, ordering, limit, subject, dseq, amount_uact)

    async def _resequenced(
        self, wanted: tuple[Message, ...], ordering: tx.Ordered, refused: str
    ) -> tuple[int | str, tx.Ordered]:
        """Simulate under the sequence that the chain wants, as long as it is another: transactions of others that
        wait for their block count already. Raises Unavailable where the chain never takes what it asked for.
        """
        gas: int | str = refused
        for _ in range(NUMBERED):
            if not isinstance(gas, str) or (sequence := sending_rules.sequence_wanted(gas)) is None:
                return gas, ordering
            ordering = msgspec.structs.replace(ordering, sequence=sequence)
            gas = await self._simulate(wanted, ordering)
        if isinstance(gas, str) and sending_rules.sequence_wanted(gas) is not None:
            raise Unavailable(f"the account's next sequence is not known: {gas[:200]}")
        return gas, ordering

    async def renumber(self, outgoing: Outgoing, sequence: int) -> Outgoing:
        """Sign the same messages under another sequence. Raises Unavailable."""
        head = await self._chain.endpoints.head()
        wanted = tx.decode_tx(outgoing.raw).messages
        ordering = tx.Ordered(sequence, head.height + TTL_BLOCKS)
        return await self._sign(
            wanted, ordering, outgoing.gas_limit, outgoing.subject, outgoing.dseq, outgoing.amount_uact
        )

    async def _ordering(self) -> tx.Ordering:
        if self.is_ordered:
            account = await self._chain.account()
            if account is None:
                raise Unavailable(f"the account {self._chain.owner} was never funded: send AKT to it")
            head = await self._chain.endpoints.head()
            return tx.Ordered(int(account.sequence), head.height + TTL_BLOCKS)
        head = await self._chain.endpoints.head()
        # Unique for the account by chance: other gateways of it, and this one before its restart, know the same block.
        return tx.Unordered(int((head.time + self._settings.ttl_s) * NS) + secrets.randbelow(NS))

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
            # By chance: another gateway that shares the ledger may sign at the same time.
            self._last_ns = max(self._last_ns, int(self._clock.now() * NS)) + 1 + secrets.randbelow(NS // 1_000)
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

    async def _ran_out_at(self, dseq: int | None, subject: Subject) -> int | None:
        last = await self._ledger.read(lambda c: transactions.latest(c, dseq, subject))
        if last is None or last.state is not TxState.REFUSED or (last.codespace, last.code) != sending_rules.OUT_OF_GAS:
            return None
        return last.gas_used


def _gas(answer: Response) -> int:
    """Return the gas that a simulation used. Raises Unavailable for what none of ours can use."""
    used = int(decoded(answer, c.SimulateAnswer).gas_info.gas_used)
    if not 0 < used <= sending_rules.MOST_GAS:
        raise Unavailable(f"the simulation used {used} gas; one of ours uses 1 to {sending_rules.MOST_GAS}")
    return used
