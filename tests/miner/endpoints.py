"""A node's endpoints as the tests call them, without HTTP."""

import time
from typing import Any

from engram.hotkeys import Keypair, miner_scheme
from engram.miner.answers import Answer
from engram.miner.handlers.attestations import attest, attestation
from engram.miner.handlers.batches import delete_batch
from engram.miner.handlers.conversations import (
    chat_history,
    delete_conversation,
    list_conversations,
    make_conversation,
    rename_conversation,
    save_chat,
)
from engram.miner.handlers.exports import export, export_stream
from engram.miner.handlers.health import health, metagraph, stats
from engram.miner.handlers.ingest import delete, ingest, ingest_batch, repair
from engram.miner.handlers.keyshares import get_key_share, put_key_share
from engram.miner.handlers.listing import listing, look_up
from engram.miner.handlers.proofs import challenge, commitment, prove_memory
from engram.miner.handlers.query import query, retrieve
from engram.miner.service import Service
from tests.miner.nodes import STAMPS, encoded, in_namespace

__all__ = [
    "SHARE",
    "Answer",
    "Service",
    "attest",
    "attestation",
    "attested",
    "challenge",
    "chat_history",
    "chat_parameters",
    "commitment",
    "delete",
    "delete_batch",
    "delete_conversation",
    "deposit",
    "export",
    "export_stream",
    "fetch",
    "get_key_share",
    "health",
    "ingest",
    "ingest_batch",
    "list_conversations",
    "listing",
    "look_up",
    "make_conversation",
    "metagraph",
    "opened",
    "prove_memory",
    "put_key_share",
    "query",
    "rename_conversation",
    "repair",
    "retrieve",
    "save_chat",
    "stats",
]

SHARE = {"share_index": 2, "share_hex": "c0ffee", "threshold": 2, "total": 3}


def opened(answer: Answer) -> dict[str, object]:
    """The body of a good answer without its padding."""
    assert answer.status == 200, answer
    return {key: value for key, value in answer.body.items() if key != "_p"}


async def deposit(service: Service, keypair: Keypair, name: str, **changed: object) -> Answer:
    fields: dict[str, Any] = {**SHARE, **changed}
    body = miner_scheme.sign_namespace_request(keypair, "KeyShareSynapse", name, fields, STAMPS.next())
    return await put_key_share(service, encoded(body))


async def fetch(service: Service, keypair: Keypair, name: str) -> Answer:
    return await get_key_share(service, encoded(in_namespace(keypair, name)))


def attested(keypair: Keypair, name: str, now_ms: int | None = None) -> bytes:
    return encoded(miner_scheme.sign_attestation(keypair, name, now_ms or time.time_ns() // 10**6))


def chat_parameters(keypair: Keypair, endpoint: str, **fields: Any) -> dict[str, str]:
    body = miner_scheme.sign_body(keypair, endpoint, fields, STAMPS.next())
    return {key: str(value) for key, value in body.items() if key != "user_id"}
