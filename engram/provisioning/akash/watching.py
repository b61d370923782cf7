"""Watches what serves: leases on chain, nodes at their providers, escrows, and the chain against the ledger.

Of several gateways that share the ledger, each watches the deployments of the sessions that it works.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final

import structlog
import trio

from engram.ledger import LedgerError
from engram.provisioning.akash import events, records, transactions
from engram.provisioning.akash.chain_model import Lease
from engram.provisioning.akash.escrow import Escrows
from engram.provisioning.akash.model import SUCCESSOR, Deployment, DeploymentState
from engram.provisioning.akash.placing import Placing
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.probing import Probing
from engram.provisioning.akash.reconciling import Reconciler
from engram.provisioning.akash.replacing import Replacing, TryLock
from engram.provisioning.akash.transactions import Subject
from engram.provisioning.akash.wallet_watch import WalletWatch
from engram.provisioning.errors import Unavailable

DOWN_AFTER: Final = 2
"""Looks in a row at which the provider itself says that the node does not run."""
STATUSES_AT_ONCE: Final = 16
CLOSES_AT_ONCE: Final = 16
SLOW_CLOSE_S: Final = 300.0
"""A deployment that is being closed for longer is told of at each comparison."""
NEW_LEASE_S: Final = 60.0
"""A lease this young may not be shown by every endpoint."""

OUTAGES: Final = (Unavailable, LedgerError)
"""Of the chain, of a provider and of the ledger's server: the next look comes to what this one did not."""

_log = structlog.get_logger("engram.provisioning.akash")


