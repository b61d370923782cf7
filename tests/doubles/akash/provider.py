"""A scripted provider: it bids, sees its leases, runs what their manifests say, and leaves as real ones leave."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import trio

from tests.doubles.akash import bidding, escrow, market
from tests.doubles.akash.answers import Json
from tests.doubles.akash.certificates import Certificate
from tests.doubles.akash.chain import Chain
from tests.doubles.akash.faults import ProviderFaults
from tests.doubles.akash.store import BidRow, LeaseRow, OrderRow
from tests.doubles.akash.workloads import Stub, Workload, environment_of

LeaseKey = tuple[str, int, int, int, str]
BID_TIMEOUT_S: Final = 300
MANIFEST_TIMEOUT_S: Final = 300
_LOOK_S: Final = 0.005


class Script(msgspec.Struct, frozen=True):
    """How a provider behaves when nothing is wrong with it. Times are of the chain's clock."""

    name: str
    address: str
    attributes: dict[str, str]
    auditors: frozenset[str]
    factor: float = 1.0
    """Of the default price."""
    bid_after_blocks: int = 1
    sees_after_blocks: int = 1
    """How far its own node of the chain is behind."""
    places: int = 200
    window_s: int | None = None
    """The notice it offers before it leaves; none: it may leave at once."""
    pull_s: float = 0.0
    """Pulling the image takes so long."""
    unstable_after_s: float = 450.0
    """A workload that is not ready for so long ends its lease."""
    withdraw_every_blocks: int = 10
    """How often it takes what it has earned, and notices that nothing is left."""


class Tenancy:
    """A lease this provider holds."""

    def __init__(self, lease: LeaseRow) -> None:
        self.lease = lease
        self.manifest: list[dict[str, Any]] | None = None
        self.workload: Workload | None = None
        self.service = ""
        self.ready = False
        self.not_ready_since_s: float | None = None
        self.leaving = ""
        """The reason with which it leaves, once it has decided to."""


