"""Escrows, costs, balances and minted ACT, on the double."""

from functools import partial

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from engram.provisioning import placement
from engram.provisioning.akash import bidding, costs, transactions
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.escrow import Escrows
from engram.provisioning.akash.messages import DeploymentID, UpdateDeployment
from engram.provisioning.akash.model import BLOCKS_PER_HOUR, PICO, DeploymentState
from engram.provisioning.akash.reconciling import Reconciler
from engram.provisioning.akash.transactions import Subject, TxState
from engram.provisioning.akash.wallet_watch import WalletWatch
from engram.provisioning.backends import Backends
from engram.provisioning.errors import Unavailable
from engram.sessions import SessionEvent
from tests.doubles.akash import bank, market
from tests.doubles.akash.store import UACT, UAKT
from tests.provisioning import fleets
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


async def test_an_escrow_holds_no_more_than_the_operator_allows_and_is_filled_again_as_it_drains(
    virtual_time: None,
) -> None:
    async with world() as made:
        made.parts = made.make_parts(max_deposit_act=0.6)
        escrows = Escrows(made.parts)
        await made.backend.launch(made.spec(hours=200.0))
        with capture_logs() as logs:
            await escrows.fill(made.rows()[0])
            await escrows.fill(made.rows()[0])
        (row,) = made.rows()
        assert row.price is not None
        assert 599_000 <= await held(made) <= 600_000
        (said,) = [line for line in logs if line["event"] == "akash_escrow_capped"]
        assert (said["log_level"], said["dseq"], said["max_deposit_act"]) == ("error", row.dseq, 0.6)
        needed = row.price * 200.0 * 588.5 * bidding.RESERVE / PICO
        assert bidding.owed_uact(row, made.clock.now()) == pytest.approx(needed - 600_000, rel=0.02)
        made.double.make_blocks(20_000, 6.0)
        assert await held(made) < 500_000
        async with watched(AkashBackend(made.parts)):
            await until(lambda: made.rows()[0].deposit_uact > 700_000)  # in all: more than it holds at once
        assert await held(made) <= 600_000
        assert made.active() == [row.dseq]
        sound(made)


async def held(made: World) -> int:
    """What the escrow of the one deployment holds now, uact."""
    (row,) = made.rows()
    info = await made.parts.chain.deployment_agreed(row.dseq)
    assert info is not None
    assert row.price is not None
    head = await made.parts.chain.endpoints.head()
    return (info.funds - row.price * max(0, head.height - info.settled_at)) // PICO


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


async def test_a_bid_above_what_the_tier_sells_for_is_refused(
    virtual_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market, "price_cap", lambda spec: 10**40)  # a chain that takes any bid
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
        (row, *_) = made.rows()
        prices = [bid.price for bid in made.double.chain.state.bids.values() if bid.dseq == row.dseq]
        assert prices, "providers have bid"
        assert not made.double.chain.state.leases


async def test_little_money_is_alarmed_and_act_is_minted_and_followed_by_its_own_record(virtual_time: None) -> None:
    async with world() as made:
        made.double.chain.drain(KEY.address, UACT)
        watch = WalletWatch(made.make_parts(mint_akt=20.0))
        with capture_logs() as logs:
            await watch.look()
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["akash_act_low"]
        assert made.metrics.registry.get_sample_value("engram_akash_spare_act") == 0.0
        made.double.make_blocks(11, 6.0)
        with capture_logs() as logs:
            await watch.look()
        assert [log["status"] for log in logs if log["event"] == "akash_mint"] == ["executed"]
        assert made.balance() > 20_000_000
        await watch.look()
        assert made.metrics.registry.get_sample_value("engram_akash_balance", {"denom": "act"}) > 20.0  # type: ignore[operator]


async def test_a_session_that_the_account_cannot_pay_for_its_whole_time_is_not_sold(virtual_time: None) -> None:
    """Its least deposit is affordable; what the rest of its time costs is not."""
    async with world() as made:
        made.double.chain.drain(KEY.address, UACT)
        made.double.chain.fund(KEY.address, uact=2_000_000)
        backends, wallet = Backends([made.backend]), made.backend._watching.wallet
        await wallet.look()
        await backends.look()
        tier = made.spec().tier.name
        longest_s = 2.0e6 / (made.parts.max_price[tier] * BLOCKS_PER_HOUR * bidding.RESERVE) * 3600.0
        assert backends.places_for(tier, longest_s * 0.99) == 1
        assert backends.places_for(tier, longest_s * 1.01) == 0
        assert backends.places == backends.places_for(tier, 3600.0) == 4
        ranked = partial(placement.ranked, "first", backends.standings, {}, tier)
        assert [one.backend for one in ranked(seconds=longest_s * 0.99)] == ["akash"]
        assert ranked(seconds=longest_s * 1.01) == []
        await made.backend.launch(made.spec(hours=longest_s / 3600.0))
        await wallet.look()
        await backends.look()
        (standing,) = backends.standings
        assert standing.offers is not None
        assert standing.offers.paid_sessions == {"s1"}
        assert backends.places_for(tier, longest_s) == 1, "some of it is set aside now"


