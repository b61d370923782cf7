"""What others have reported of Akash deployers, each against the double: not here."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest
import trio

from engram.ledger.inline import open_inline
from engram.provisioning import Rejected
from engram.provisioning.akash import records, tables, transactions
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.cosmos import Coin
from engram.provisioning.akash.escrow import Escrows
from engram.provisioning.akash.factory import make_parts
from engram.provisioning.akash.messages import AccountDeposit, Deposit, EscrowID, EscrowScope
from engram.provisioning.akash.model import DeploymentState
from engram.provisioning.akash.transactions import Subject, TxState
from engram.sdk import NodeClient
from tests.doubles.akash.store import UACT
from tests.provisioning.akash.worlds import BUYER, KEY, QUICK, QUICKLY, World, world

S = DeploymentState
BUSY = msgspec.structs.replace(QUICKLY, block_s=1.0)
"""Blocks of a second, for what runs in real time: it leaves time to work for a hundred sessions at once."""


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110  # another process's doing, seen from outside
            await trio.sleep(0.02)


@asynccontextmanager
async def watched(backend: AkashBackend) -> AsyncIterator[list[str]]:
    """The backend's watch running; yields the tokens of nodes that it says have ended."""
    exits: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.watch, exits.append)
        yield exits
        nursery.cancel_scope.cancel()


def sound(made: World) -> None:
    """Every coin of the chain is accounted for, and no manifest was deployed twice."""
    state = made.double.control.state()["chain"]
    assert state["problems"] == []
    assert state["doubled_hashes"] == 0


def serving(made: World) -> list[tuple[str, str]]:
    """(token, provider) of what the ledger says is served."""
    return [(row.token, row.provider or "") for row in made.rows() if row.state is S.SERVING]


def paid_leases(made: World) -> int:
    return sum(1 for lease in made.double.chain.state.leases.values() if lease.owner == KEY.address and lease.serves)


async def second_writer(made: World, stop: trio.Event) -> None:
    """Another program with the same key: deposits into one of the account's escrows, again and again."""
    own = open_inline()
    sender = make_parts(made.settings, KEY, own, made.ledger_id, made.http, made.clock, made.metrics).sender
    while not stop.is_set():
        dseq = next(iter(made.active()), None)
        if dseq is not None:
            account = EscrowID(EscrowScope.DEPLOYMENT, f"{KEY.address}/{dseq}")
            message = AccountDeposit(KEY.address, account, Deposit(Coin("uact", "1")))
            outgoing = await sender.prepare((message,), Subject.DEPOSIT, None)
            if isinstance(outgoing, transactions.Outgoing) and await sender.commit(outgoing):
                await sender.follow(outgoing)
        await trio.sleep(0.05)
    own.close()


async def many_sessions(made: World, count: int) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(second_writer, made, stop)
        async with trio.open_nursery() as launches:
            for number in range(count):
                launches.start_soon(made.backend.launch, made.spec(f"s{number}", f"t{number}"))
        stop.set()
    assert len(serving(made)) == len(made.active()) == paid_leases(made) == count
    ours = [made.ledger.write_now(partial(transactions.of_deployment, dseq=row.dseq)) for row in made.rows()]
    for sent in ours:
        assert [one.subject for one in sent if one.state is TxState.INCLUDED][:2] == [Subject.CREATE, Subject.LEASE]
    sound(made)


async def test_report_support_13_no_transaction_is_lost_or_doubled_beside_a_second_writer(virtual_time: None) -> None:
    """akash-network/support#13, node#955: sequence mismatches, and a failed send that counted."""
    async with world() as made:
        await many_sessions(made, 8)
        assert made.double.control.state()["failed"] == []


@pytest.mark.nightly
@pytest.mark.heavy
async def test_report_support_13_with_a_hundred_sessions_at_once_and_five_real_nodes_among_them() -> None:
    """akash-network/support#13, node#955, at the size of the report twice over. The real ones take real time."""
    real = tuple(f"s{number}" for number in range(0, 100, 20))
    options = msgspec.structs.replace(BUSY, real_sessions=real, unstable_after_s=1_800.0)
    async with world(options, msgspec.structs.replace(QUICK, ready_s=1_800.0)) as made:
        await many_sessions(made, 105)
        assert made.double.control.state()["failed"] == []
        endpoints = [row.endpoint or "" for row in made.rows() if row.session_id in real]
        assert len(set(endpoints)) == len(real)
        for number, endpoint in enumerate(endpoints):
            await trio.to_thread.run_sync(remembers, endpoint, f"Otter {number} holds hands.")


