"""A chain that takes numbered transactions only, and another program that uses the account at the same time."""

from functools import partial

import pytest
import trio

from engram.provisioning import NodeSpec
from engram.provisioning.akash import transactions, tx
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.messages import CloseDeployment, DeploymentID
from engram.provisioning.akash.transactions import Subject, TxState, of_deployment
from engram.provisioning.errors import Unavailable
from tests.doubles.akash.errors import WRONG_SEQUENCE
from tests.doubles.akash.transaction import decode
from tests.provisioning.akash.test_reports import many_sessions, paid_leases, sound, until
from tests.provisioning.akash.worlds import CHAIN_ID, KEY, World, world


def numbered(made: World) -> None:
    """Let every node refuse unordered transactions."""
    for node in made.double.faults.nodes:
        node.no_unordered = True


async def another_waits(made: World) -> None:
    """Another program's transaction of the same account is in the mempool; no block is made."""
    made.double.faults.chain.no_blocks = True
    account = await made.parts.chain.account()
    assert account is not None
    head = await made.parts.chain.endpoints.head()
    signed = tx.sign(
        (CloseDeployment(DeploymentID(KEY.address, 1)),),
        tx.Ordered(int(account.sequence), head.height + 1_000),
        tx.fee_of(200_000, "0.025"),
        tx.Account(int(account.account_number), CHAIN_ID),
        KEY,
    )
    made.double.chain.check(signed.raw)


async def test_what_waits_of_another_program_is_counted_when_a_message_is_simulated(virtual_time: None) -> None:
    async with world() as made:
        numbered(made)
        await another_waits(made)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.backend.launch, made.spec())
            await until(lambda: bool(made.rows()))
            made.double.faults.chain.no_blocks = False
        (row,) = made.rows()
        (create, lease) = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
        assert (create.subject, create.state, create.sequence) == (Subject.CREATE, TxState.INCLUDED, 1)
        assert (lease.subject, lease.sequence) == (Subject.LEASE, 2)
        assert paid_leases(made) == 1
        sound(made)


async def test_a_chain_that_always_wants_another_number_refuses_no_session_for_good(
    virtual_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of the messages then."""
    async with world() as made:
        numbered(made)
        await made.parts.sender._signing.probe()

        def racing(raw: bytes) -> int:
            got = decode(raw).sequence
            raise WRONG_SEQUENCE.error(f"account sequence mismatch, expected {got + 1}, got {got}")

        monkeypatch.setattr(made.double.chain, "simulate", racing)
        with pytest.raises(Unavailable, match="next sequence is not known"):
            await made.backend.launch(made.spec())
        assert made.rows() == []


async def test_no_numbered_transaction_is_lost_or_doubled_beside_a_second_writer(virtual_time: None) -> None:
    """akash-network/support#13: two programs number the transactions of one account."""
    async with world() as made:
        numbered(made)
        await many_sessions(made, 3)
        assert made.parts.sender.is_ordered
        assert made.double.control.state()["failed"] == []


async def test_two_gateways_of_one_ledger_sign_no_sequence_twice(virtual_time: None) -> None:
    """What is signed under a sequence that is taken waits in vain until its time is over."""
    async with world() as made:
        numbered(made)
        backends = (made.backend, AkashBackend(made.make_parts()))
        async with trio.open_nursery() as nursery:
            for number in range(4):
                spec = made.spec(f"s{number}", f"t{number}")
                nursery.start_soon(launched, backends[number % 2], spec)
        assert len(made.active()) == 4
        sent = [one for row in made.rows() for one in made.ledger.write_now(partial(of_deployment, dseq=row.dseq))]
        assert {one.state for one in sent} == {TxState.INCLUDED}
        assert sorted(one.sequence for one in sent if one.sequence is not None) == list(range(len(sent)))


async def launched(backend: AkashBackend, spec: NodeSpec) -> None:
    """Launch as a saga does: again where it is not possible now."""
    while True:
        try:
            await backend.launch(spec)
        except Unavailable:
            await trio.sleep(0.2)
        else:
            return
