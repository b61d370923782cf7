"""Escrows, costs, balances and minted ACT, on the double."""

import msgspec
import trio
from structlog.testing import capture_logs

from engram.provisioning.akash import costs, transactions
from engram.provisioning.akash.messages import DeploymentID, UpdateDeployment
from engram.provisioning.akash.model import PICO, DeploymentState
from engram.provisioning.akash.reconciling import Reconciler
from engram.provisioning.akash.transactions import Subject, TxState
from engram.provisioning.akash.wallet_watch import WalletWatch
from tests.doubles.akash import bank
from tests.doubles.akash.store import UACT, UAKT
from tests.provisioning.akash.test_reports import sound, until, watched
from tests.provisioning.akash.worlds import KEY, World, world


def deposits(made: World) -> list[transactions.Outgoing]:
    (row,) = made.rows()
    sent = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
    return [one for one in sent if one.subject is Subject.DEPOSIT]


async def test_an_escrow_is_as_large_as_the_session_needs_and_grows_when_it_is_extended(virtual_time: None) -> None:
    async with world() as made, watched(made.backend):
        spec = made.spec(hours=200.0)
        await made.backend.launch(spec)
        await until(lambda: made.rows()[0].deposit_uact > 500_000)
        (row,) = made.rows()
        assert row.price is not None
        needed = row.price * 200.0 * 588.5 / PICO
        assert needed <= row.deposit_uact <= needed * 1.06
        await made.backend.extend(spec.token, spec.ends_at + 100 * 3600.0)
        await until(lambda: len(deposits(made)) == 2)
        await until(lambda: made.rows()[0].deposit_uact > row.deposit_uact)
        assert needed * 1.5 <= made.rows()[0].deposit_uact <= needed * 1.6
        await made.backend.destroy(spec.token)
        sound(made)


async def test_an_escrow_gets_no_more_than_the_operator_allows(virtual_time: None) -> None:
    async with world() as made:
        made.parts = made.make_parts(max_deposit_act=0.6)
        made.backend = type(made.backend)(made.parts)
        async with watched(made.backend):
            await made.backend.launch(made.spec(hours=200.0))
            await until(lambda: made.rows()[0].deposit_uact > 500_000)
        assert made.rows()[0].deposit_uact == 600_000


async def test_a_closed_deployment_has_its_cost_beside_the_price_and_nothing_is_lost(virtual_time: None) -> None:
    async with world() as made:
        before, akt = made.balance(), bank.balance(made.double.chain.state, KEY.address, UAKT)
        made.double.faults.chain.out_of_gas = 1  # in a block, and paid, though it failed
        spec = made.spec()
        await made.backend.launch(spec)
        made.double.make_blocks(100, 6.0)
        await made.backend.destroy(spec.token)
        (row,) = made.rows()
        assert row.state is DeploymentState.CLOSED
        async with watched(made.backend):
            await until(lambda: made.rows()[0].cost_uact is not None)
        (row,) = made.rows()
        assert row.cost_uact == before - made.balance()
        assert row.cost_uact is not None
        assert row.cost_uact > 100 * 8
        (cost,) = made.ledger.write_now(lambda c: costs.of_sessions(c, made.clock.now(), 0.0))
        assert (cost.session_id, cost.cost_uact, cost.is_final) == ("s1", row.cost_uact, True)
        assert cost.fees_uakt == akt - bank.balance(made.double.chain.state, KEY.address, UAKT)
        assert cost.fees_uakt > 0


async def test_a_bid_above_what_the_tier_sells_for_is_refused(virtual_time: None) -> None:
    async with world() as made:
        spec = made.spec()
        cheap = msgspec.structs.replace(spec.tier, usd_micros_per_hour=3_000)  # five uact a block
        async with trio.open_nursery() as nursery:
            launching = trio.CancelScope()

            async def launch() -> None:
                with launching:
                    await made.backend.launch(msgspec.structs.replace(spec, tier=cheap))

            nursery.start_soon(launch)
            await until(lambda: bool(made.rows()) and made.rows()[0].reason == "no_bids")
            launching.cancel()
        assert not made.double.chain.state.leases


