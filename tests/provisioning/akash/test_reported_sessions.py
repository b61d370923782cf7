"""What others have reported of Akash deployers, seen from the session that was sold: provisioner, sagas and backend."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from actors import Registry, open_system
from engram.provisioning.akash import transactions
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.escrow import Escrows
from engram.provisioning.akash.model import DeploymentState
from engram.provisioning.akash.transactions import Subject
from engram.provisioning.backends import Backends
from engram.provisioning.fleet import END_GRACE_S
from engram.provisioning.health import health_probe
from engram.sessions import EndReason, MemoryState, SessionEvent, rules
from tests.provisioning import fleets
from tests.provisioning.akash.test_reports import paid_leases, sound, until
from tests.provisioning.akash.worlds import World, world

pytestmark = pytest.mark.rules

S = DeploymentState
LOST_S = 10.0
"""Seconds of the gateway after which a session without a node is given up; ten minutes of the chain's."""


class Seller:
    """Sessions of a gateway that runs now and then."""

    def __init__(self, made: World) -> None:
        self.made = made
        self.sold = fleets.World(made.ledger, clock=made.clock)
        self.most_paid = 0
        """Leases that were paid at once, at most."""
        made.double.chain.after_block.append(self._count)

    def _count(self) -> None:
        self.most_paid = max(self.most_paid, paid_leases(self.made))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A life of the gateway."""
        backends = Backends([AkashBackend(self.made.make_parts())])
        settings = msgspec.structs.replace(self.sold.fleet.settings, launch_timeout_s=5.0, lost_after_s=LOST_S)
        fleet = fleets.replaced(
            self.sold.fleet,
            registry=Registry(),
            backends=backends,
            is_healthy=health_probe(self.made.http),
            settings=settings,
        )
        await backends.look()
        async with open_system(fleets.fleet_branch(fleet), registry=fleet.registry, rng=random.Random(1)):
            yield

    async def reaches(self, state: str, session_id: str = "s", within_s: float = 60.0) -> None:
        await until(lambda: self.sold.state(session_id) == state, within_s)

    def no_bids(self, *names: str) -> None:
        """From now on these providers alone bid for nothing."""
        for name in self.made.double.providers:
            self.made.faults(name, no_bids=name in names)


@pytest.mark.nightly
async def test_report_support_368_an_overdrawn_session_ends_its_node_is_gone_and_it_is_refunded_once(
    virtual_time: None,
) -> None:
    """akash-network/support#368, node#1635: negative funds; console#3531: a closed account takes no deposit."""
    async with world() as made:
        seller = Seller(made)
        seller.sold.sell(paid_s=600 * 3600.0)
        made.settings = msgspec.structs.replace(
            made.settings, akash=msgspec.structs.replace(made.settings.akash, max_deposit_act=0.5)
        )
        async with seller.running():
            await seller.reaches("active")
        (row,) = made.rows()
        seller.no_bids(*made.double.providers)
        for _ in range(60):  # the gateway is down, and the escrow runs out
            made.double.make_blocks(2_000, 6.0)
            if not made.active():
                break
            await trio.sleep(0.05)
        info = await made.parts.chain.deployment(row.dseq)
        assert info is not None
        assert (info.is_active, info.escrow_account.state.state) == (False, "overdrawn")
        assert info.funds < 0
        await Escrows(made.parts).fill(made.rows()[0])  # before the gateway has seen it
        async with seller.running():
            await seller.reaches("failed", within_s=6 * LOST_S)
        async with seller.running():
            await trio.sleep(3.0)
        ended = seller.sold.session()
        assert (ended.end_reason, seller.sold.failed) == (EndReason.NODE_LOST, ["s"]), "refunded once"
        assert ended.paid_s - ended.used_s > 100 * 3600.0, "and is not over"
        assert {one.state for one in made.rows()} == {S.CLOSED}
        assert await made.backend.inspect(row.token) is None
        sent = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
        assert Subject.DEPOSIT not in {one.subject for one in sent}
        sound(made)


