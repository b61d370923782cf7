from collections.abc import Callable
from random import Random
from typing import TypeVar

from sqlalchemy import Connection

from engram.hotkeys import Keypair
from engram.ledger import InlineLedger
from engram.relay import MemoryPayload, NodeMemory, PayloadSigner, memory_payload
from engram.relay.model import Enqueued
from engram.relay.records import enqueue
from engram.relay.signer import Keyring

T = TypeVar("T")
KEYPAIR = Keypair.from_seed(bytes(range(32)))
SIGNER = PayloadSigner.of(KEYPAIR)
KEYRING = Keyring(SIGNER)
NOW = 1_700_000_000.0


def payload(number: int, now: float = NOW) -> MemoryPayload:
    nodes = {KEYPAIR.ss58: NodeMemory(vectors=number, proof_rate=1.0)}
    return memory_payload(nodes, netuid=450, block=1000 + number, source="gateway", round_ts=now + number)


def queue(ledger: InlineLedger, *numbers: int, now: float = NOW) -> None:
    def fill(connection: Connection) -> bool:
        return all(
            enqueue(connection, payload(number), now, signer=SIGNER.hotkey) is Enqueued.QUEUED for number in numbers
        )

    assert ledger.write_now(fill)


def write(ledger: InlineLedger, transaction: Callable[[Connection], T]) -> T:
    return ledger.write_now(transaction)


def rng() -> Random:
    return Random(7)
