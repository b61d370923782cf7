"""One of three endpoints lies, and is the one that is asked first: a session is served and ended all the same."""

import msgspec
import pytest
import trio.lowlevel

from engram.provisioning.akash import transactions
from engram.provisioning.akash.model import PICO
from engram.provisioning.akash.transactions import Subject, TxState
from engram.provisioning.akash.wallet_watch import WalletWatch
from tests.doubles.akash.lies import LIES
from tests.doubles.akash.store import UACT
from tests.provisioning.akash.test_reports import paid_leases, sound, until, watched
from tests.provisioning.akash.worlds import KEY, QUICKLY, World, world
from tests.sampling import sample

THREE = msgspec.structs.replace(QUICKLY, nodes=3)
HOURS = 200.0


def sent(made: World, subject: Subject) -> list[transactions.Outgoing]:
    (row,) = made.rows()
    those = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
    return [one for one in those if one.subject is subject and one.state is TxState.INCLUDED]


def lease_reads(made: World) -> int:
    return sum(node.requests.get("/akash/market/v1beta5/leases/list", 0) for node in made.double.nodes)


@pytest.mark.parametrize("lie", sample("lies of an endpoint", LIES, 2))
async def test_a_session_is_served_and_ended_whatever_one_endpoint_says(lie: str, virtual_time: None) -> None:
    async with world(THREE) as made:
        made.double.faults.nodes[0].lie = lie
        before = made.balance()
        async with watched(made.backend) as exits:
            spec = made.spec(hours=HOURS)
            await made.backend.launch(spec)
            await until(lambda: bool(sent(made, Subject.DEPOSIT)))
            seen = lease_reads(made)
            await until(lambda: lease_reads(made) > seen + 20)
            assert exits == []
            (row,) = made.rows()
            price = next(iter(made.double.chain.state.leases.values())).price
            assert row.reclaim_at is None
            assert row.price == price // 10**12
            needed = row.price * HOURS * 588.5 / PICO
            assert needed <= row.deposit_uact <= needed * 1.06
            assert paid_leases(made) == len(made.double.chain.state.deployments) == 1
            await made.backend.destroy(spec.token)
            assert made.active() == [], "its lease outlives the session"
            await until(lambda: made.rows()[0].cost_uact is not None)
            assert made.rows()[0].cost_uact == before - made.balance()
        sound(made)


async def test_an_endpoint_that_says_the_account_is_poor_has_nothing_minted(virtual_time: None) -> None:
    async with world(THREE) as made:
        made.double.faults.nodes[0].lie = "poor"
        await WalletWatch(made.make_parts(mint_akt=20.0)).look()
        assert made.ledger.write_now(lambda c: transactions.open_ones(c, Subject.MINT)) == []
        assert list(made.double.chain.state.mints.values()) == []
        made.double.chain.drain(KEY.address, UACT)
        await trio.lowlevel.checkpoint()
        await WalletWatch(made.make_parts(mint_akt=20.0)).look()
        assert list(made.double.chain.state.mints.values())


async def test_an_orphan_is_closed_although_the_endpoint_asked_first_hides_it(virtual_time: None) -> None:
    async with world(THREE) as made:
        await made.backend.launch(made.spec())
        (row,) = made.rows()
        made.forget(row.dseq)
        made.double.faults.nodes[0].lie = "hidden"
        async with watched(made.backend):
            made.double.make_blocks(160, 6.0)
            await until(lambda: made.active() == [])
        sound(made)
