"""Whether the receiver is down or one payload breaks it, over sockets: what lies before it fails some requests.

A receiver here signs its acknowledgements and keeps what it has taken; `front` decides of each request what becomes of
it before the receiver sees it.
"""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import msgspec
import pytest
import trio
from sqlalchemy import select

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from engram.api import xeris as api
from engram.clock import Clock, SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.ledger import InlineLedger
from engram.relay import MinerScore, NotWaiting, RetryPolicy, records
from engram.relay.actor import EmitterPorts, RelayEmitter
from engram.relay.model import Entry
from engram.relay.protocol import OutboxGrew
from engram.relay.receiver import Receiver
from engram.relay.rounds import RoundLosses
from engram.relay.rules import acknowledged_text, scores_payload
from engram.relay.schemas import TAKEN
from engram.relay.tables import relay_outbox
from engram.telemetry.metrics import Metrics
from tests.fakes.responder import Answer, Asked, Responder
from tests.relay.samples import KEYRING, SIGNER, write
from tests.relay.test_actor import ledger

__all__ = ("ledger",)

OWN = Keypair.from_seed(bytes([7]) * 32)
POISON = 1_002
QUICK = RetryPolicy(backoff_min_s=0.01, backoff_max_s=0.02)
Front = Callable[[int, bool], int]
"""(block, whether the receiver has it) -> the status that is answered before the receiver sees it; 0: none is."""


class Taking:
    """A receiver: takes each payload once, and repeats its acknowledgement."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.blocks: list[int] = []
        """As they were first taken; a marker's is negative."""
        self.requests: list[int] = []
        """Blocks of all payloads that came."""
        self._held: dict[str, bytes] = {}

    async def answer(self, asked: Asked) -> Answer:
        await trio.lowlevel.checkpoint()
        if asked.method == "GET":
            kinds = [api.TakenSchema(kind=kind, versions=list(versions)) for kind, versions in TAKEN.items()]
            return 200, {}, msgspec.json.encode(api.Schemas(schemas=kinds))
        document = json.loads(asked.body)
        digest, is_marker = document["signed_hash"], document.get("kind") == "gap"
        block = -document["block"] if is_marker else document["block"]
        self.requests.append(block)
        if status := self.front(block, digest in self._held):
            return status, {}, b"{}"
        if digest not in self._held:
            self.blocks.append(block)
            self._held[digest] = msgspec.json.encode(
                api.Acknowledged(
                    status="accepted",
                    signed_hash=digest,
                    output_hash=document["output_hash"],
                    received_ms=1,
                    signers=1,
                    receiver=OWN.ss58,
                    signature="0x" + OWN.sign(acknowledged_text(digest, 1)).hex(),
                )
            )
        return 200, {}, self._held[digest]


class Relay:
    """The emitter of a ledger, as it starts (again)."""

    def __init__(self, ledger: InlineLedger, clock: Clock | None = None) -> None:
        self.ledger = ledger
        self.clock: Clock = clock or SystemClock()
        self.delivered: list[Entry] = []
        self.ref = Registry().ref(RelayEmitter, "none")

    @asynccontextmanager
    async def to(self, url: str, seed: int = 1) -> AsyncIterator[None]:
        http, metrics, registry = HttpClient(), Metrics(), Registry()
        receiver = Receiver(http, f"{url}/payloads", 5.0)
        ports = EmitterPorts(
            ledger=self.ledger,
            receiver=receiver,
            ask_terms=receiver.ask_terms,
            destination="there",
            keyring=KEYRING,
            policy=QUICK,
            clock=self.clock,
            rng=Random(seed),
            metrics=metrics,
            losses=RoundLosses(metrics),
            settled=self.delivered.append,
        )
        spec = SupervisorSpec("root", [ChildSpec("relay", lambda: RelayEmitter(ports), name="relay")])
        async with open_system(spec, registry=registry):
            self.ref = registry.ref(RelayEmitter, "relay")
            yield
        await http.aclose()

    def queue(self, *blocks: int, netuid: int = 450) -> None:
        for block in blocks:
            scores = {"0": MinerScore(1.0, None, 1.0)}
            payload = scores_payload(scores, netuid=netuid, block=block, uid=5, round_ts=block)
            write(self.ledger, lambda c, p=payload: records.enqueue(c, p, self.clock.now(), signer=SIGNER.hotkey))  # type: ignore[misc]
        self.ref.hint(OutboxGrew())

    def states(self) -> dict[int, str]:
        columns = select(relay_outbox.c.block, relay_outbox.c.state).where(relay_outbox.c.kind != "gap")
        return {row[0]: row[1] for row in write(self.ledger, lambda c: c.execute(columns).all())}

    async def until(self, fits: Callable[[], bool]) -> None:
        with trio.fail_after(30):
            while not fits():  # noqa: ASYNC110  # the ledger tells nobody
                await trio.sleep(0.01)


@asynccontextmanager
async def answering(receiver: Taking) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(Responder(receiver.answer).run)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("servers", "dead"), [(2, {0}), (3, {1}), (3, {0, 2})])
async def test_servers_that_take_turns_and_some_of_which_are_dead_have_no_payload_parked(
    servers: int, dead: set[int], ledger: InlineLedger
) -> None:
    """Else each attempt meets the dead one, and what is repeated the one that lives."""
    receiver = Taking(lambda block, held: 502 if len(receiver.requests) % servers in dead else 0)
    relay = Relay(ledger)
    wanted = list(range(1, 13))
    async with answering(receiver) as url, relay.to(url):
        for block in wanted:
            relay.queue(block)
            await relay.until(lambda b=block: relay.states()[b] != "pending" and relay.states()[b] != "sending")  # type: ignore[misc]
    assert set(relay.states().values()) == {"delivered"}
    assert receiver.blocks == wanted