async def test_report_support_121_a_dead_workload_is_degraded_and_replaced_with_the_time_left_never_paid_twice(
    virtual_time: None,
) -> None:
    """akash-network/support#121, #107, #265: the lease is active and paid, status and /health are dead."""
    async with world() as made:
        seller = Seller(made)
        seller.sold.sell(paid_s=100 * 3600.0)
        async with seller.running():
            await seller.reaches("active")
            (row,) = made.rows()
            name = next(name for name, one in made.double.providers.items() if one.address == row.provider)
            taken = made.double.providers[name].manifests_taken
            made.faults(name, loses_workloads=True)
            await seller.reaches("degraded")
            await seller.reaches("active", within_s=120.0)
        old, new = made.rows()
        assert made.double.providers[name].manifests_taken == taken + 1, "the manifest was sent once more, first"
        assert (old.state, new.state) == (S.CLOSED, S.SERVING)
        assert new.provider != old.provider
        assert seller.most_paid == 1
        session = seller.sold.session()
        left_s = rules.remaining_s(session, seller.sold.instants.now())
        assert left_s < 100 * 3600.0
        assert new.ends_at == pytest.approx(made.clock.now() + left_s + END_GRACE_S, abs=300.0)
        assert rules.memory(session) is MemoryState.LOST
        assert seller.sold.states() == ["provisioning", "active", "degraded", "memory_lost", "active"]
        sound(made)


async def test_report_console_3939_what_a_provider_left_is_closed_within_a_quarter_of_an_hour_of_the_start(
    virtual_time: None,
) -> None:
    """akash-network/console#3939: the deposit stays locked until somebody closes the deployment."""
    async with world() as made:
        seller = Seller(made)
        seller.no_bids("ada", "brunel")  # the third gives no notice, and leaves at once
        before = made.balance()
        seller.sold.sell(paid_s=10 * 3600.0)
        async with seller.running():
            await seller.reaches("active")
        row = made.rows()[-1]
        for tenancy in list(made.double.providers["curie"].tenancies.values()):
            made.double.providers["curie"].leave(tenancy, "lease_closed_reason_unstable")
        await until(lambda: paid_leases(made) == 0)
        made.double.make_blocks(1_000, 6.0)
        assert made.active() == [row.dseq], "the gateway is down, and the deposit is locked"
        seller.no_bids("ada", "brunel", "curie")
        started_at = made.clock.now()
        async with seller.running():
            await until(lambda: row.dseq not in made.active())
            assert made.clock.now() - started_at < 900.0
            seller.sold.happens(SessionEvent.END)
            await seller.reaches("stopped")
            await until(lambda: all(each.cost_uact is not None for each in made.rows()))
        assert made.active() == []
        assert made.balance() == before - sum(each.cost_uact or 0 for each in made.rows()), "the deposit is back"
        sound(made)


async def many_close_at_once(count: int) -> None:
    """All sessions of one provider lose their leases in one block; only some of them find a place again."""
    async with world() as made:
        seller = Seller(made)
        seller.no_bids("ada", "brunel")
        names = [f"s{number}" for number in range(count)]
        for name in names:
            seller.sold.sell(name, paid_s=50 * 3600.0)
        async with seller.running():
            for name in names:
                await seller.reaches("active", name)
            seller.no_bids()
            curie = made.double.providers["curie"]
            for tenancy in list(curie.tenancies.values()):
                curie.leave(tenancy, "lease_closed_reason_unstable")
            closed_at = made.clock.now()
            await until(lambda: paid_leases(made) == 0)
            await until(lambda: paid_leases(made) == count, 120.0)
            for name in names:
                await seller.reaches("active", name)
            assert made.clock.now() - closed_at < 3600.0, "within the hour after which a session is given up"
        assert len(made.active()) == paid_leases(made) == count
        assert curie.address not in {row.provider for row in made.rows() if row.state is S.SERVING}
        assert seller.sold.failed == []
        for name in names:
            assert seller.sold.states(name).count("memory_lost") == 1
        sound(made)


@pytest.mark.nightly
@pytest.mark.parametrize("count", [4, pytest.param(30, marks=pytest.mark.heavy)])
async def test_report_support_245_sessions_of_a_provider_that_fails_are_all_active_again_within_their_budget(
    count: int, virtual_time: None
) -> None:
    """akash-network/support#245, #15, node#1676: many leases closed in one block after an outage of the provider."""
    await many_close_at_once(count)