class Provider:
    def __init__(
        self,
        script: Script,
        chain: Chain,
        certificate: Certificate,
        faults: ProviderFaults,
        make_workload: Callable[[dict[str, str], str], Workload],
    ) -> None:
        self.script = script
        self.address = script.address
        self.certificate = certificate
        self.host_uri = ""
        self.faults = faults
        self.tenancies: dict[LeaseKey, Tenancy] = {}
        self.left_running: list[Workload] = []
        """What goes on after its lease."""
        self.manifests_taken = 0
        self._chain = chain
        self._make_workload = make_workload
        self._considered: set[tuple[str, int, int, int]] = set()
        self._nursery: trio.Nursery | None = None

    def answer(self) -> Json:
        """Return what the chain answers about this provider."""
        attributes = [{"key": key, "value": value} for key, value in sorted(self.script.attributes.items())]
        info = {"email": "", "website": ""}
        return {"owner": self.address, "host_uri": self.host_uri, "attributes": attributes, "info": info}

    async def run(self) -> None:
        """Look after workloads for ever."""
        async with trio.open_nursery() as self._nursery:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    for workload in (*self.left_running, *(each.workload for each in self.tenancies.values())):
                        if workload is not None:
                            await workload.stop()

    # ---------------------------------------------------------------------------------------------- each block

    def on_block(self) -> None:
        """Look at the new block: bid, notice leases, leave, withdraw."""
        state = self._chain.state
        for order in state.orders.values():
            if order.state == "open":
                self._consider(order)
        for bid in self._own_bids("open"):
            if self._age_s(bid.created_at) > BID_TIMEOUT_S:
                self._chain.act(partial(market.close_bid, bid=bid, reason=market.UNSPECIFIED))
        for bid in self._own_bids("active"):
            lease = state.leases.get(bid.key)
            if lease is not None and lease.serves and state.height >= lease.created_at + self.script.sees_after_blocks:
                self.tenancies.setdefault(lease.key, Tenancy(lease)).lease = lease
        for tenancy in list(self.tenancies.values()):
            self._look_after(tenancy)

    def _own_bids(self, wanted: str) -> list[BidRow]:
        return [bid for bid in self._chain.state.bids.values() if bid.provider == self.address and bid.state == wanted]

    def _age_s(self, height: int) -> float:
        return self._chain.state.time_s - self._chain.times.get(height, self._chain.state.time_s)

    def _consider(self, order: OrderRow) -> None:
        state, script = self._chain.state, self.script
        key = (order.owner, order.dseq, order.gseq, order.oseq)
        if key in self._considered or state.height < order.created_at + script.bid_after_blocks:
            return
        self._considered.add(key)
        price = bidding.price(order.spec, script.factor)
        if self.faults.no_bids or self.faults.dead or len(self.tenancies) >= script.places:
            return
        if price > market.price_cap(order.spec) or not market.matches(order.spec, script.attributes, script.auditors):
            return
        if order.reclamation_s is not None and (script.window_s or 0) < order.reclamation_s:
            return
        bid = BidRow(*key, self.address, price, state.height, reclamation_s=script.window_s)
        self._chain.act(lambda state: market.create_bid(state, bid, script.attributes, script.auditors))

    def _look_after(self, tenancy: Tenancy) -> None:
        state = self._chain.state
        lease = state.leases.get(tenancy.lease.key)
        if lease is None or not lease.serves:
            del self.tenancies[tenancy.lease.key]
            if tenancy.workload is not None and self.faults.keeps_running:
                self.left_running.append(tenancy.workload)
            elif tenancy.workload is not None and self._nursery is not None:
                self._nursery.start_soon(tenancy.workload.stop)
            return
        tenancy.lease = lease
        if tenancy.manifest is None and state.time_s - lease.created_s > MANIFEST_TIMEOUT_S:
            self.leave(tenancy, market.MANIFEST_TIMEOUT)
        since = tenancy.not_ready_since_s
        if since is not None and not tenancy.ready and state.time_s - since > self.script.unstable_after_s:
            self.leave(tenancy, market.UNSTABLE)
        if tenancy.leaving:
            self.leave(tenancy, tenancy.leaving)
        elif (state.height - lease.created_at) % self.script.withdraw_every_blocks == 0:
            aid, xid = f"{lease.owner}/{lease.dseq}", f"{lease.gseq}/{lease.oseq}/{lease.provider}"
            if not self.faults.dead:
                self._chain.act(lambda state: escrow.withdraw(state, aid, xid))

    def leave(self, tenancy: Tenancy, reason: str) -> None:
        """End a lease: at once, or after the notice that its bid has promised."""
        tenancy.leaving = reason
        lease, state = tenancy.lease, self._chain.state
        bid = state.bids.get(lease.key)
        if bid is None:
            return
        if lease.window_s is not None and lease.reclaim_started_s is None:
            self._chain.act(lambda state: market.start_reclaim(state, bid, reason))
        elif lease.window_s is None or state.time_s >= (lease.reclaim_started_s or 0) + lease.window_s:
            self._chain.act(lambda state: market.close_bid(state, bid, reason))

    # ------------------------------------------------------------------------------------------------ workloads

    def tenancy(self, owner: str, dseq: int, gseq: int | None = None, oseq: int | None = None) -> Tenancy | None:
        """Return the lease as this provider has seen it; None while it has not."""
        for tenancy in self.tenancies.values():
            lease = tenancy.lease
            if (lease.owner, lease.dseq) == (owner, dseq) and gseq in (None, lease.gseq) and oseq in (None, lease.oseq):
                return tenancy
        return None

    def take(self, tenancy: Tenancy, manifest: list[dict[str, Any]]) -> None:
        """Run a manifest that was found good; the same one again changes nothing."""
        self.manifests_taken += 1
        before = tenancy.workload
        if tenancy.manifest == manifest and (before is None or not before.has_ended or self.faults.loses_workloads):
            return
        same, tenancy.manifest = tenancy.manifest == manifest, manifest
        tenancy.not_ready_since_s = self._chain.state.time_s
        if self._nursery is not None and not self.faults.never_ready:
            self._nursery.start_soon(self._start, tenancy, before if same else None)

    async def _start(self, tenancy: Tenancy, again: Workload | None) -> None:
        """Start a workload, or the one that has ended again: on its volume, at the same address, as a cluster does."""
        assert self._nursery is not None
        if tenancy.workload is not None:
            await tenancy.workload.stop()
        if again is None:
            await trio.sleep(self.script.pull_s)
        if not self._holds(tenancy) or tenancy.manifest is None:
            return
        lease, service = tenancy.lease, tenancy.manifest[0]["services"][0]
        tenancy.service = service["name"]
        name = f"{lease.owner[-8:]}-{lease.dseq}-{lease.gseq}-{lease.oseq}"
        tenancy.workload = again or self._make_workload(environment_of(service), name)
        await tenancy.workload.start(self._nursery)
        if not self._holds(tenancy) and not self.faults.keeps_running:
            await tenancy.workload.stop()

    def _holds(self, tenancy: Tenancy) -> bool:
        return self.tenancies.get(tenancy.lease.key) is tenancy

    async def look(self, tenancy: Tenancy) -> bool:
        """Return whether the workload of a lease is ready now."""
        workload = tenancy.workload
        lost = self.faults.loses_workloads or self.faults.never_ready
        tenancy.ready = workload is not None and not lost and await workload.is_ready()
        if tenancy.ready:
            tenancy.not_ready_since_s = None
        elif tenancy.not_ready_since_s is None:
            tenancy.not_ready_since_s = self._chain.state.time_s
        return tenancy.ready

    async def ready(self, tenancy: Tenancy) -> None:
        """Wait until the workload of a lease is ready."""
        while True:
            if await self.look(tenancy):
                return
            await trio.sleep(_LOOK_S)

    async def watch(self, every_s: float) -> None:
        """Look at all workloads for ever, as a provider's health monitor does."""
        while True:
            await trio.sleep(every_s)
            for tenancy in list(self.tenancies.values()):
                if tenancy.manifest is not None:
                    await self.look(tenancy)

    async def swap_workloads(self) -> None:
        """Take the place of what runs: at the same address something answers that knows what the manifest says."""
        for tenancy in self.tenancies.values():
            if tenancy.workload is None or tenancy.manifest is None or self._nursery is None:
                continue
            await tenancy.workload.stop()
            stub = Stub(environment_of(tenancy.manifest[0]["services"][0]), tenancy.workload.port)
            tenancy.workload = stub
            await stub.start(self._nursery)

    async def kill_workloads(self) -> None:
        """Stop what runs, as a machine that loses power does; the leases stay."""
        for tenancy in self.tenancies.values():
            if tenancy.workload is not None:
                await tenancy.workload.stop()