async def test_what_was_sold_is_not_sold_again(virtual_time: None) -> None:
    """A long session is filled up later: what it still needs is alarmed now, and no place is offered for it."""
    async with world() as made:
        watch = WalletWatch(made.make_parts(alarm_act=0.1))
        made.double.chain.drain(KEY.address, UACT)
        made.double.chain.fund(KEY.address, uact=2_000_000)
        await watch.look()
        assert watch.left(made.rows(), made.clock.now()).places == 4
        shown = made.metrics.registry.get_sample_value
        assert shown("engram_akash_spare_act") == 2.0
        await made.backend.launch(made.spec(hours=720.0))
        with capture_logs() as logs:
            await watch.look()
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["akash_act_low"]
        assert watch.left(made.rows(), made.clock.now()).places == 1
        assert (shown("engram_akash_spare_act") or 0.0) < 0.1 < (shown("engram_akash_balance", {"denom": "act"}) or 0.0)


async def test_a_balance_of_before_is_not_shown_while_the_chain_does_not_answer(virtual_time: None) -> None:
    async with world() as made:
        shown, look = made.metrics.registry.get_sample_value, made.backend._watching._look_at_wallet
        await look()
        assert shown("engram_akash_spare_act") is not None
        for node in made.double.faults.nodes:
            node.down = True
        with pytest.RaisesGroup(Unavailable, allow_unwrapped=True):
            await look()
        assert shown("engram_akash_spare_act") is None
        assert shown("engram_akash_balance", {"denom": "act"}) is None


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


async def test_balances_margin_and_deployments_are_shown_as_they_are(virtual_time: None) -> None:
    """Each metric has the value that chain and ledger give, not only a name."""
    async with world() as made:

        def shown(name: str, **labels: str) -> float | None:
            return made.metrics.registry.get_sample_value(name, labels)

        state, parts = made.double.chain.state, made.make_parts(akt_usd=2.0)
        fleet = fleets.World(made.ledger, clock=made.clock)
        fleet.sell("s1")  # for 0.1 USD
        spec = made.spec()
        await made.backend.launch(spec)
        await Reconciler(parts).run()
        assert shown("engram_akash_deployments", whose="ours") == 1.0
        assert shown("engram_akash_deployments", whose="foreign") == 0.0
        assert shown("engram_akash_margin_ratio") in (None, 0.0), "nothing is over yet"
        made.double.make_blocks(100, 6.0)
        await made.backend.destroy(spec.token)
        async with watched(made.backend):
            await until(lambda: made.rows()[0].cost_uact is not None)
        await WalletWatch(parts).look()
        assert shown("engram_akash_margin_ratio") in (None, 0.0), "a refund may be due until the session is over"
        for event in (SessionEvent.NODE_READY, SessionEvent.END, SessionEvent.DESTROYED):
            assert fleet.happens(event, "s1") is not None
        await WalletWatch(parts).look()
        assert shown("engram_akash_balance", denom="akt") == bank.balance(state, KEY.address, UAKT) / 10**6
        assert shown("engram_akash_balance", denom="act") == bank.balance(state, KEY.address, UACT) / 10**6
        rent = 10**9 - bank.balance(state, KEY.address, UACT)
        fees = 10**9 - bank.balance(state, KEY.address, UAKT)
        assert rent > 100 * 8
        assert fees > 0
        assert shown("engram_akash_margin_ratio") == pytest.approx(1.0 - (rent + 2.0 * fees) / 100_000)
        assert shown("engram_akash_orphans_closed_total") == 0.0


async def test_an_orphan_counts_as_closed_when_it_is_and_not_when_that_was_refused(virtual_time: None) -> None:
    async with world() as made:

        def counted() -> float | None:
            return made.metrics.registry.get_sample_value("engram_akash_orphans_closed_total")

        await made.backend.launch(made.spec())
        made.forget(made.rows()[0].dseq)
        made.double.make_blocks(160, 6.0)
        reconciler = Reconciler(made.parts)
        with capture_logs() as logs:  # its timeout is by the clock of the blocks before: the chain refuses it
            await reconciler.run()
        assert [log["event"] for log in logs if "orphan" in log["event"]] == ["akash_orphan_not_closed"]
        assert (counted(), len(made.active())) == (0.0, 1)
        await trio.sleep(2 * made.settings.akash.poll_s)
        await reconciler.run()
        assert (counted(), made.active()) == (1.0, [])
