"""The gateway's two applications: the public one, and the operator's."""

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from quart import Response

from engram.gateway.answers import ErrorAnswer
from engram.gateway.caller import sign, signed_answer
from engram.gateway.events import add_event_routes
from engram.gateway.openapi import openapi_document
from engram.gateway.ops import add_ops_routes
from engram.gateway.payments import add_payment_routes
from engram.gateway.public import add_probes, add_public_routes
from engram.gateway.purchases import add_purchase_routes
from engram.gateway.replies import ledger_refusal, reply
from engram.gateway.services import Services
from engram.gateway.sessions import add_session_routes
from engram.hotkeys.gateway_scheme import AUTH_HEADERS
from engram.http.app import App, new_app
from engram.http.authority import AuthorityGate, Read
from engram.http.direct import Direct
from engram.http.errors import ApiError
from engram.http.exchange import request_id
from engram.ledger import LedgerError


def gateway_app(services: Services) -> App:
    """Everything that phones and programs may ask. Who asks is in headers alone: no body or query says so."""
    app = new_app(
        "gateway",
        settings=services.settings.http,
        clock=services.clock,
        ids=services.ids,
        metrics=services.metrics,
        single_headers=AUTH_HEADERS,
    )
    add_public_routes(app, services)
    direct = Direct(app, partial(signed_answer, services), _translate)
    add_session_routes(direct, services)
    add_purchase_routes(direct, services)
    add_event_routes(app, services)
    add_payment_routes(app, services)
    app.edge.put_behind(lambda inner: AuthorityGate(inner, lambda scope: Read()))  # the outermost: nothing goes past it

    @app.get("/openapi.json")
    async def show_openapi() -> Response:
        return Response(openapi_document(), content_type="application/json")

    @app.after_request
    async def sign_answer(response: Response) -> Response:
        return await sign(services, response)

    app.register_error_handler(LedgerError, _on_ledger_error)
    return app


def ops_app(
    services: Services, status: Callable[[], Awaitable[msgspec.Struct]], refresh: Callable[[], Awaitable[None]]
) -> App:
    """What the operator may ask, on a listener of its own: /status, /metrics, /health, /ready.

    `refresh` (gauges.py) is awaited before each scrape.
    """
    settings = msgspec.structs.replace(services.settings.http, cors_origins=(), requests_per_minute_per_ip=0)
    app = new_app("ops", settings=settings, clock=services.clock, ids=services.ids, metrics=services.metrics)
    add_probes(app, services.probes, services.shop.sales)
    add_ops_routes(app, status, services.metrics, refresh)
    app.register_error_handler(LedgerError, _on_ledger_error)
    return app


async def _on_ledger_error(error: LedgerError) -> Response:
    refused = ledger_refusal(error)
    answer = ErrorAnswer(error=refused.message, code=refused.code, request_id=request_id())
    return reply(answer, refused.status, headers=refused.headers)


def _translate(error: Exception) -> ApiError | None:
    return ledger_refusal(error) if isinstance(error, LedgerError) else None