async def test_little_money_is_alarmed_and_act_is_minted_and_followed_by_its_own_record(virtual_time: None) -> None:
    async with world() as made:
        made.double.chain.drain(KEY.address, UACT)
        watch = WalletWatch(made.make_parts(mint_akt=20.0))
        with capture_logs() as logs:
            await watch.look()
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["akash_act_low"]
        made.double.make_blocks(11, 6.0)
        with capture_logs() as logs:
            await watch.look()
        assert [log["status"] for log in logs if log["event"] == "akash_mint"] == ["executed"]
        assert made.balance() > 20_000_000
        await watch.look()
        assert made.metrics.registry.get_sample_value("engram_akash_balance", {"denom": "act"}) > 20.0  # type: ignore[operator]


async def test_what_was_sold_is_not_sold_again(virtual_time: None) -> None:
    """A long session is filled up later: what it still needs is alarmed now, and no place is offered for it."""
    async with world() as made:
        watch = WalletWatch(made.make_parts(alarm_act=0.1))
        made.double.chain.drain(KEY.address, UACT)
        made.double.chain.fund(KEY.address, uact=2_000_000)
        await watch.look()
        assert watch.places == 4
        await made.backend.launch(made.spec(hours=720.0))
        with capture_logs() as logs:
            await watch.look()
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["akash_act_low"]
        assert watch.places == 1


async def test_a_mint_that_the_chain_cancels_is_alarmed_and_not_tried_again_at_once(virtual_time: None) -> None:
    """akash-network/support#445: a transaction with code 0 whose mint was canceled and refunded."""
    async with world() as made:
        made.double.chain.drain(KEY.address, UACT)
        watch = WalletWatch(made.make_parts(mint_akt=1.0))  # too little: ten ACT are the least
        await watch.look()
        burned = bank.balance(made.double.chain.state, KEY.address, UAKT)
        made.double.make_blocks(31, 6.0)
        with capture_logs() as logs:
            await watch.look()
        assert [log["status"] for log in logs if log["event"] == "akash_mint"] == ["canceled"]
        await watch.look()
        mints = made.ledger.write_now(lambda c: transactions.open_ones(c, Subject.MINT))
        assert mints == []
        assert bank.balance(made.double.chain.state, KEY.address, UAKT) == burned + 1_000_000


async def test_an_orphan_of_a_lost_ledger_is_closed_and_what_others_made_is_left_alone(virtual_time: None) -> None:
    async with world() as made:
        spec = made.spec()
        await made.backend.launch(spec)
        (row,) = made.rows()
        made.forget(row.dseq)
        async with watched(made.backend):
            await trio.sleep(3 * made.parts.reconcile_s)
            assert made.active() == [row.dseq], "younger than a quarter of an hour"
            made.double.make_blocks(160, 6.0)
            await until(lambda: made.active() == [])
        sound(made)


async def test_a_serving_deployment_whose_manifest_others_changed_is_reported_and_kept(virtual_time: None) -> None:
    async with world() as made:
        await made.backend.launch(made.spec(hours=10.0))
        (row,) = made.rows()
        sender = made.make_parts().sender
        change = UpdateDeployment(DeploymentID(KEY.address, row.dseq), b"\1" * 32)
        outgoing = await sender.prepare((change,), Subject.CREATE, None)
        assert isinstance(outgoing, transactions.Outgoing)
        await sender.commit(outgoing)
        assert (await sender.follow(outgoing)).state is TxState.INCLUDED
        made.double.make_blocks(160, 6.0)
        with capture_logs() as logs:
            await Reconciler(made.make_parts()).run()
        assert "akash_manifest_differs" in [log["event"] for log in logs]
        assert made.active() == [row.dseq]


async def test_the_last_lines_of_a_node_that_never_became_ready_are_kept(virtual_time: None) -> None:
    async with world() as made:
        made.faults("ada", never_ready=True)
        await made.backend.launch(made.spec())
        first = made.rows()[0]
        assert (first.provider, first.reason) == (made.double.providers["ada"].address, "never_ready")
        assert first.logs
