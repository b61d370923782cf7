"""Transactions that are signed again: as few in a block as first ones, with more gas where it ran out."""

from collections import Counter

import msgspec
import trio

from engram.provisioning.akash import transactions
from engram.provisioning.akash.transactions import Subject, TxState
from engram.provisioning.akash.wallet_watch import WalletWatch
from tests.doubles.akash.store import UACT
from tests.provisioning.akash.test_reports import paid_leases, sound, until
from tests.provisioning.akash.worlds import KEY, QUICK, World, world

S, X = Subject, TxState


def sent(made: World, dseq: int | None, subject: Subject) -> list[transactions.Outgoing]:
    """The transactions of that kind, oldest first."""
    found = made.ledger.write_now(lambda c: transactions.of_deployment(c, dseq))
    return [one for one in found if one.subject is subject]


async def test_creates_that_are_signed_again_pass_the_cap_of_a_block(virtual_time: None) -> None:
    """All endpoints are away until the creates have expired; then all of them would be signed at once."""
    async with world(settings=msgspec.structs.replace(QUICK, creates_per_block=2)) as made:
        nodes = made.double.faults.nodes
        for node in nodes:
            node.broadcast_lost = 10_000
        async with trio.open_nursery() as launches:
            for number in range(10):
                launches.start_soon(made.backend.launch, made.spec(f"s{number}", f"t{number}"))
            await until(lambda: len(made.rows()) == 10)
            for node in nodes:
                node.down = True
            made.double.make_blocks(30, 6.0)
            await trio.sleep(0.3)
            for node in nodes:
                node.down, node.broadcast_lost = False, 0
        assert any(row.tries for row in made.rows()) or len(sent(made, made.rows()[0].dseq, S.CREATE)) > 1
        blocks = Counter(one.created_at for one in made.double.chain.state.deployments.values())
        # What was sent in two blocks may be included in one.
        assert max(blocks.values()) <= 2 * 2
        sound(made)


async def test_a_lease_that_ran_out_of_gas_is_signed_again_with_more_for_the_same_bid(virtual_time: None) -> None:
    async with world() as made:
        for name in ("brunel", "curie"):
            made.faults(name, no_bids=True)  # there is no other provider
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.backend.launch, made.spec())
            await until(lambda: bool(made.rows()) and made.rows()[0].state == "bidding")
            made.double.faults.chain.out_of_gas = 1
        (row,) = made.rows()
        assert (row.provider, row.excluded) == (made.double.providers["ada"].address, ())
        first, second = sent(made, row.dseq, S.LEASE)
        assert (first.state, second.state) == (X.REFUSED, X.INCLUDED)
        assert first.gas_used is not None
        assert second.gas_limit > first.gas_used > first.gas_limit
        assert paid_leases(made) == 1
        sound(made)


async def test_a_lease_that_nobody_took_before_its_time_was_over_is_signed_again_for_the_same_bid(
    virtual_time: None,
) -> None:
    async with world() as made:
        for name in ("brunel", "curie"):
            made.faults(name, no_bids=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.backend.launch, made.spec())
            await until(lambda: bool(made.rows()) and made.rows()[0].state == "bidding")
            for node in made.double.faults.nodes:
                node.broadcast_lost = 10_000
            await until(lambda: len(sent(made, made.rows()[0].dseq, S.LEASE)) == 2, 60.0)
            for node in made.double.faults.nodes:
                node.broadcast_lost = 0
        (row,) = made.rows()
        assert (row.provider, row.excluded) == (made.double.providers["ada"].address, ())
        assert [one.state for one in sent(made, row.dseq, S.LEASE)] == [X.EXPIRED, X.INCLUDED]
        assert paid_leases(made) == 1
        sound(made)


async def test_a_mint_that_ran_out_of_gas_gets_more_the_next_time(virtual_time: None) -> None:
    async with world() as made:
        made.double.chain.drain(KEY.address, UACT)
        watch = WalletWatch(made.make_parts(mint_akt=20.0))
        made.double.faults.chain.out_of_gas = 1
        await watch.look()
        made.double.make_blocks(700, 6.0)  # an hour after one that came to nothing the next is made
        await trio.sleep(2 * made.settings.akash.poll_s)
        await watch.look()
        first, second = sent(made, None, S.MINT)
        assert (first.state, second.state) == (X.REFUSED, X.INCLUDED)
        assert first.gas_used is not None
        assert second.gas_limit > first.gas_used
