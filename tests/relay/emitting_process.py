"""A process that queues one payload (once) and relays it: `python -m tests.relay.emitting_process LEDGER URL`."""

import sys
from pathlib import Path
from random import Random

import trio

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.relay import RetryPolicy
from engram.relay.actor import RelayEmitter
from engram.relay.protocol import GetRelayStatus
from engram.relay.receiver import Receiver
from engram.relay.records import enqueue
from tests.relay.samples import SIGNER, payload


async def main() -> None:
    path, url = sys.argv[1:]
    ledger = open_inline(Path(path))
    clock, registry = SystemClock(), Registry()
    ledger.write_now(lambda connection: enqueue(connection, payload(1), clock.now()))
    policy = RetryPolicy(backoff_min_s=0.05, backoff_max_s=0.1)
    delivered = trio.Event()
    receiver = Receiver(HttpClient(), url, timeout_s=2.0)

    def start() -> RelayEmitter:
        return RelayEmitter(ledger, receiver, SIGNER, policy, clock, Random(1), lambda word: delivered.set())

    async with open_system(SupervisorSpec("root", [ChildSpec("relay", start, name="relay")]), registry=registry):
        status = await registry.ref(RelayEmitter, "relay").call(GetRelayStatus())
        if status.outbox_pending:
            with trio.fail_after(30):
                await delivered.wait()


if __name__ == "__main__":
    trio.run(main)
