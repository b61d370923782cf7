"""Roots on the living chain, anchors to a receiver that reads the chain itself, and what it refuses."""

import json
from typing import Any

import msgspec
import pytest
from sqlalchemy import event, select
from trio.testing import MockClock

from engram.chain.epochs import epoch_of
from engram.chain.errors import CallRefused
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.view import open_view
from engram.chain.registry.commitment_fields import raw_field
from engram.chain.submit.sender import Sender
from engram.clock import ManualClock
from engram.hotkeys import Keypair
from engram.http.limits import Limiter
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.memory.proof import rfc6962
from engram.relay import MinerScore, PayloadSigner, scores_payload
from engram.relay.anchoring import rules
from engram.relay.anchoring.committing import ANCHOR_WAITS, Committing, CommittingPorts
from engram.relay.anchoring.records import count_leaves
from engram.relay.anchoring.rules import Decision, Intent
from engram.relay.records import enqueue
from engram.relay.records.streams import add
from engram.relay.rules import output_hash, stable_anchor
from engram.relay.tables import relay_anchors, relay_outbox
from engram.telemetry.metrics import Metrics
from engram.xeris import anchoring, records
from engram.xeris.anchoring import chain_root
from engram.xeris.chain_views import ChainViews
from engram.xeris.judging import Refused
from engram.xeris.receiver import XerisReceiver
from tests.chain.test_sender import QUICK
from tests.fakes.living_chain import NETUID, LivingChain
from tests.xeris.test_judging import resigned

pytestmark = pytest.mark.rules

OWN, RECEIVER = Keypair.from_uri("//Alice"), Keypair.from_seed(bytes([9]) * 32)
NOW = 1_700_000_000.0
FOREIGN = [raw_field(b"http://1.2.3.4:9000"), {"Sha256": "0x" + "ab" * 32}]


class Bench:
    """A validator that anchors, and a receiver; outputs go from one ledger to the other by hand."""

    def __init__(self, bound: int = 1_000) -> None:
        self.bound = bound
        self.metrics = Metrics()
        self.chain = LivingChain()
        self.ledger: InlineLedger = open_inline()
        self.received: InlineLedger = open_inline()
        self.signer = PayloadSigner.of(OWN)
        self.receiver = XerisReceiver(
            self.received,
            RECEIVER,
            ManualClock(NOW),
            gateways=frozenset(),
            netuids=(NETUID,),
            quorum=1,
            keep_s=86_400.0,
            read_root=chain_root(ChainViews([self.chain])),
        )

    async def start(self) -> None:
        metagraph = await (await open_view([self.chain])).metagraph(NETUID, 0.0)
        self.tempo = metagraph.parameters.tempo
        self.committing = Committing(
            CommittingPorts(
                ledger=self.ledger,
                keypair=OWN,
                clock=ManualClock(NOW),
                netuid=NETUID,
                metagraph=lambda: metagraph,
                nodes=[self.chain],
                sender=Sender([self.chain], waiting=QUICK),
                bound=self.bound,
                queued=lambda: None,
                metrics=self.metrics,
            )
        )

    def commit_foreign(self) -> None:
        info = {"deposit": 0, "block": 1, "info": {"fields": [FOREIGN]}}
        self.chain.put(info, "Commitments", "CommitmentOf", NETUID, OWN.public_key)

    def fields(self) -> list[Any]:
        held = self.chain.get("Commitments", "CommitmentOf", NETUID, OWN.public_key)
        found: list[Any] = held["info"]["fields"]
        return found

    async def deliver(self, number: int) -> str:
        """One output is accepted by the receiver, and acknowledged."""
        scores = {"1": MinerScore(number / 100, None, 1.0)}
        payload = scores_payload(scores, netuid=NETUID, block=1_000 + number, uid=0, round_ts=NOW)
        signed = self.signer.sign(msgspec.json.encode(payload))
        await self.ledger.write(lambda c: enqueue(c, payload, NOW, signer=OWN.ss58, signed=signed))
        await self.ledger.write(lambda c: c.execute(relay_outbox.update().values(state="delivered")))
        await self.received.write(lambda c: records.note_permits(c, NETUID, 1_000 + number, [OWN.public_key], 360))
        await self.receiver.take(signed.body)
        return payload.output_hash

    def anchors(self) -> list[bytes]:
        query = select(relay_outbox.c.signed).where(relay_outbox.c.kind == "anchor")
        return list(self.ledger.write_now(lambda c: c.scalars(query).all()))

    async def take(self, body: bytes) -> None:
        block = json.loads(body)["block"]
        await self.received.write(lambda c: records.note_permits(c, NETUID, block, [OWN.public_key], 360))
        await self.receiver.take(body)