async def test_a_front_that_fails_one_payload_alone_has_it_parked_behind_its_marker(ledger: InlineLedger) -> None:
    receiver = Taking(lambda block, held: 502 if block == POISON else 0)
    relay = Relay(ledger)
    relay.queue(1_001, POISON, 1_003)
    async with answering(receiver) as url, relay.to(url):
        await relay.until(lambda: relay.states()[1_003] == "delivered")
    assert relay.states() == {1_001: "delivered", POISON: "abandoned", 1_003: "delivered"}
    assert receiver.blocks == [1_001, -POISON, 1_003]


async def test_one_of_two_streams_that_is_poisoned_holds_up_nothing_of_the_other(ledger: InlineLedger) -> None:
    receiver = Taking(lambda block, held: 502 if block == POISON else 0)
    relay = Relay(ledger)
    relay.queue(POISON, 1_003)
    async with answering(receiver) as url, relay.to(url):
        for block in range(1, 200):
            relay.queue(block, netuid=451)
            await relay.until(lambda b=block: relay.states()[b] == "delivered")  # type: ignore[misc]
        await relay.until(lambda: relay.states()[1_003] == "delivered")
    assert relay.states()[POISON] == "abandoned"
    assert [block for block in receiver.blocks if 0 < block < 1_000] == list(range(1, 200))


@pytest.mark.parametrize("repeated", [409, 410, 422, 503])
async def test_a_receiver_that_repeats_no_answer_has_what_breaks_it_parked_as_others_pass(
    repeated: int, ledger: InlineLedger
) -> None:
    receiver = Taking(lambda block, held: repeated if held else 502 if block == POISON else 0)
    relay = Relay(ledger)
    relay.queue(1_001, POISON, 1_003)
    async with answering(receiver) as url, relay.to(url):
        for block in range(1, 400):
            relay.queue(block, netuid=451)
            await relay.until(lambda b=block: relay.states()[b] == "delivered")  # type: ignore[misc]
            if relay.states()[1_003] == "delivered":
                break
    assert relay.states()[POISON] == "abandoned"
    assert [block for block in receiver.blocks if abs(block) > 1_000] == [1_001, -POISON, 1_003]


async def test_restarts_between_its_attempts_keep_what_a_payload_has_used_up_and_an_outage_uses_up_none(
    ledger: InlineLedger,
) -> None:
    is_down = False
    receiver = Taking(lambda block, held: 502 if is_down or block == POISON else 0)
    relay = Relay(ledger)
    relay.queue(1_001, POISON, 1_003)
    async with answering(receiver) as url:
        starts = 0
        while relay.states()[1_003] != "delivered":
            starts += 1
            is_down = starts % 2 == 0
            tries = len(receiver.requests) + 6
            async with relay.to(url, starts):
                await relay.until(
                    lambda n=tries: len(receiver.requests) >= n or relay.states()[1_003] == "delivered"  # type: ignore[misc]
                )
            assert starts < 40
    assert starts > 4
    assert relay.states() == {1_001: "delivered", POISON: "abandoned", 1_003: "delivered"}


async def test_an_entry_that_alone_is_tried_and_fails_can_be_parked_by_the_operator(ledger: InlineLedger) -> None:
    """Nothing tells that receiver from one that is down: it has acknowledged nothing, and takes nothing else."""
    receiver = Taking(lambda block, held: 502 if block == POISON else 0)
    relay = Relay(ledger)
    relay.queue(POISON, 1_003)
    async with answering(receiver) as url, relay.to(url):
        await relay.until(lambda: receiver.requests.count(POISON) > 20)
        assert relay.states() == {POISON: "pending", 1_003: "pending"}

        def parked() -> bool:
            try:
                write(ledger, lambda c: records.dlq_park(c, 1, relay.clock.now()))
            except NotWaiting as refused:
                assert "1 is sending, not pending: try again in a moment" in str(refused)  # noqa: PT017
                return False
            return True

        await relay.until(parked)
        relay.ref.hint(OutboxGrew())
        await relay.until(lambda: relay.states()[1_003] == "delivered")
    assert relay.states()[POISON] == "abandoned"
    assert receiver.blocks == [-POISON, 1_003]


class Jumping:
    """A wall clock that jumps."""

    by = 0.0

    def now(self) -> float:
        return time.time() + self.by

    def monotonic(self) -> float:
        return time.monotonic()


async def test_a_wall_clock_that_was_an_hour_ahead_holds_up_neither_what_waits_nor_what_comes(
    ledger: InlineLedger,
) -> None:
    is_down = False
    receiver = Taking(lambda block, held: 502 if is_down else 0)
    clock = Jumping()
    relay = Relay(ledger, clock)
    clock.by = 3_600.0
    relay.queue(1_001)
    async with answering(receiver) as url:
        async with relay.to(url):
            await relay.until(lambda: relay.states()[1_001] == "delivered")
            is_down = True
            relay.queue(1, netuid=451)
            await relay.until(lambda: 1 in receiver.requests)
            is_down = False
            clock.by = 0.0
            relay.queue(1_002)
            await relay.until(lambda: set(relay.states().values()) == {"delivered"})
            clock.by = 3_600.0
            relay.queue(1_003)
            await relay.until(lambda: relay.states()[1_003] == "delivered")
        clock.by = 0.0
        relay.queue(1_004)
        async with relay.to(url):
            await relay.until(lambda: relay.states()[1_004] == "delivered")
    assert receiver.blocks[-2:] == [1_003, 1_004]
