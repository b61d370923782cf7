"""A node's application: its table of endpoints, bound to their handlers."""

from __future__ import annotations

from functools import partial

from config.model import HttpSettings
from engram.api import node
from engram.api.serving import AddRoute, Endpoints
from engram.clock import Clock, Ids
from engram.http.app import App, new_app
from engram.http.authority import authority_check
from engram.http.router import Router
from engram.miner import authority
from engram.miner.handlers import (
    attestations,
    batches,
    conversations,
    exports,
    health,
    identity,
    ingest,
    keyshares,
    listing,
    proofs,
    query,
)
from engram.miner.service import Service
from engram.miner.surface import NodeSurface
from engram.telemetry.metrics import Metrics

MAX_BODY_BYTES = 10 * 1024 * 1024
"""The limit of the original: 256 vectors as JSON numbers."""

NAMED = (b"/retrieve/", b"/attestation/", b"/chat-history/", b"/conversations/")
"""What follows these paths are names that clients choose; they may contain slashes."""


def make_app(service: Service, *, settings: HttpSettings, clock: Clock, ids: Ids, metrics: Metrics) -> App:
    """Return the application of one node."""
    app = new_app(
        "miner",
        settings=settings,
        clock=clock,
        ids=ids,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        free_below=NAMED,
    )
    bind(Router(app), service)
    app.edge.check(authority_check(authority.read_by))
    return app


def bind(router: AddRoute, service: Service) -> None:
    """Bind every endpoint of the node to its handler."""
    endpoints = Endpoints(router, NodeSurface(service.disguise, service.metrics))
    endpoints.bind(node.HEALTH, partial(health.health, service))
    endpoints.bind(node.IDENTITY, partial(identity.introduce, service))
    endpoints.bind(node.CERTIFY, partial(identity.certify, service))
    endpoints.bind(node.STATS, partial(health.stats, service))
    endpoints.bind(node.INGEST, partial(ingest.ingest, service))
    endpoints.bind(node.INGEST_BATCH, partial(ingest.ingest_batch, service))
    endpoints.bind(node.QUERY, partial(query.query, service))
    endpoints.bind(node.LIST, partial(listing.listing, service))
    endpoints.bind(node.LOOK_UP, partial(listing.look_up, service))
    endpoints.bind(node.DELETE_BATCH, partial(batches.delete_batch, service))
    endpoints.bind(node.RETRIEVE, partial(query.retrieve, service))
    endpoints.bind(node.DELETE, partial(ingest.delete, service))
    endpoints.bind(node.REPAIR, partial(ingest.repair, service))
    endpoints.bind(node.CHALLENGE, partial(proofs.challenge, service))
    endpoints.bind(node.COMMITMENT, partial(proofs.commitment, service))
    endpoints.bind(node.PROVE_MEMORY, partial(proofs.prove_memory, service))
    endpoints.bind(node.EXPORT, partial(exports.export, service))
    endpoints.bind(node.EXPORT_STREAM, partial(exports.export_stream, service))
    endpoints.bind(node.PUT_KEY_SHARE, partial(keyshares.put_key_share, service))
    endpoints.bind(node.GET_KEY_SHARE, partial(keyshares.get_key_share, service))
    endpoints.bind(node.ATTEST, partial(attestations.attest, service))
    endpoints.bind(node.ATTESTATION, partial(attestations.attestation, service))
    endpoints.bind(node.METAGRAPH, partial(health.metagraph, service))
    endpoints.bind(node.CHAT_HISTORY, partial(conversations.chat_history, service))
    endpoints.bind(node.SAVE_CHAT, partial(conversations.save_chat, service))
    endpoints.bind(node.CONVERSATIONS, partial(conversations.list_conversations, service))
    endpoints.bind(node.MAKE_CONVERSATION, partial(conversations.make_conversation, service))
    endpoints.bind(node.RENAME_CONVERSATION, partial(conversations.rename_conversation, service))
    endpoints.bind(node.DELETE_CONVERSATION, partial(conversations.delete_conversation, service))
    endpoints.bind(node.OPENAPI, health.document)
    endpoints.require_all(node.ROUTES)