async def test_what_was_delivered_is_anchored_once_an_epoch_beside_the_fields_of_others(
    autojump_clock: MockClock,
) -> None:
    bench = Bench()
    await bench.start()
    bench.commit_foreign()
    leaves = [await bench.deliver(number) for number in (1, 2, 3)]
    assert await bench.committing.look() is Decision.COMMIT
    assert bench.fields() == [*FOREIGN, raw_field(rules.committed_text(rules.root_of(leaves)))]
    await bench.deliver(4)
    assert await bench.committing.look() is Decision.WAIT, "one commit an epoch"
    (body,) = bench.anchors()
    await bench.take(body)
    found = await bench.received.read(lambda c: records.page(c, NETUID, "scores", 10, 10**6)[0])
    assert [each.anchor_id is not None for each in found] == [False, True, True, True]
    anchor_id, leaf = found[1].anchor_id, found[1].leaf
    assert anchor_id is not None
    assert leaf is not None
    shown = await bench.received.read(lambda c: anchoring.inclusion(c, anchor_id, leaf))
    assert shown is not None
    hashed = rfc6962.leaf(bytes.fromhex(found[1].output_hash))
    path = [bytes.fromhex(each) for each in shown.path]
    root = rfc6962.root_from_path(hashed, shown.leaf, shown.leaves, path)
    assert root == rules.root_of(leaves)
    marked = await bench.received.write(lambda c: anchoring.mark_overdue(c, NETUID, 2_000, {OWN.public_key}))
    assert marked == {"scores": 1}, "the fourth alone"


@pytest.mark.parametrize("room", [0, 1])
async def test_a_committed_root_waits_for_room_in_the_outbox_for_all_of_its_anchors(
    autojump_clock: MockClock, room: int
) -> None:
    bench = Bench(bound=2 + room)
    await bench.start()
    for number in (1, 2):  # each still counts as waiting
        await bench.deliver(number)
    of_two_streams = relay_outbox.update().where(relay_outbox.c.block == 1_002).values(kind="memory")
    bench.ledger.write_now(lambda c: c.execute(of_two_streams))

    def state() -> tuple[list[str], int, float | None]:
        states = bench.ledger.read_now(lambda c: list(c.scalars(select(relay_anchors.c.state))))
        counted = bench.metrics.registry.get_sample_value("engram_relay_not_queued_total", {"reason": ANCHOR_WAITS})
        return states, len(bench.anchors()), counted

    assert await bench.committing.look() is Decision.COMMIT
    assert state() == (["intended"], 0, 1.0)
    assert await bench.committing.look() is Decision.ANCHOR
    assert state() == (["intended"], 0, 1.0), "tried again, and counted once"
    bench.ledger.write_now(lambda c: add(c, "pending", -2))
    assert await bench.committing.look() is Decision.ANCHOR
    assert state() == (["committed"], 2, 1.0)
    assert await bench.committing.look() is Decision.NOTHING


def _anchors_are(bench: Bench, state: str, reason: str | None = None) -> None:
    change = relay_outbox.update().where(relay_outbox.c.kind == "anchor").values(state=state, last_reason=reason)
    bench.ledger.write_now(lambda c: c.execute(change))


async def test_no_root_is_committed_in_the_place_of_one_whose_anchor_waits_but_not_for_ever(
    autojump_clock: MockClock,
) -> None:
    bench = Bench()
    await bench.start()
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    await bench.deliver(2)
    _anchors_are(bench, "pending")
    for _ in range(bench.tempo + 2):
        bench.chain.seal()
    assert await bench.committing.look() is Decision.WAIT
    _anchors_are(bench, "delivered")
    assert await bench.committing.look() is Decision.COMMIT


