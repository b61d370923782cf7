"""An emitter that queues payloads and relays them until none is left, for a child that is killed."""

from pathlib import Path
from random import Random

import trio

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.relay import RetryPolicy
from engram.relay.actor import EmitterPorts, RelayEmitter
from engram.relay.protocol import GetRelayStatus
from engram.relay.receiver import Receiver
from engram.relay.records import enqueue
from engram.relay.rounds import RoundLosses
from engram.telemetry.metrics import Metrics
from tests.relay.samples import NOW, SIGNER, payload


async def emit(path: Path, url: str, payloads: int = 0) -> None:
    """Queue so many payloads of now, or the one of `samples.NOW`, which is queued once, and deliver them."""
    ledger = open_inline(path)
    clock, registry = SystemClock(), Registry()
    for number in range(1, 1 + (payloads or 1)):
        fresh = payload(number, clock.now() if payloads else NOW)
        ledger.write_now(lambda connection, found=fresh: enqueue(connection, found, clock.now()))  # type: ignore[misc]
    policy = RetryPolicy(backoff_min_s=0.05, backoff_max_s=0.1)
    metrics = Metrics()
    ports = EmitterPorts(
        ledger=ledger,
        receiver=Receiver(HttpClient(), url, timeout_s=5.0 if payloads else 2.0),
        signer=SIGNER,
        policy=policy,
        clock=clock,
        rng=Random(1),
        metrics=metrics,
        losses=RoundLosses(metrics),
    )
    tree = SupervisorSpec("root", [ChildSpec("relay", lambda: RelayEmitter(ports), name="relay")])
    async with open_system(tree, registry=registry):
        emitter = registry.ref(RelayEmitter, "relay")
        with trio.fail_after(50 if payloads else 30):
            while (await emitter.call(GetRelayStatus())).outbox_pending:  # noqa: ASYNC110  # no event crosses the actor
                await trio.sleep(0.01)
