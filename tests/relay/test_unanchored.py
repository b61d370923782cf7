"""What stays `accepted` says why, at the emitter and at the receiver; roles that share a hotkey share a commit."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio
from sqlalchemy import select
from trio.testing import MockClock

from actors import ChildSpec, Job, Registry, SupervisorSpec, open_system
from engram.chain.epochs import epoch_of
from engram.clock import ManualClock
from engram.relay import memory_payload, records
from engram.relay.anchoring import records as anchoring_records
from engram.relay.anchoring.committing import Committing, NotCommitting
from engram.relay.anchoring.rules import Decision
from engram.relay.model import Answered, EntryState, NodeMemory
from engram.relay.rules import Decision as Outcome
from engram.relay.signer import Keyring
from engram.relay.tables import relay_outbox
from engram.xeris import anchoring, intelligence
from engram.xeris import records as accepted
from engram.xeris.tables import accepted as rows
from tests.fakes.living_chain import NETUID
from tests.relay.test_anchoring import NOW, OWN, Bench


@pytest.fixture
async def bench(autojump_clock: MockClock) -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.start()
    yield bench
    bench.ledger.close()
    bench.received.close()


def unregistered(bench: Bench) -> Committing:
    """The same job on a subnet on which its hotkey is not registered."""
    ports = bench.committing._ports
    found = ports.metagraph()
    assert found is not None
    others = {key: uid for key, uid in found.uid_by_hotkey.items() if key != OWN.public_key}
    without = msgspec.structs.replace(found, uid_by_hotkey=others)
    return Committing(msgspec.structs.replace(ports, metagraph=lambda: without))


async def test_a_hotkey_that_is_not_registered_says_why_nothing_is_anchored_until_it_is(bench: Bench) -> None:
    reason = f"hotkey {OWN.ss58} is not registered on subnet {NETUID}, and can commit no root"

    def shown() -> tuple[str, list[str]]:
        status = bench.ledger.write_now(lambda c: records.status(c, enabled=True, failures_in_a_row=0))
        return status.not_anchored, [line.anchor for line in bench.ledger.write_now(lambda c: records.log_lines(c, 9))]

    payload = memory_payload({}, netuid=NETUID, block=1_000, source="nodes0", round_ts=NOW)
    signed = bench.signer.sign(msgspec.json.encode(payload))
    bench.ledger.write_now(lambda c: records.enqueue(c, payload, NOW, signer=OWN.ss58, signed=signed))
    (entry,) = bench.ledger.write_now(lambda c: records.claim(c, NOW, Keyring(bench.signer).sign))
    done = Outcome(EntryState.DELIVERED, 1, NOW, "")
    bench.ledger.write_now(lambda c: records.settle(c, entry, Answered(200), done, NOW))
    assert shown() == ("", ["waiting"])
    assert await unregistered(bench).look() is Decision.NOTHING
    assert shown() == (reason, [reason])
    await bench.ledger.write(lambda c: anchoring_records.note_unanchored(c, NETUID, OWN.ss58, reason, NOW + 1))
    assert shown() == (reason, [reason])
    assert await bench.committing.look() is Decision.COMMIT
    assert shown() == ("", ["committed"]), "its anchor waits"
    is_anchor = relay_outbox.c.kind == "anchor"
    bench.ledger.write_now(lambda c: c.execute(relay_outbox.update().where(is_anchor).values(state="delivered")))
    assert shown() == ("", ["anchored"])


async def test_where_the_settings_rule_out_anchors_that_is_the_reason(bench: Bench) -> None:
    job = NotCommitting(bench.ledger, ManualClock(NOW), NETUID, OWN.ss58, "relay.anchor is false")
    tree = SupervisorSpec("root", [ChildSpec("anchors", lambda: Job(job.run))])
    async with open_system(tree, registry=Registry()):
        await trio.testing.wait_all_tasks_blocked()
        status = bench.ledger.write_now(lambda c: records.status(c, enabled=True, failures_in_a_row=0))
        assert status.not_anchored == "relay.anchor is false"


async def test_a_payload_of_who_cannot_anchor_stays_accepted_and_is_served_with_the_reason(bench: Bench) -> None:
    registered = False
    bench.receiver._is_registered = lambda netuid, key: registered
    bench.receiver._gateways = frozenset({OWN.public_key})

    async def submit(block: int) -> str:
        nodes = {OWN.ss58: NodeMemory(vectors=block)}
        payload = memory_payload(nodes, netuid=NETUID, block=block, source="nodes0", round_ts=NOW)
        await bench.receiver.take(bench.signer.sign(msgspec.json.encode(payload)).body)
        found = await bench.received.read(lambda c: accepted.page(c, NETUID, "memory", 1, 10**6)[0])
        shown = intelligence.shown(found[0])
        assert intelligence.summary(found[0]).reason == shown.reason
        return f"{shown.state}: {shown.reason}"

    why = f"accepted: its signer is not registered on subnet {NETUID}, and can commit no root"
    assert await submit(1_001) == why
    registered = True
    assert await submit(1_002) == "accepted: "
    marked = await bench.received.write(lambda c: anchoring.mark_overdue(c, NETUID, 2_000, set()))
    found = await bench.received.read(lambda c: accepted.page(c, NETUID, "memory", 9, 10**6)[0])
    assert marked == {}, "it is not registered any more, and not late"
    assert {intelligence.shown(each).reason for each in found} == {why.partition(" ")[2]}
    assert (await bench.received.read(anchoring.count_overdue))["memory"] == 0


async def test_a_thousand_of_who_cannot_anchor_do_not_hide_one_that_is_late(bench: Bench) -> None:
    leaf = await bench.deliver(1)
    (late,) = await bench.received.read(lambda c: accepted.page(c, NETUID, "scores", 1, 10**6)[0])
    columns = [column for column in rows.columns if column.name != "id"]
    row = await bench.received.read(lambda c: c.execute(select(*columns)).mappings().one())
    many = [{**row, "nonce": str(number), "signer": bytes(32), "block": 1} for number in range(1_000)]
    await bench.received.write(lambda c: c.execute(rows.insert(), many))
    mark: Any = lambda c: anchoring.mark_overdue(c, NETUID, 2_000, {OWN.public_key})  # noqa: E731
    assert await bench.received.write(mark) == {}
    assert await bench.received.write(mark) == {"scores": 1}
    assert late.output_hash == leaf


async def test_two_roles_with_one_hotkey_make_one_commit_an_epoch_with_the_outputs_of_both(bench: Bench) -> None:
    """A gateway and a validator in one process: both jobs look at once, on one ledger."""
    leaves = [await bench.deliver(number) for number in (1, 2)]
    payload = memory_payload({}, netuid=NETUID, block=1_000, source="nodes0", round_ts=NOW)
    await bench.ledger.write(lambda c: records.enqueue(c, payload, NOW, signer=OWN.ss58))
    await bench.ledger.write(lambda c: c.execute(relay_outbox.update().values(state="delivered")))
    committed: list[int] = []
    commit = bench.chain._calls["set_commitment"]

    def noted(who: bytes, arguments: dict[str, object]) -> None:
        commit(who, arguments)
        committed.append(bench.chain.head)

    bench.chain._calls["set_commitment"] = noted
    jobs = [bench.committing, Committing(bench.committing._ports)]
    for _ in range(12):
        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(job.look)
    assert len(committed) == 1
    assert len({epoch_of(block, NETUID, bench.tempo).index for block in committed}) == 1
    documents = [json.loads(body) for body in bench.anchors()]
    assert sorted(each["anchored"] for each in documents) == ["memory", "scores"]
    assert all(sorted(each["leaves"]) == sorted([*leaves, payload.output_hash]) for each in documents)
    for number in (3, 4):
        await bench.deliver(number)
    for _ in range(bench.tempo + 1):
        bench.chain.seal()
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(job.look)
    for _ in range(3):
        await jobs[1].look()
    assert len(committed) == 2, "the next epoch has one of its own"


async def test_a_role_that_decided_before_another_s_intent_was_written_sends_nothing(bench: Bench) -> None:
    """Both look, both see no intent; one writes and sends it before the other comes to write its own."""
    await bench.deliver(1)
    found = await bench.ledger.read(lambda c: anchoring_records.intended(c, NETUID, OWN.ss58))
    assert found is None
    first = await bench.ledger.write(lambda c: anchoring_records.intend(c, NETUID, OWN.ss58, 7, NOW))
    assert first is not None
    assert await bench.ledger.write(lambda c: anchoring_records.sending(c, first, 9))
    assert await bench.ledger.write(lambda c: anchoring_records.intend(c, NETUID, OWN.ss58, 7, NOW)) is None
    assert await bench.ledger.read(
        lambda c: anchoring_records.intended(c, NETUID, OWN.ss58)
    ) == msgspec.structs.replace(first, intent=msgspec.structs.replace(first.intent, sent_until_block=9))


async def test_an_extrinsic_that_another_role_sends_is_not_sent_again(bench: Bench) -> None:
    await bench.deliver(1)
    found = await bench.ledger.write(lambda c: anchoring_records.intend(c, NETUID, OWN.ss58, 7, NOW))
    assert found is not None
    second = await bench.ledger.write(lambda c: anchoring_records.intend(c, NETUID, OWN.ss58, 7, NOW))
    assert second is None, "who has not seen it may not act on it: it may be on its way"
    sends = [await bench.ledger.write(lambda c: anchoring_records.sending(c, found, 9)) for _ in range(2)]
    assert sends == [True, False]
