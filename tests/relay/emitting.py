"""An emitter that queues payloads and relays them until none is left, for a child that is killed."""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from types import MappingProxyType

import trio
from sqlalchemy import Connection

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.relay import RetryPolicy
from engram.relay.actor import EmitterPorts, RelayEmitter, Submits
from engram.relay.finality import FinalityGuard
from engram.relay.model import MemoryPayload, Outcome
from engram.relay.negotiation import NotKnown, Terms
from engram.relay.protocol import GetRelayStatus
from engram.relay.receiver import Receiver
from engram.relay.records import enqueue
from engram.relay.rounds import RoundLosses
from engram.relay.signer import Signed
from engram.telemetry.metrics import Metrics
from tests.relay.samples import KEYRING, NOW, SIGNER, payload


class DiesAround:
    """A receiver whose emitter is killed right before or after its n-th send (from 1); 0: when it asks for terms."""

    def __init__(self, receiver: Receiver, send: int, *, after: bool) -> None:
        self._receiver, self._left, self._after = receiver, send, after

    async def submit(self, signed: Signed) -> Outcome:
        self._left -= 1
        if self._left == 0 and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = await self._receiver.submit(signed)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    async def ask_terms(self, negotiated: bool) -> Terms | NotKnown:
        if self._left == 0 and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        terms = await self._receiver.ask_terms(negotiated)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return terms


async def emit(path: Path, url: str, payloads: int = 0) -> None:
    """Queue so many payloads of now, or the one of `samples.NOW`, which is queued once, and deliver them."""
    now = SystemClock().now()
    queued = [payload(number, now) for number in range(1, 1 + payloads)] if payloads else [payload(1, NOW)]
    await deliver(path, Receiver(HttpClient(), url, timeout_s=5.0 if payloads else 2.0), queued)


async def deliver(
    path: Path,
    receiver: Submits,
    payloads: Sequence[MemoryPayload],
    *,
    guard: FinalityGuard | None = None,
    hashes: Mapping[str, bytes] = MappingProxyType({}),
    ask_terms: Callable[[bool], Awaitable[Terms | NotKnown]] | None = None,
) -> None:
    """Queue payloads, with the hashes of their blocks by nonce, and relay until none waits."""
    ledger = open_inline(path)
    clock, registry = SystemClock(), Registry()
    for fresh in payloads:

        def queue(connection: Connection, found: MemoryPayload = fresh) -> None:
            enqueue(connection, found, clock.now(), signer=SIGNER.hotkey, block_hash=hashes.get(found.nonce))

        ledger.write_now(queue)
    policy = RetryPolicy(backoff_min_s=0.05, backoff_max_s=0.1)
    metrics = Metrics()
    ports = EmitterPorts(
        ledger=ledger,
        receiver=receiver,
        keyring=KEYRING,
        policy=policy,
        clock=clock,
        rng=Random(1),
        metrics=metrics,
        losses=RoundLosses(metrics),
        guard=guard,
        ask_terms=ask_terms,
        destination="the receiver",
    )
    tree = SupervisorSpec("root", [ChildSpec("relay", lambda: RelayEmitter(ports), name="relay")])
    async with open_system(tree, registry=registry):
        emitter = registry.ref(RelayEmitter, "relay")
        with trio.fail_after(50):
            while (await emitter.call(GetRelayStatus())).outbox_pending:  # noqa: ASYNC110  # no event crosses the actor
                await trio.sleep(0.01)
