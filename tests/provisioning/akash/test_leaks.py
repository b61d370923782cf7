"""Ways in which a deployment goes on costing while nobody wants it, each tried."""

from functools import partial
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from engram.provisioning.akash import events, factory, records, transactions
from engram.provisioning.akash.account import Signer
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.escrow import Escrows
from engram.provisioning.akash.model import SUCCESSOR, Deployment, DeploymentState
from engram.provisioning.akash.transactions import Subject
from engram.provisioning.errors import Unavailable
from tests.doubles.akash import bank
from tests.doubles.akash.store import UACT, UAKT
from tests.provisioning.akash.test_reports import paid_leases, sound, until, watched
from tests.provisioning.akash.worlds import KEY, world

S = DeploymentState
OTHER = Signer(b"\x08" * 32)


async def test_deployments_of_another_account_are_never_taken_for_gone(virtual_time: None) -> None:
    """The key file was exchanged: seen from the new account the deployments are not there."""
    async with world() as made:
        spec = made.spec()
        await made.backend.launch(spec)
        parts = factory.make_parts(
            made.settings, OTHER, made.ledger, made.ledger_id, made.http, made.clock, made.metrics
        )
        other = AkashBackend(parts)
        for call in (partial(other.destroy, spec.token), partial(other.launch, spec), other.offers, other.list):
            with pytest.raises(Unavailable, match=KEY.address):
                await call()
        async with watched(other) as exits:
            await trio.sleep(3 * made.parts.watch_s)
            assert exits == []
        assert made.rows()[0].state is S.SERVING
        await made.backend.destroy(spec.token)
        assert made.active() == []
        assert await other.list() == []
        assert (await other.offers()).backend == "akash"


async def test_a_successor_whose_node_is_gone_is_closed_when_the_gateway_starts_again(virtual_time: None) -> None:
    async with world() as made:
        spec = made.spec()
        made.sell(spec)
        await made.backend.launch(spec)
        (row,) = made.rows()
        placing = made.backend._placing  # as a gateway left it that was killed while it placed one
        await placing.drive(await placing.create_like(row, spec.token + SUCCESSOR, wide=False))
        assert paid_leases(made) == 2
        async with watched(AkashBackend(made.make_parts())):
            await until(lambda: paid_leases(made) == 1)
        assert [one.token for one in made.rows() if one.state is S.SERVING] == [spec.token]
        sound(made)


async def test_an_outage_of_all_endpoints_ends_no_watch_and_an_orphan_is_closed_after_it(virtual_time: None) -> None:
    async with world() as made:
        await made.backend.launch(made.spec())
        (row,) = made.rows()
        made.forget(row.dseq)
        for node in made.double.faults.nodes:
            node.down = True
        with capture_logs() as logs:
            async with watched(made.backend):
                await until(lambda: "akash_not_compared" in [log["event"] for log in logs])
                for node in made.double.faults.nodes:
                    node.down = False
                made.double.make_blocks(160, 6.0)
                await until(lambda: made.active() == [])
        sound(made)


async def test_no_successor_is_begun_for_a_session_that_has_ended(virtual_time: None) -> None:
    async with world() as made:
        spec = made.spec()
        await made.backend.launch(spec)
        (row,) = made.rows()
        replacing = made.backend._watching._replacing
        await made.backend.destroy(spec.token)
        assert not await replacing.replace(row)
        assert len(made.rows()) == 1


async def test_a_close_that_is_stuck_delays_no_other_and_no_look_at_the_chain(virtual_time: None) -> None:
    async with world() as made:
        for word in ("t1", "t2", "t3"):
            await made.backend.launch(made.spec(word, word))
        first, second, third = made.rows()
        placing = made.backend._placing
        for row in (first, second):
            await placing.apply(row, events.Close("session_over"))
        made.forget(third.dseq)
        drive = placing.drive

        async def stuck(row: Deployment) -> Deployment:
            if row.dseq == first.dseq:
                await trio.sleep_forever()
            return await drive(row)

        made.double.make_blocks(160, 6.0)
        with trio.fail_after(5.0):
            while (await made.parts.chain.endpoints.head()).time < made.clock.now() - 30.0:  # noqa: ASYNC110  # blocks
                await trio.sleep(made.settings.akash.poll_s)  # the newest block is kept for a moment
        placing.drive = stuck  # type: ignore[method-assign]
        made.backend._watching._parts = made.make_parts(reconcile_s=60.0)
        async with watched(made.backend):
            await until(lambda: made.active() == [first.dseq])


async def test_a_deposit_is_settled_and_counted_in_one_commit(
    monkeypatch: pytest.MonkeyPatch, virtual_time: None
) -> None:
    async with world() as made:
        await made.backend.launch(made.spec(hours=200.0))

        def killed(*_: Any) -> None:
            raise RuntimeError("killed")

        escrows = made.backend._escrows
        with monkeypatch.context() as patch:
            patch.setattr(records, "add_deposit", killed)
            with pytest.raises(RuntimeError, match="killed"):
                await escrows.fill(made.rows()[0])
        (deposit,) = made.ledger.write_now(lambda c: transactions.open_ones(c, Subject.DEPOSIT))
        assert made.rows()[0].deposit_uact == 500_000
        await AkashBackend(made.make_parts())._escrows.fill(made.rows()[0])
        assert made.rows()[0].deposit_uact == 500_000 + deposit.amount_uact
        sound(made)


async def test_an_escrow_is_filled_once_by_gateways_that_share_a_ledger(virtual_time: None) -> None:
    async with world() as made:
        await made.backend.launch(made.spec(hours=200.0))
        (row,) = made.rows()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(Escrows(made.make_parts()).fill, row)
        (filled,) = made.rows()
        assert filled.deposit_uact > row.deposit_uact
        deposits = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
        assert [one.subject for one in deposits].count(Subject.DEPOSIT) == 1
        sound(made)


@pytest.mark.parametrize("denom", [UACT, UAKT])
async def test_no_more_is_offered_than_the_account_can_pay_for_however_fast_it_is_sold(
    denom: str, virtual_time: None
) -> None:
    async with world() as made:
        state = made.double.chain.state
        look = made.backend._watching.wallet.look
        await look()
        assert (await made.backend.offers()).places > 2
        spare = 1_000_000 if denom == UACT else 200_000
        bank.send(state, KEY.address, OTHER.address, denom, bank.balance(state, KEY.address, denom) - spare)
        await look()
        assert (await made.backend.offers()).places == 2
        await made.backend.launch(made.spec())
        assert (await made.backend.offers()).places == 2
        await look()
        assert (await made.backend.offers()).places <= 2