@final
class Watching:
    """Runs as long as the backend, through outages. What it finds it commits, or says through `exited`."""

    def __init__(
        self,
        parts: AkashParts,
        placing: Placing,
        escrows: Escrows,
        reconciler: Reconciler,
        probing: Probing,
        try_lock: TryLock,
    ) -> None:
        self._parts = parts
        self._placing = placing
        self._escrows = escrows
        self._reconciler = reconciler
        self._probing = probing
        self._try_lock = try_lock
        self.wallet = WalletWatch(parts)
        self._replacing = Replacing(parts, placing, try_lock)
        self._nursery: trio.Nursery | None = None
        self._closes = trio.CapacityLimiter(CLOSES_AT_ONCE)
        self._not_running: dict[int, int] = {}
        self._wanted: set[int] = set()
        self._escrow_wanted = trio.Event()
        self._exited: Callable[[str], None] = lambda token: None

    def is_down(self, dseq: int) -> bool:
        """Return whether the provider said repeatedly that the node does not run."""
        return self._not_running.get(dseq, 0) >= DOWN_AFTER

    def forget(self, dseq: int) -> None:
        """Begin to look at the node afresh."""
        self._not_running.pop(dseq, None)

    def serves(self, row: Deployment) -> None:
        """Begin to watch a node that serves, and bring its escrow to what its price asks for."""
        self.forget(row.dseq)
        self.look_at_escrow(row.dseq)

    def look_at_escrow(self, dseq: int) -> None:
        """Look at the deployment's escrow soon."""
        self._wanted.add(dseq)
        self._escrow_wanted.set()

    async def run(self, exited: Callable[[str], None]) -> None:
        """Watch until cancelled."""
        self._exited = exited
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._every, self._parts.probe_s, self._probing.look)
            nursery.start_soon(self._every, self._parts.watch_s, self._look)
            nursery.start_soon(self._every, self._parts.escrow_s, self._escrows.fill_all)
            nursery.start_soon(self._every, self._parts.reconcile_s, self._reconcile)
            nursery.start_soon(self._every, self._parts.wallet_s, self._look_at_wallet)
            nursery.start_soon(self._fill_wanted)

    async def _every(self, seconds: float, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await job()
            except* OUTAGES as outages:
                _log.warning("akash_not_watched", reason=_reasons(outages))
            await trio.sleep(seconds)

    async def _look_at_wallet(self) -> None:
        """Look, and show no balance of before while none is known."""
        try:
            await self.wallet.look()
        except* OUTAGES:
            self._parts.metrics.akash_balance.clear()
            self._parts.metrics.akash_spare_act.clear()
            raise

    async def _fill_wanted(self) -> None:
        while True:
            await self._escrow_wanted.wait()
            self._escrow_wanted = trio.Event()
            wanted, self._wanted = self._wanted, set()
            for dseq in sorted(wanted):
                try:
                    row = await self._parts.ledger.read(partial(records.get, dseq=dseq))
                    if row is not None:
                        await self._escrows.fill(row)
                except OUTAGES as error:  # the next round of all escrows finds it
                    _log.warning("akash_escrow_not_read", dseq=dseq, reason=str(error))

    async def _reconcile(self) -> None:
        """Finish closes that nobody waits for, and compare with the chain; none of it waits for another."""
        async with trio.open_nursery() as nursery:
            for row in await self._parts.ledger.read(records.live_here):
                if row.state is DeploymentState.CLOSING:
                    await self._tell_slow_close(row)
                if row.state is DeploymentState.CLOSING or row.token.endswith(SUCCESSOR):
                    nursery.start_soon(self._finish, row, self._closes)
            try:
                await self._reconciler.run()
            except* OUTAGES as outages:  # here, since it would cancel what closes beside it
                _log.warning("akash_not_compared", reason=_reasons(outages))

    async def _tell_slow_close(self, row: Deployment) -> None:
        """Tell the operator of a deployment that costs on: why its close does not come through."""
        closing_s = self._parts.clock.now() - row.state_since
        if closing_s < SLOW_CLOSE_S:
            return
        last = await self._parts.ledger.read(lambda c: transactions.latest(c, row.dseq, Subject.CLOSE))
        _log.error(
            "akash_close_is_slow",
            dseq=row.dseq,
            provider=row.provider,
            closing_s=round(closing_s),
            tries=row.tries,
            reason=((last.log or last.state) if last is not None else "none was sent")[:300],
        )

    async def _finish(self, row: Deployment, limit: trio.CapacityLimiter) -> None:
        async with limit:
            with trio.move_on_after(self._parts.reconcile_s):
                try:
                    await self._close(row)
                except OUTAGES as error:  # the next comparison goes on with it
                    _log.warning("akash_not_finished", dseq=row.dseq, reason=str(error))

    async def _close(self, row: Deployment) -> None:
        if row.state is not DeploymentState.CLOSING:
            await self._replacing.close_abandoned(row)
            return
        async with self._try_lock(row.token) as held:
            if held:
                await self._placing.drive(row)

    async def _look(self) -> None:
        serving = [
            row for row in await self._parts.ledger.read(records.live_here) if row.state is DeploymentState.SERVING
        ]
        known = {row.dseq for row in serving}
        self._not_running = {dseq: looks for dseq, looks in self._not_running.items() if dseq in known}
        if not serving:
            return
        leases: dict[int, list[Lease]] = {}
        for lease in await self._parts.chain.leases():
            leases.setdefault(lease.dseq, []).append(lease)
        limit = trio.CapacityLimiter(STATUSES_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for row in serving:
                ours = next((lease for lease in leases.get(row.dseq, ()) if lease.is_of(row)), None)
                nursery.start_soon(self._look_at, row, ours, limit)

    async def _look_at(self, row: Deployment, lease: Lease | None, limit: trio.CapacityLimiter) -> None:
        async with limit:
            try:
                if lease is None:
                    await self._lease_missing(row)
                    return
                try:
                    await self._note_terms(row, lease)
                except Unavailable as error:  # endpoints that disagree on it say nothing of the node
                    _log.warning("akash_terms_not_noted", dseq=row.dseq, reason=str(error))
                await self._look_at_provider(row)
            except OUTAGES as error:
                _log.warning("akash_node_not_watched", dseq=row.dseq, reason=str(error))

    async def _lease_missing(self, row: Deployment) -> None:
        if self._parts.clock.now() - row.state_since < NEW_LEASE_S:
            return
        event = await self._placing.lease_event(row)
        if event is None:
            return
        async with self._try_lock(row.token) as held:
            if not held:
                return
            after = await self._placing.apply(row, event)
            _log.warning("akash_lease_ended", dseq=row.dseq, provider=row.provider, reason=after.reason)
            self._exited(row.token)
        if self._nursery is not None:  # a close that takes long keeps nobody from looking at the others
            self._nursery.start_soon(self._finish, after, self._closes)

    async def _note_terms(self, row: Deployment, shown: Lease) -> None:
        """Write down what endpoints agree on of the lease's price and notice, where it is not what the ledger has."""
        if self._replacing.is_due(row) and self._nursery is not None:
            self._nursery.start_soon(self._replace, row)
        if (shown.ends_at, shown.price) == (row.reclaim_at, row.price):
            return
        agreed = await self._parts.chain.leases_agreed(row.dseq)
        lease = next((one for one in agreed if one.is_of(row) and one.is_serving), None)
        if lease is None:
            return
        if 0 < lease.price != row.price:
            await self._parts.ledger.write(lambda c: records.set_values(c, row.dseq, price=lease.price))
            _log.warning("akash_price_differs", dseq=row.dseq, bid=row.price, lease=lease.price)
            self.look_at_escrow(row.dseq)
        if lease.ends_at != row.reclaim_at:
            await self._parts.ledger.write(lambda c: records.set_values(c, row.dseq, reclaim_at=lease.ends_at))
            _log.warning("akash_provider_gives_notice", dseq=row.dseq, provider=row.provider, ends_at=lease.ends_at)

    async def _replace(self, row: Deployment) -> None:
        try:
            if await self._replacing.replace(row):
                self._exited(row.token)
        except OUTAGES as error:
            _log.warning("akash_not_replaced", dseq=row.dseq, reason=str(error))

    async def _look_at_provider(self, row: Deployment) -> None:
        status = await self._parts.providers.status(row, self._parts.service, self._parts.port)
        match status:
            case events.Ready():
                self.forget(row.dseq)
            case events.NotReady(text):
                before = self._not_running.get(row.dseq, 0)
                self._not_running[row.dseq] = before + 1
                if before + 1 == DOWN_AFTER and row.stopped_at is None:
                    _log.warning("akash_node_down", dseq=row.dseq, provider=row.provider, reason=text[:200])
                    self._exited(row.token)
            case events.ProviderFailed():  # only the node's own /health says whether it serves
                pass


def _reasons(group: BaseExceptionGroup[Exception]) -> str:
    """Return what the errors of a group say, each once."""
    said: dict[str, None] = {}
    for error in group.exceptions:
        said[_reasons(error) if isinstance(error, BaseExceptionGroup) else str(error)] = None
    return "; ".join(said)