@pytest.mark.parametrize(
    ("reason", "leaves"), [("the receiver answered 425", 1), ("the receiver answered 422", 0), (None, 0)]
)
async def test_what_was_under_the_root_of_an_anchor_that_came_at_the_wrong_time_goes_under_the_next(
    autojump_clock: MockClock, reason: str | None, leaves: int
) -> None:
    bench = Bench()
    await bench.start()
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    _anchors_are(bench, "abandoned", reason)
    await bench.committing.look()
    assert bench.ledger.write_now(lambda c: count_leaves(c, NETUID, OWN.ss58)) == leaves
    for _ in range(bench.tempo + 2):
        bench.chain.seal()
    assert await bench.committing.look() is (Decision.COMMIT if leaves else Decision.NOTHING)


async def test_roots_of_three_months_ago_are_forgotten(
    autojump_clock: MockClock,
) -> None:
    bench = Bench()
    await bench.start()
    old = {"signer": OWN.ss58, "netuid": NETUID, "epoch": 1, "root": b"", "leaves": "[]", "sent_until_block": 0}
    for state, at in (("committed", NOW - 91 * 86_400.0), ("committed", NOW - 89 * 86_400.0)):
        row = old | {"state": state, "at": at}
        await bench.ledger.write(lambda c, r=row: c.execute(relay_anchors.insert().values(r)))  # type: ignore[misc]
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    kept = bench.ledger.write_now(lambda c: list(c.scalars(select(relay_anchors.c.at).order_by(relay_anchors.c.id))))
    assert kept == [NOW - 89 * 86_400.0, NOW]


async def test_an_anchor_that_comes_late_needs_no_state_of_the_past_while_its_root_stands(
    autojump_clock: MockClock,
) -> None:
    bench = Bench()
    await bench.start()
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    (body,) = bench.anchors()
    bench.chain.seal()
    assert json.loads(body)["block"] < bench.chain.head
    await bench.received.write(lambda c: anchoring.mark_overdue(c, NETUID, 2_000, {OWN.public_key}))
    assert (await bench.received.read(anchoring.count_overdue))["scores"] == 1
    at_head = bench.chain.answer

    def forgetful(call: RpcCall) -> Json:
        """A light node: it has no state but the newest block's."""
        block_hash = str(call.params[-1]) if call.method.startswith("state_get") and call.params else ""
        if block_hash.startswith("0x") and bench.chain.number(block_hash) not in (None, bench.chain.head):
            return CallRefused(4003, "State already discarded")
        return at_head(call)

    bench.chain.answer = forgetful  # type: ignore[method-assign]
    bench.chain.seal_at_look = False
    await bench.take(body)
    (found,) = await bench.received.read(lambda c: records.page(c, NETUID, "scores", 10, 10**6)[0])
    assert found.anchor_id is not None
    assert (await bench.received.read(anchoring.count_overdue))["scores"] == 0, "the alert clears"