def remembers(endpoint: str, text: str) -> None:
    """A node stores the text, and holds no other."""
    with NodeClient(endpoint, BUYER) as node:
        node.ingest_text(text)
        assert [found.text for found in node.query(text, top_k=9)] == [text]


async def test_report_support_13_where_transactions_are_numbered_a_message_is_sent_once(virtual_time: None) -> None:
    """akash-network/support#13: code 32 comes only where the chain refuses unordered transactions."""
    async with world() as made:
        for node in made.double.faults.nodes:
            node.no_unordered = True
        made.double.faults.chain.second_writer = 2
        async with trio.open_nursery() as launches:
            for number in range(3):
                launches.start_soon(made.backend.launch, made.spec(f"s{number}", f"t{number}"))
        assert made.parts.sender.is_ordered
        assert made.double.faults.chain.second_writer == 0, "the other writer never came in between"
        assert len(serving(made)) == len(made.active()) == paid_leases(made) == 3
        sound(made)


@pytest.mark.parametrize("fault", ["broadcast_then_hang", "broadcast_then_500"])
async def test_report_cosmos_sdk_12144_a_timeout_after_acceptance_makes_one_deployment(
    fault: str, virtual_time: None
) -> None:
    """cosmos/cosmos-sdk#12144, #3878: the sender timed out, and sent again what had been taken."""
    async with world() as made:
        for node in made.double.faults.nodes:
            setattr(node, fault, 1)
        await made.backend.launch(made.spec())
        assert len(made.active()) == paid_leases(made) == 1
        assert len(made.double.chain.state.deployments) == 1
        (row,) = made.rows()
        sent = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
        assert [one.subject for one in sent] == [Subject.CREATE, Subject.LEASE], "the same bytes went out again"
        sound(made)


async def test_report_regen_744_a_node_that_catches_up_gets_no_transaction(virtual_time: None) -> None:
    """regen-network/testnets#744, akash-network/node#1613: it swallowed one, and the next ones waited for it."""
    async with world() as made:
        made.double.faults.nodes[0].syncing = True
        await made.backend.launch(made.spec())
        assert made.double.nodes[0].sent == []
        assert made.double.nodes[1].sent
        made.double.faults.nodes[0].syncing = False
        made.double.faults.nodes[0].stale = True
        await trio.sleep(2 * made.settings.akash.poll_s)  # until the next look at the endpoints
        await made.parts.chain.endpoints.usable()  # the node stops where it is when it is next asked
        made.double.make_blocks(10, 6.0)
        await trio.sleep(2 * made.settings.akash.poll_s)
        await made.backend.launch(made.spec("s2", "t2"))
        assert made.double.nodes[0].sent == []
        sound(made)


async def test_report_regen_744_a_swallowed_transaction_goes_out_again_through_another_node(virtual_time: None) -> None:
    """akash-network/node#1613: a node that swallows all it is sent delays a message, and blocks none behind it."""
    async with world() as made:
        made.double.faults.nodes[0].broadcast_lost = 100
        async with trio.open_nursery() as launches:
            for number in range(3):
                launches.start_soon(made.backend.launch, made.spec(f"s{number}", f"t{number}"))
        swallowed, taken = (set(node.sent) for node in made.double.nodes[:2])
        assert swallowed, "the faulty node got nothing"
        assert swallowed <= taken, "what was swallowed did not go out through another node"
        assert len(made.double.chain.state.deployments) == paid_leases(made) == 3
        for row in made.rows():
            sent = made.ledger.write_now(partial(transactions.of_deployment, dseq=row.dseq))
            assert [(one.subject, one.state) for one in sent] == [
                (Subject.CREATE, TxState.INCLUDED),
                (Subject.LEASE, TxState.INCLUDED),
            ], "the same bytes went out again, within their time"
        sound(made)


