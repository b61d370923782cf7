"""The routes of a node: HTTP in, an endpoint asked, HTTP out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from quart import Response, request

from config.model import HttpSettings
from engram.clock import Clock, Ids
from engram.http import exchange
from engram.http.app import App, new_app
from engram.http.asgi import HeaderLines
from engram.http.authority import AuthorityGate
from engram.miner import authority, endpoints
from engram.miner.answers import Answer
from engram.miner.direct import COMMITMENT, Direct, Posted
from engram.miner.openapi import openapi_document
from engram.miner.service import Service
from engram.telemetry.metrics import Metrics

MAX_BODY_BYTES = 10 * 1024 * 1024
"""As the original: 256 vectors written as JSON."""

_JSON = "application/json"

NAMED = (b"/retrieve/", b"/attestation/", b"/chat-history/", b"/conversations/")
"""Below these stand names that clients choose, with whatever slashes."""

POSTED: dict[str, Posted] = {
    "/IngestSynapse": endpoints.ingest,
    "/IngestBatch": endpoints.ingest_batch,
    "/QuerySynapse": endpoints.query,
    "/ChallengeSynapse": endpoints.challenge,
    "/RepairSynapse": endpoints.repair,
    "/KeyShareSynapse": endpoints.put_key_share,
    "/KeyShareRetrieve": endpoints.get_key_share,
    "/AttestNamespace": endpoints.attest,
    "/list": endpoints.listing,
    "/LookupBatch": endpoints.look_up,
    "/DeleteBatch": endpoints.delete_batch,
    "/prove-memory": endpoints.prove_memory,
    "/export": endpoints.export,
    "/chat-history": endpoints.save_chat,
    "/conversations": endpoints.make_conversation,
}
"""Endpoints that take a body and nothing else; answered without Quart (direct.py)."""


def make_app(service: Service, *, settings: HttpSettings, clock: Clock, ids: Ids, metrics: Metrics) -> App:
    """Returns the application of one node."""
    app = new_app(
        "miner",
        settings=settings,
        clock=clock,
        ids=ids,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        free_below=NAMED,
    )
    app.fast("/health", _fast(lambda: endpoints.health(service)))
    app.fast("/stats", _fast(lambda: endpoints.stats(service)))
    app.edge.put_behind(lambda inner: Direct(inner, service, POSTED))
    app.edge.put_behind(lambda inner: AuthorityGate(inner, authority.read_by))
    _add_records(app, service)
    _add_conversations(app, service)

    @app.get(COMMITMENT)
    async def commitment() -> Response:
        return _response(await endpoints.commitment(service, request.args))

    @app.get("/attestation/<path:namespace>")
    async def attestation(namespace: str) -> Response:
        return _response(await endpoints.attestation(service, namespace))

    @app.get("/metagraph")
    async def metagraph() -> Response:
        return _response(await endpoints.metagraph(service))

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return Response(openapi_document(), 200, content_type=_JSON)

    return app


def _add_records(app: App, service: Service) -> None:
    @app.get("/retrieve/<path:cid>")
    async def retrieve(cid: str) -> Response:
        return _response(await endpoints.retrieve(service, cid, request.args))

    @app.delete("/retrieve/<path:cid>")
    async def delete(cid: str) -> Response:
        return _response(await endpoints.delete(service, cid, exchange.current().body))

    @app.post("/export-stream")
    async def export_stream() -> Response:
        answer = await endpoints.export_stream(service, exchange.current().body)
        return _response(answer) if isinstance(answer, Answer) else cast(Response, answer)


def _add_conversations(app: App, service: Service) -> None:
    @app.get("/chat-history/<path:user_id>")
    async def chat_history(user_id: str) -> Response:
        return _response(await endpoints.chat_history(service, user_id, request.args))

    @app.get("/conversations/<path:user_id>")
    async def conversations(user_id: str) -> Response:
        return _response(await endpoints.list_conversations(service, user_id, request.args))

    @app.patch("/conversations/<path:conv_id>")
    async def rename(conv_id: str) -> Response:
        return _response(await endpoints.rename_conversation(service, conv_id, exchange.current().body))

    @app.delete("/conversations/<path:conv_id>")
    async def forget(conv_id: str) -> Response:
        return _response(await endpoints.delete_conversation(service, conv_id, exchange.current().body))


def _response(answer: Answer) -> Response:
    response = Response(msgspec.json.encode(answer.body), answer.status, content_type=_JSON)
    for name, value in answer.headers:
        response.headers.add(name, value)
    return response


def _fast(answer: Callable[[], Answer]) -> Callable[[], Awaitable[tuple[int, bytes, HeaderLines]]]:
    async def fast() -> tuple[int, bytes, HeaderLines]:
        told = answer()
        return told.status, msgspec.json.encode(told.body), [(b"content-type", _JSON.encode())]

    return fast