async def test_the_repeat_of_an_accepted_anchor_is_acknowledged_whatever_the_chain_says_by_now(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    await bench.start()
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    (body,) = bench.anchors()
    await bench.take(body)

    async def unread(*_: Any) -> bytes | None:
        raise AssertionError("the chain is not read for what was accepted")

    monkeypatch.setattr(bench.receiver, "_read_root", unread)
    assert (await bench.receiver.take(body)).repeated


async def test_the_chain_is_not_read_for_the_anchors_of_strangers(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    await bench.start()
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    (body,) = bench.anchors()
    await bench.take(body)

    async def unread(*_: Any) -> bytes | None:
        raise AssertionError("the chain is not read for who has had nothing accepted")

    monkeypatch.setattr(bench.receiver, "_read_root", unread)
    other = Keypair.from_seed(bytes([50]) * 32)
    stranger = json.dumps(resigned(json.loads(body) | {"validator_hotkey": other.ss58}, other)).encode()
    with pytest.raises(Refused) as refused:
        await bench.receiver.take(stranger)
    assert refused.value.code == "anchor_leaves"
    bench.receiver._limiter = Limiter(1, 1, lambda: 0.0)
    for code in ("anchor_leaves", "too_many"):
        with pytest.raises(Refused) as refused:
            await bench.receiver.take(stranger)
        assert refused.value.code == code


async def test_what_was_accepted_is_anchored_also_when_its_signer_has_lost_the_permit_meanwhile(
    autojump_clock: MockClock,
) -> None:
    bench = Bench()
    await bench.start()
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    (body,) = bench.anchors()
    block = json.loads(body)["block"]
    await bench.received.write(lambda c: records.note_permits(c, NETUID, block, [], 360))
    await bench.receiver.take(body)
    (found,) = await bench.received.read(lambda c: records.page(c, NETUID, "scores", 10, 10**6)[0])
    assert found.anchor_id is not None


async def test_an_anchor_names_the_block_of_its_commitment_and_none_after_it(autojump_clock: MockClock) -> None:
    bench = Bench()
    await bench.start()
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    (body,) = bench.anchors()
    bench.chain.seal()
    document = json.loads(body)
    later = document["block"] + 1
    changed = resigned(document | {"block": later, "nonce": f"{later}:anchor.scores:7"}, OWN)
    with pytest.raises(Refused) as refused:
        await bench.receiver.take(json.dumps(changed).encode())
    assert refused.value.code == "commitment_other"


async def test_what_is_not_anchored_is_found_by_its_index_however_much_is_kept(autojump_clock: MockClock) -> None:
    bench, plans = Bench(), list[str]()
    connection = bench.received._connection

    def explain(*given: Any) -> None:
        _, cursor, statement, parameters, *_ = given
        if statement.startswith("SELECT"):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" ".join(row[3] for row in rows))

    event.listen(connection, "before_cursor_execute", explain)
    await bench.received.write(lambda c: anchoring.mark_overdue(c, NETUID, 2_000, {OWN.public_key}))
    await bench.received.write(anchoring.count_overdue)
    marking, counting = plans
    assert "ix_xeris_accepted_unanchored" in marking
    assert "ix_xeris_accepted_overdue" in counting


async def test_a_wrong_root_a_stale_one_and_leaves_that_are_not_held_are_refused(autojump_clock: MockClock) -> None:
    bench = Bench()
    await bench.start()
    await bench.deliver(1)
    assert await bench.committing.look() is Decision.COMMIT
    (body,) = bench.anchors()
    anchor = json.loads(body)
    for changed, code in (
        ({"root": "00" * 32}, "anchor_root"),
        ({"block": anchor["block"] - 1}, "commitment_other"),
        ({"block": 100_000}, "commitment_unknown"),
    ):
        document = anchor | changed
        stable = anchoring_hash(document)
        nonce = f"{document['block']}:anchor.scores:7"
        signed = resigned(document | {"output_hash": stable, "nonce": nonce}, OWN)
        with pytest.raises(Refused) as refused:
            await bench.take(json.dumps(signed).encode())
        assert refused.value.code == code
    await bench.received.write(lambda c: records.purge(c, NOW + 1))
    with pytest.raises(Refused) as refused:
        await bench.take(body)
    assert refused.value.code == "anchor_leaves"


def anchoring_hash(document: dict[str, Any]) -> str:
    names = ("anchored", "epoch", "root", "leaves", "first", "count")
    return output_hash(stable_anchor(**{name: document[name] for name in names}))


EPOCH = epoch_of(1_000, NETUID, 99)
HERE, BEFORE, ROOT = EPOCH.first_block, EPOCH.first_block - 1, bytes(32)


@pytest.mark.parametrize(
    ("intent", "leaves", "held", "committed_at", "decision"),
    [
        (None, 0, None, None, Decision.NOTHING),
        (None, 1, None, HERE, Decision.WAIT),
        (None, 1, None, None, Decision.COMMIT),
        (None, 1, ROOT, BEFORE, Decision.COMMIT),
        (Intent(ROOT, 2_000), 0, ROOT, HERE, Decision.ANCHOR),
        (Intent(ROOT, 0), 0, None, HERE, Decision.WAIT),
        (Intent(ROOT, HERE + 5), 0, None, BEFORE, Decision.WAIT),
        (Intent(ROOT, HERE + 4), 0, bytes([1]) * 32, BEFORE, Decision.COMMIT),
    ],
)
def test_when_a_root_is_committed(
    intent: Intent | None, leaves: int, held: bytes | None, committed_at: int | None, decision: Decision
) -> None:
    assert rules.decide(intent, leaves, held, committed_at, HERE + 5, EPOCH) is decision


@pytest.mark.parametrize(
    ("anchor_of", "decision"),
    [(HERE + 5 - 299, Decision.WAIT), (HERE + 5 - 300, Decision.COMMIT), (None, Decision.COMMIT)],
)
def test_a_root_is_not_superseded_for_three_epochs_while_its_anchor_waits(
    anchor_of: int | None, decision: Decision
) -> None:
    assert rules.decide(None, 1, ROOT, BEFORE, HERE + 5, EPOCH, anchor_of) is decision