async def test_report_regen_744_what_every_node_swallowed_goes_out_anew_when_its_time_is_over(
    virtual_time: None,
) -> None:
    """akash-network/node#1613: nobody has it after its time, by two nodes' word; then it is signed once more."""
    async with world() as made:
        for node in made.double.faults.nodes:
            node.broadcast_lost = 1_000
        async with trio.open_nursery() as launches:
            launches.start_soon(made.backend.launch, made.spec())

            def expired() -> list[transactions.Outgoing]:
                of = [partial(transactions.of_deployment, dseq=row.dseq) for row in made.rows()]
                return [one for each in of for one in made.ledger.write_now(each) if one.state is TxState.EXPIRED]

            await until(lambda: bool(expired()), 60.0)
            assert len(made.double.chain.state.deployments) == 0
            for node in made.double.faults.nodes:
                node.broadcast_lost = 0
        (lost,) = expired()
        assert lost.subject is Subject.CREATE
        assert made.clock.now() > lost.timeout_ns / 10**9
        assert len(made.double.chain.state.deployments) == paid_leases(made) == 1
        sound(made)


async def test_report_support_368_an_overdrawn_escrow_ends_the_session_and_is_not_filled_again(
    virtual_time: None,
) -> None:
    """akash-network/support#368, node#1635: negative funds; console#3531: a closed account takes no deposit."""
    async with world() as made:
        await made.backend.launch(made.spec(hours=2_000.0))  # it needs more than the least deposit
        (row,) = made.rows()
        made.double.make_blocks(40, 6.0)
        for _ in range(40):
            made.double.make_blocks(4_000, 6.0)
            if not made.active():
                break
            await trio.sleep(0.05)
        assert made.active() == []
        await Escrows(made.parts).fill(made.rows()[0])  # before the watch has seen that it is closed
        async with watched(made.backend) as exits:
            await until(lambda: made.rows()[0].state is S.CLOSED)
            await until(lambda: bool(exits))
            await until(lambda: made.rows()[0].cost_uact is not None)
        assert await made.backend.inspect(row.token) is None
        sent = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
        assert Subject.DEPOSIT not in {one.subject for one in sent}


async def test_report_support_121_a_workload_that_is_gone_gets_its_manifest_again_and_is_then_replaced(
    virtual_time: None,
) -> None:
    """akash-network/support#121, #107, #265: the lease is active and paid, and nothing runs."""
    async with world() as made, watched(made.backend) as exits:
        spec = made.spec()
        first = await made.backend.launch(spec)
        (row,) = made.rows()
        name = next(name for name, one in made.double.providers.items() if one.address == row.provider)
        made.faults(name, loses_workloads=True)
        await until(lambda: exits == [spec.token])
        assert (await made.backend.inspect(spec.token)).alive is False  # type: ignore[union-attr]
        taken = made.double.providers[name].manifests_taken
        at_most = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.backend.launch, spec)
            while made.rows()[-1].dseq == row.dseq or made.rows()[-1].state is not S.SERVING:
                at_most = max(at_most, paid_leases(made))
                await trio.sleep(0.01)
        assert made.double.providers[name].manifests_taken == taken + 1
        assert at_most == 1, "two leases were paid at once"
        old, new = made.rows()
        assert (old.state, old.reason) == (S.CLOSED, "never_ready")
        assert new.provider != row.provider
        assert (await made.backend.launch(spec)).store != first.store, (
            "the buyer is told that the memory is another one"
        )
        sound(made)


async def test_report_console_3939_a_deployment_without_lease_is_closed_also_after_the_gateway_was_down(
    virtual_time: None,
) -> None:
    """akash-network/console#3939: the deposit stays locked until somebody closes the deployment."""
    async with world() as made:
        for name in ("ada", "brunel"):
            made.faults(name, no_bids=True)  # the third gives no notice, and leaves at once
        await made.backend.launch(made.spec())
        before = made.balance()
        for tenancy in list(made.double.providers["curie"].tenancies.values()):
            made.double.providers["curie"].leave(tenancy, "lease_closed_reason_unstable")
        await until(lambda: paid_leases(made) == 0)
        assert len(made.active()) == 1
        again = AkashBackend(made.make_parts())
        async with watched(again) as exits:
            await until(lambda: made.active() == [])
            assert exits == [made.spec().token]
        assert made.balance() > before, "the deposit did not come back"
        sound(made)


