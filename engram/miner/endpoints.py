"""What a node answers: one function per endpoint, from the bytes of a body to an Answer. No HTTP framework here."""

from engram.miner.answers import Answer
from engram.miner.handlers.batches import delete_batch
from engram.miner.handlers.exports import export, export_stream
from engram.miner.handlers.health import health, metagraph, stats
from engram.miner.handlers.ingest import delete, ingest, ingest_batch, repair
from engram.miner.handlers.keeping import (
    attest,
    attestation,
    chat_history,
    delete_conversation,
    get_key_share,
    list_conversations,
    make_conversation,
    put_key_share,
    rename_conversation,
    save_chat,
)
from engram.miner.handlers.listing import listing, look_up
from engram.miner.handlers.proofs import challenge, commitment, prove_memory
from engram.miner.handlers.query import query, retrieve
from engram.miner.service import Service

__all__ = [
    "Answer",
    "Service",
    "attest",
    "attestation",
    "challenge",
    "chat_history",
    "commitment",
    "delete",
    "delete_batch",
    "delete_conversation",
    "export",
    "export_stream",
    "get_key_share",
    "health",
    "ingest",
    "ingest_batch",
    "list_conversations",
    "listing",
    "look_up",
    "make_conversation",
    "metagraph",
    "prove_memory",
    "put_key_share",
    "query",
    "rename_conversation",
    "repair",
    "retrieve",
    "save_chat",
    "stats",
]
