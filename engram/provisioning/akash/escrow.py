"""The escrows of our deployments: as large as the session needs, filled up when it is extended, never refilled when
closed. An escrow that runs out closes its deployment by itself: a gateway that is gone pays for nothing much longer.

A deposit is committed to before it is sent, and there is one at a time for a deployment, of all gateways that share the
ledger.
"""

from collections.abc import Collection
from typing import Final, final

import structlog
import trio
from sqlalchemy import Connection

from engram.provisioning.akash import bidding, chain_model, records, transactions
from engram.provisioning.akash.cosmos import Coin
from engram.provisioning.akash.messages import AccountDeposit, Deposit, EscrowID, EscrowScope
from engram.provisioning.akash.model import PICO, Deployment, DeploymentState
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.signing import Rejected
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from engram.provisioning.errors import Unavailable

MICRO: Final = 1_000_000
ENOUGH: Final = 0.98
"""Shares of what is needed that are not worth a transaction."""

_log = structlog.get_logger("engram.provisioning.akash")


@final
class Escrows:
    """Tops up what serves."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts
        self._busy: set[int] = set()
        self._capped: set[int] = set()
        """Deployments whose escrow may not hold what their session needs, which was logged."""

    async def fill(self, row: Deployment) -> None:
        """Deposit what the session still needs and the escrow does not hold. Raises Unavailable."""
        if row.state is not DeploymentState.SERVING or row.price is None or row.dseq in self._busy:
            return
        self._busy.add(row.dseq)
        try:
            for open_one in await self._parts.ledger.read(lambda c: transactions.open_ones(c, Subject.DEPOSIT)):
                if open_one.dseq == row.dseq:
                    await self._follow(open_one)
            fresh = await self._parts.ledger.read(lambda c: records.get(c, row.dseq))
            if fresh is None or fresh.price is None:
                return
            info = await self._parts.chain.deployment_agreed(row.dseq)
            if info is None or not info.is_active or info.escrow_account.state.state != "open":
                return
            amount = await self.missing_uact(fresh, fresh.price, info)
            if amount:
                await self._deposit(fresh, amount)
        finally:
            self._busy.discard(row.dseq)

    async def missing_uact(self, row: Deployment, price: int, info: chain_model.DeploymentInfo) -> int:
        """Return what is to be deposited now, 0 for nothing. Raises Unavailable."""
        head = await self._parts.chain.endpoints.head()
        left = info.funds - price * max(0, head.height - info.settled_at)
        needed = bidding.escrow_uact(price, row.ends_at - self._parts.clock.now(), 0) * PICO
        most = int(self._parts.max_deposit_act * MICRO) * PICO
        self._note_cap(row, needed, most)
        wanted = min(needed, most)
        if left >= wanted * ENOUGH:
            return 0
        return -(-(wanted - left) // PICO)

    def _note_cap(self, row: Deployment, needed: int, most: int) -> None:
        """Log once that the escrow may not hold what its session needs: it lasts only while this gateway fills it."""
        if needed <= most:
            self._capped.discard(row.dseq)
        elif row.dseq not in self._capped:
            self._capped.add(row.dseq)
            _log.error(
                "akash_escrow_capped",
                dseq=row.dseq,
                needed_act=needed / PICO / MICRO,
                max_deposit_act=self._parts.max_deposit_act,
            )

    async def _deposit(self, row: Deployment, amount_uact: int) -> None:
        parts = self._parts
        account = EscrowID(EscrowScope.DEPLOYMENT, f"{parts.chain.owner}/{row.dseq}")
        message = AccountDeposit(parts.chain.owner, account, Deposit(Coin("uact", str(amount_uact))))
        async with parts.sender.turn():
            made = await parts.sender.prepare((message,), Subject.DEPOSIT, row.dseq, amount_uact)
            if isinstance(made, Rejected):
                _log.error("akash_top_up_refused", dseq=row.dseq, amount_uact=amount_uact, reason=made.text[:300])
                return

            if await parts.sender.commit(made, lambda c: _is_still_missing(c, row)):
                await self._follow(made)

    async def _follow(self, deposit: Outgoing) -> None:
        settled = await self._parts.sender.follow(deposit, _count)
        if settled.state is TxState.REFUSED:
            _log.error("akash_top_up_refused", dseq=settled.dseq, reason=(settled.log or "")[:300])

    async def fill_all(self) -> None:
        """Look at every deployment here that serves, and at deposits of those that do not any more."""
        here, live = await self._parts.ledger.read(lambda c: (records.live_here(c), records.all_live(c)))
        self._capped &= {row.dseq for row in here}
        for row in here:
            try:
                await self.fill(row)
            except Unavailable as error:
                _log.warning("akash_escrow_not_read", dseq=row.dseq, reason=str(error))
            await trio.lowlevel.checkpoint()
        await self._settle_left({row.dseq for row in live if row.state is DeploymentState.SERVING})

    async def _settle_left(self, serving: Collection[int]) -> None:
        """Follow deposits that were under way when their deployment ended: nobody else asks what became of them."""
        for deposit in await self._parts.ledger.read(lambda c: transactions.open_ones(c, Subject.DEPOSIT)):
            if deposit.dseq is None or deposit.dseq in serving or deposit.dseq in self._busy:
                continue
            self._busy.add(deposit.dseq)
            try:
                await self._follow(deposit)
            finally:
                self._busy.discard(deposit.dseq)


def _is_still_missing(connection: Connection, read: Deployment) -> bool:
    """Return whether nobody has deposited, or begun to, since the deployment was read: another gateway may."""
    now = records.get(connection, read.dseq)
    under_way = (one.dseq for one in transactions.open_ones(connection, Subject.DEPOSIT))
    return now is not None and now.deposit_uact == read.deposit_uact and read.dseq not in under_way


def _count(connection: Connection, settled: Outgoing) -> None:
    if settled.state is TxState.INCLUDED and settled.dseq is not None:
        records.add_deposit(connection, settled.dseq, settled.amount_uact)