async def test_report_console_3372_an_empty_200_is_not_ready_and_no_second_lease_is_made(virtual_time: None) -> None:
    """akash-network/console#3372, node#999: lease made, manifest failed, and the retry made another lease."""
    async with world() as made:
        for name in made.double.providers:
            made.faults(name, error_500=3)
        await made.backend.launch(made.spec())
        assert len(made.double.chain.state.leases) == 1
        sound(made)
    async with world() as made:
        made.faults("ada", ignores_manifest=True)
        await made.backend.launch(made.spec())
        first, second = made.rows()
        assert first.provider == made.double.providers["ada"].address
        assert (first.state, first.reason) == (S.CLOSED, "never_ready")
        assert second.provider != first.provider
        assert paid_leases(made) == 1
        sound(made)


async def mass_close(count: int, creates_per_block: int) -> None:
    settings = msgspec.structs.replace(QUICK, creates_per_block=creates_per_block)
    async with world(settings=settings) as made, watched(made.backend) as exits:
        for name in ("ada", "brunel"):
            made.faults(name, no_bids=True)
        async with trio.open_nursery() as launches:
            for number in range(count):
                launches.start_soon(made.backend.launch, made.spec(f"s{number}", f"t{number}"))
        for name in ("ada", "brunel"):
            made.faults(name, no_bids=False)
        curie = made.double.providers["curie"]
        for tenancy in list(curie.tenancies.values()):
            curie.leave(tenancy, "lease_closed_reason_unstable")
        await until(lambda: len(exits) == count, 60.0)
        since = made.double.chain.state.height
        async with trio.open_nursery() as launches:
            for number in range(count):
                launches.start_soon(made.backend.launch, made.spec(f"s{number}", f"t{number}"))
        assert len(serving(made)) == paid_leases(made) == count
        assert {provider for _, provider in serving(made)}.isdisjoint({curie.address})
        memory = made.ledger.write_now(lambda c: records.memory(c, curie.address))
        assert (memory.failures, memory.strikes) == (count, 1.0)
        heights: dict[int, int] = {}
        for one in made.double.chain.state.deployments.values():
            if one.created_at > since:
                heights[one.created_at] = heights.get(one.created_at, 0) + 1
        # What was sent in two blocks may be included in one.
        assert max(heights.values()) <= 2 * creates_per_block < count, "the other providers were flooded"
        sound(made)


async def test_report_support_245_a_provider_that_closes_all_its_leases_is_struck_once(virtual_time: None) -> None:
    """akash-network/support#245, #15, node#1676: many leases closed in one block after an outage of the provider."""
    await mass_close(6, creates_per_block=2)


@pytest.mark.nightly
@pytest.mark.heavy
async def test_report_support_245_with_thirty_sessions_on_one_provider(virtual_time: None) -> None:
    """akash-network/support#245, at the size of the report."""
    await mass_close(30, creates_per_block=10)


async def test_an_account_without_funds_is_refused_for_good_and_leaves_nothing(virtual_time: None) -> None:
    """akash-network/support#445: market code 28, not sdk 5."""
    async with world() as made:
        made.double.chain.drain(KEY.address, UACT)
        with pytest.raises(Rejected, match="no_funds"):
            await made.backend.launch(made.spec())
        assert made.active() == []


async def test_an_order_without_bids_is_widened_once_then_refused_and_its_deposits_come_back(
    virtual_time: None,
) -> None:
    async with world() as made:
        for name in made.double.providers:
            made.faults(name, no_bids=True)
        before = made.balance()
        with pytest.raises(Rejected, match="no_bids"):
            await made.backend.launch(made.spec())
        assert [(row.wide, row.reason) for row in made.rows()] == [(False, "no_bids"), (True, "no_bids")]
        assert made.active() == []
        assert made.balance() == before


