"""What the account pays for is sold once, also between two looks at it."""

from functools import partial

import pytest

from engram.provisioning.akash import bidding, records
from engram.provisioning.akash.model import BLOCKS_PER_HOUR, SUCCESSOR, DeploymentState
from engram.provisioning.backends import Backends
from engram.sessions import SessionState, TierName
from tests.doubles.akash import bank
from tests.doubles.akash.store import UACT
from tests.provisioning import fleets
from tests.provisioning.akash.worlds import KEY, World, world


def has(made: World, uact: int) -> None:
    """Let the account have so much."""
    made.double.chain.drain(KEY.address, UACT)
    bank.mint(made.double.chain.state, KEY.address, UACT, uact)


def sell(made: World, session_id: str, tier: TierName, hours: float) -> None:
    """Sell a session as a purchase does, before its node is planned."""
    fleets.World(made.ledger, clock=made.clock).sell(session_id, hours * 3600.0, SessionState.PAYMENT_PENDING)
    made.ledger.write_now(lambda c: c.exec_driver_sql(f"UPDATE sessions SET tier='{tier}' WHERE id='{session_id}'"))


async def test_no_more_is_sold_of_mixed_tiers_between_two_looks_than_the_account_pays_for(virtual_time: None) -> None:
    async with world() as made:
        has(made, 30_000_000)
        await made.backend._watching.wallet.look()
        backends = Backends([made.backend])
        await backends.look()
        owed = sold = 0.0
        orders = [(TierName.PRO, 300), *((TierName.LITE, hours) for hours in (720, 500, 400, 300, 240))]
        for number, (tier, hours) in enumerate(orders):
            places = made.ledger.write_now(partial(backends.places_in, tier=tier, seconds=hours * 3600.0))
            if places > sold:
                sell(made, f"s{number}", tier, hours)
                sold += 1
                owed += made.parts.max_price[tier] * BLOCKS_PER_HOUR * hours
        assert sold >= 2
        assert owed <= 30_000_000


async def test_a_node_that_was_placed_since_the_last_look_is_paid_before_another_is_sold(virtual_time: None) -> None:
    async with world() as made:
        tier, hours = made.spec().tier.name, 100.0
        has_uact = int(made.parts.max_price[tier] * BLOCKS_PER_HOUR * hours * 1.1)
        has(made, has_uact)
        await made.backend._watching.wallet.look()
        backends = Backends([made.backend])
        await backends.look()
        assert backends.places_for(tier, hours * 3600.0) == 1
        await made.backend.launch(made.spec(hours=hours))
        await backends.look()
        (standing,) = backends.standings
        assert standing.offers is not None
        assert standing.offers.paid_sessions == {"s1"}
        assert standing.offers.spare_usd_micros is not None
        row, reserve = made.rows()[0], bidding.RESERVE
        needed = row.deposit_uact + bidding.owed_uact(row, made.clock.now())
        assert standing.offers.spare_usd_micros == pytest.approx((has_uact - needed) / reserve, rel=0.01)
        assert backends.places_for(tier, hours * 3600.0) == 1, "the node that runs, and no other"


async def test_a_successor_and_what_is_being_closed_are_no_places(virtual_time: None) -> None:
    async with world() as made:
        spec = made.spec()
        made.sell(spec)
        await made.backend.launch(spec)
        placing = made.backend._placing
        (row,) = made.rows()
        await placing.drive(await placing.create_like(row, row.token + SUCCESSOR, wide=False))
        has(made, 100_000)  # less than the least deposit
        await made.backend._watching.wallet.look()
        assert (await made.backend.offers()).places == 1
        closing = str(DeploymentState.CLOSING)
        made.ledger.write_now(lambda c: records.set_values(c, row.dseq, state=closing))
        left = await made.backend.offers()
        assert (left.places, left.paid_sessions) == (0, frozenset())
