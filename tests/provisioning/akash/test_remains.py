"""What is left over of deployments that are closed: nothing of it stays for ever."""

import msgspec
import pytest

from engram.ledger.inline import open_inline
from engram.provisioning.akash import records, transactions
from engram.provisioning.akash.cosmos import Coin
from engram.provisioning.akash.escrow import Escrows
from engram.provisioning.akash.messages import AccountDeposit, Deposit, EscrowID, EscrowScope
from engram.provisioning.akash.model import DeploymentState
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from tests.provisioning.akash.deployments import a_row
from tests.provisioning.akash.test_reports import sound, until, watched
from tests.provisioning.akash.worlds import KEY, world

S, X = DeploymentState, TxState
OLD, NOW = 100.0, 1_000.0


def a_transaction(number: int, dseq: int | None, state: TxState, created_at: float) -> Outgoing:
    return Outgoing(
        hash=bytes([number]) * 32,
        subject=Subject.MINT if dseq is None else Subject.CLOSE,
        dseq=dseq,
        raw=b"raw",
        timeout_ns=number,
        state=state,
        gas_limit=1,
        fee_uakt=1,
        created_at=created_at,
    )


@pytest.mark.parametrize("dseq", [None, 17])
def test_old_transactions_that_belong_to_no_deployment_are_forgotten(dseq: int | None) -> None:
    """Mints, and closes of orphans."""
    ledger = open_inline()
    ledger.write_now(lambda c: records.insert_deployment(c, a_row(S.SERVING, dseq=1)))
    kept = [
        a_transaction(1, None, X.OPEN, OLD),
        a_transaction(2, dseq, X.INCLUDED, NOW),
        a_transaction(3, 1, X.INCLUDED, OLD),
    ]
    gone = [
        a_transaction(4, dseq, X.INCLUDED, OLD),
        a_transaction(5, dseq, X.EXPIRED, OLD),
        a_transaction(6, 18, X.OPEN, OLD),
    ]
    for one in (*kept, *gone):
        ledger.write_now(lambda c, one=one: transactions.add(c, one))  # type: ignore[misc]
    assert ledger.write_now(lambda c: records.forget_closed(c, 500.0)) == 0
    for one in (*kept, *gone):
        found = ledger.write_now(lambda c, one=one: transactions.get(c, one.hash))  # type: ignore[misc]
        assert (found is not None) == (one in kept)
    ledger.close()


async def test_a_deposit_that_was_under_way_when_its_deployment_closed_is_followed_to_its_end(
    virtual_time: None,
) -> None:
    async with world() as made:
        spec = made.spec()
        await made.backend.launch(spec)
        (row,) = made.rows()
        sender = made.make_parts().sender  # of a gateway that was killed before it had sent it
        account = EscrowID(EscrowScope.DEPLOYMENT, f"{KEY.address}/{row.dseq}")
        message = AccountDeposit(KEY.address, account, Deposit(Coin("uact", "1000")))
        deposit = await sender.prepare((message,), Subject.DEPOSIT, row.dseq, 1_000)
        assert isinstance(deposit, Outgoing)
        await sender.commit(deposit)
        await made.backend.destroy(spec.token)
        assert made.rows()[0].state is S.CLOSED
        made.double.make_blocks(10, 6.0)
        async with watched(made.backend):
            await until(lambda: made.ledger.write_now(lambda c: transactions.open_ones(c, Subject.DEPOSIT)) == [])
        sound(made)


async def test_nothing_is_remembered_of_deployments_that_are_closed(virtual_time: None) -> None:
    async with world() as made:
        spec = made.spec(hours=200.0)
        await made.backend.launch(spec)
        (row,) = made.rows()
        escrows, watching = Escrows(msgspec.structs.replace(made.parts, max_deposit_act=0.6)), made.backend._watching
        await escrows.fill(row)
        watching._not_running[row.dseq] = 5
        assert escrows._capped == {row.dseq}
        await made.backend.destroy(spec.token)
        await watching._look()
        await escrows.fill_all()
        assert (watching._not_running, escrows._capped) == ({}, set())


async def test_a_node_is_watched_while_endpoints_disagree_on_its_lease(virtual_time: None) -> None:
    async with world() as made:
        spec = made.spec()
        await made.backend.launch(spec)
        (row,) = made.rows()
        name = next(name for name, one in made.double.providers.items() if one.address == row.provider)
        for node in made.double.faults.nodes[:-1]:
            node.lie = "dear"
        assert len(made.double.faults.nodes) == 2
        made.faults(name, loses_workloads=True)
        async with watched(made.backend) as exits:
            await until(lambda: exits == [spec.token])
        assert made.rows()[0].price == row.price
