"""An emitter as a process of its own, with its ledger on the disk.

It queues payloads at their times, and relays until none waits. Killed and started again with the same arguments it goes
on where it was.

`python -m tests.relay.emitter_program FOLDER URL BEGAN COUNT SPACING_S`
"""

import sys
from pathlib import Path
from random import Random

import msgspec
import trio
from sqlalchemy import Connection

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import LedgerActor, LedgerClient
from engram.relay import RetryPolicy, records
from engram.relay.actor import EmitterPorts, RelayEmitter
from engram.relay.model import MemoryPayload, NodeMemory
from engram.relay.protocol import GetRelayStatus, OutboxGrew
from engram.relay.receiver import Receiver
from engram.relay.rounds import RoundLosses
from engram.relay.rules import memory_payload
from engram.telemetry.metrics import Metrics
from tests.relay.samples import KEYPAIR, KEYRING, SIGNER
from tests.relay.test_roots import root

STREAMS = 4
FIRST_NETUID = 450
REFUSED_EVERY = 17
FASTER = 30
"""An hour of waits in two minutes."""


def planned(number: int, began: float, spacing_s: float) -> MemoryPayload:
    """The payload of a number from 1 on; every REFUSED_EVERY-th bears a root that its node did not sign."""
    node = NodeMemory(vectors=number, proof_rate=1.0)
    if number % REFUSED_EVERY == 0:
        node = msgspec.structs.replace(node, root=root())
    return memory_payload(
        {KEYPAIR.ss58: node},
        netuid=FIRST_NETUID + number % STREAMS,
        block=1_000 + number,
        source="nodes0",
        round_ts=began + number * spacing_s,
    )


async def emit(folder: Path, url: str, began: float, count: int, spacing_s: float) -> None:
    registry, clock, metrics, http = Registry(), SystemClock(), Metrics(), HttpClient()
    ledger = LedgerClient(registry.ref(LedgerActor, "ledger"), folder)
    receiver = Receiver(http, url, timeout_s=1.0)
    ports = EmitterPorts(
        ledger=ledger,
        receiver=receiver,
        ask_terms=receiver.ask_terms,
        destination=url,
        keyring=KEYRING,
        policy=RetryPolicy(backoff_min_s=10.0 / FASTER, backoff_max_s=300.0 / FASTER),
        clock=clock,
        rng=Random(1),
        metrics=metrics,
        losses=RoundLosses(metrics),
    )
    tree = SupervisorSpec(
        "root",
        [
            ChildSpec("ledger", lambda: LedgerActor(folder, lambda error: None), name="ledger"),
            ChildSpec("relay", lambda: RelayEmitter(ports), name="relay"),
        ],
    )
    async with open_system(tree, registry=registry):
        emitter = registry.ref(RelayEmitter, "relay")
        for number in range(1, 1 + count):
            found = planned(number, began, spacing_s)
            await trio.sleep(max(0.0, found.round_ts - clock.now()))

            def queue(connection: Connection, found: MemoryPayload = found) -> None:
                records.enqueue(connection, found, found.round_ts, signer=SIGNER.hotkey)

            await ledger.write(queue)
            emitter.hint(OutboxGrew())
        while (await emitter.call(GetRelayStatus())).outbox_pending:  # noqa: ASYNC110  # no event crosses the actor
            await trio.sleep(0.1)
    ledger.close()
    await http.aclose()


if __name__ == "__main__":
    place, address, *numbers = sys.argv[1:]
    trio.run(emit, Path(place), address, float(numbers[0]), int(numbers[1]), float(numbers[2]))
