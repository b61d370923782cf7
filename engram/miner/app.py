"""The routes of a node: HTTP in, `service` asked, HTTP out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from quart import Response, request

from config.model import HttpSettings
from engram.clock import Clock, Ids
from engram.http import exchange
from engram.http.app import App, new_app
from engram.http.asgi import HeaderLines
from engram.http.metrics import Metrics
from engram.miner import service as answers
from engram.miner.service import Answer, Service

_JSON = "application/json"


def make_app(service: Service, *, settings: HttpSettings, clock: Clock, ids: Ids, metrics: Metrics) -> App:
    """Returns the application of one node."""
    app = new_app("miner", settings=settings, clock=clock, ids=ids, metrics=metrics)
    app.fast("/health", _fast(lambda: answers.health(service)))
    app.fast("/stats", _fast(lambda: answers.stats(service)))
    for path, answer in (
        ("/IngestSynapse", answers.ingest),
        ("/QuerySynapse", answers.query),
        ("/ChallengeSynapse", answers.challenge),
        ("/list", answers.listing),
        ("/prove-memory", answers.prove_memory),
    ):
        app.add_url_rule(path, path, _posted(service, answer), methods=["POST"])

    @app.get("/commitment")
    async def commitment() -> Response:
        return _response(await answers.commitment(service))

    @app.get("/retrieve/<path:cid>")
    async def retrieve(cid: str) -> Response:
        return _response(await answers.retrieve(service, cid, request.args))

    @app.delete("/retrieve/<path:cid>")
    async def delete(cid: str) -> Response:
        return _response(await answers.delete(service, cid, exchange.current().body))

    return app


def _posted(
    service: Service, answer: Callable[[Service, bytes], Awaitable[Answer]]
) -> Callable[[], Awaitable[Response]]:
    async def handler() -> Response:
        return _response(await answer(service, exchange.current().body))

    return handler


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