async def test_an_impostor_gets_neither_token_nor_manifest(virtual_time: None) -> None:
    async with world() as made:
        made.faults("ada", impostor=True)
        await made.backend.launch(made.spec())
        first, second = made.rows()
        assert (first.provider, first.reason) == (made.double.providers["ada"].address, "provider_failed")
        assert made.double.gateways["ada"].requests == []
        assert second.state is S.SERVING


async def test_a_provider_that_gives_notice_is_replaced_while_the_old_node_serves(virtual_time: None) -> None:
    """akash-network/support#486: windows of reclamation, live since v2.1.0."""
    async with world() as made, watched(made.backend) as exits:
        spec = made.spec(hours=100.0)
        made.sell(spec)
        await made.backend.launch(spec)
        (old,) = made.rows()
        name = next(name for name, one in made.double.providers.items() if one.address == old.provider)
        for tenancy in list(made.double.providers[name].tenancies.values()):
            made.double.providers[name].leave(tenancy, "lease_closed_reason_decommission")
        await until(lambda: made.rows()[0].reclaim_at is not None)
        assert (await made.backend.list())[0].alive
        made.double.make_blocks(int((made.rows()[0].reclaim_at or 0) - made.clock.now() - 1_100) // 6, 6.0)
        await until(lambda: exits == [spec.token])
        assert [node.token for node in await made.backend.list() if node.token == spec.token] == [spec.token]
        node = await made.backend.launch(spec)
        assert node.endpoint != old.endpoint
        assert made.rows()[1].provider != old.provider, "it bids all the same, and is the cheapest"
        await until(lambda: paid_leases(made) == 1)
        assert [(row.reason, row.state) for row in made.rows()] == [("reclaimed", S.CLOSED), (None, S.SERVING)]
        await made.backend.destroy(spec.token)
        assert made.active() == []


async def test_a_launch_given_up_while_its_create_is_on_its_way_goes_on_from_there(virtual_time: None) -> None:
    async with world() as made:
        for node in made.double.faults.nodes:
            node.broadcast_then_hang = 1
        async with trio.open_nursery() as nursery:
            launching = trio.CancelScope()

            async def launch() -> None:
                with launching:
                    await made.backend.launch(made.spec())

            nursery.start_soon(launch)
            await until(lambda: any(node.sent for node in made.double.nodes))
            launching.cancel()
        (row,) = made.rows()
        assert row.state is S.CREATING
        made.double.make_blocks(10, 6.0)  # its time is over: only a look at the chain tells what became of it
        await trio.sleep(2 * made.settings.akash.poll_s)  # until the next look at the endpoints
        await made.backend.launch(made.spec())
        sent = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
        assert [(one.subject, one.state) for one in sent if one.subject is Subject.CREATE] == [
            (Subject.CREATE, TxState.INCLUDED)
        ]
        await made.backend.destroy(row.token)
        assert len(made.double.chain.state.deployments) == 1
        assert made.active() == []


async def test_a_gateway_that_was_killed_when_its_create_had_expired_signs_another_one(virtual_time: None) -> None:
    """The certainty that it is not on chain was committed, and the next transaction was not."""
    async with world() as made:
        for node in made.double.faults.nodes:
            node.broadcast_lost = 10_000
        async with trio.open_nursery() as nursery:
            launching = trio.CancelScope()

            async def launch() -> None:
                with launching:
                    await made.backend.launch(made.spec())

            nursery.start_soon(launch)
            await until(lambda: any(node.sent for node in made.double.nodes))
            launching.cancel()
        (row,) = made.rows()
        made.ledger.write_now(
            lambda c: c.execute(tables.transactions.update().values(state=str(TxState.EXPIRED))).rowcount
        )
        for node in made.double.faults.nodes:
            node.broadcast_lost = 0
        await made.backend.launch(made.spec())
        assert [each.dseq for each in made.rows()] == [row.dseq]
        sent = made.ledger.write_now(lambda c: transactions.of_deployment(c, row.dseq))
        assert [(one.subject, one.state) for one in sent] == [
            (Subject.CREATE, TxState.EXPIRED),
            (Subject.CREATE, TxState.INCLUDED),
            (Subject.LEASE, TxState.INCLUDED),
        ]
