"""The gateway's two applications: the public one, and the operator's."""

from collections.abc import Awaitable, Callable

import msgspec

from engram.api import gateway, gateway_ops
from engram.api.serving import Endpoints
from engram.gateway.balances import bind_balances
from engram.gateway.events import bind_events
from engram.gateway.node_passage import bind_node_passage, passes_authority
from engram.gateway.node_signatures import bind_node_signatures
from engram.gateway.ops import bind_ops
from engram.gateway.orders import bind_orders
from engram.gateway.payments import bind_payments
from engram.gateway.phone import bind_ops_page, bind_phone
from engram.gateway.public import bind_probes, bind_public
from engram.gateway.purchases import bind_purchases
from engram.gateway.services import Services
from engram.gateway.sessions import bind_sessions
from engram.gateway.surface import GatewaySurface
from engram.gateway.transfers import bind_transfers
from engram.hotkeys.gateway_scheme import AUTH_HEADERS
from engram.http.app import App, new_app
from engram.http.authority import authority_check
from engram.http.quart_app import new_quart_app
from engram.http.router import Router


def gateway_app(services: Services) -> App:
    """Return the public application. Callers are identified by signed headers alone, never by a body or query."""
    app = new_quart_app(
        "gateway",
        settings=services.settings.http,
        clock=services.clock,
        ids=services.ids,
        metrics=services.metrics,
        single_headers=AUTH_HEADERS,
    )
    router = Router(app)
    endpoints = Endpoints(router, GatewaySurface(services, app.limit_hotkey))
    bind_public(endpoints, services)
    bind_sessions(endpoints, services)
    bind_purchases(endpoints, services)
    bind_orders(endpoints, services)
    bind_events(endpoints, services)
    bind_payments(endpoints, services)
    bind_node_signatures(endpoints, services.countersigner)
    bind_node_passage(endpoints, services)
    bind_balances(endpoints, services)
    bind_transfers(endpoints, services)
    endpoints.require_all(gateway.ROUTES)
    bind_phone(router, services.settings)
    app.edge.check(authority_check(passes_authority))
    return app


def ops_app(
    services: Services,
    status: Callable[[], Awaitable[msgspec.Struct]],
    refresh: Callable[[], Awaitable[None]],
    relay: Callable[[], Awaitable[msgspec.Struct]],
) -> App:
    """Return the operator's application, for a listener of its own: a page at /, /status, /relay/status, /metrics,
    /health, /ready.

    `refresh` (gauges.py) is awaited before each scrape.
    """
    settings = msgspec.structs.replace(services.settings.http, cors_origins=(), requests_per_minute_per_ip=0)
    app = new_app("ops", settings=settings, clock=services.clock, ids=services.ids, metrics=services.metrics)
    router = Router(app)
    endpoints = Endpoints(router, GatewaySurface(services, app.limit_hotkey))
    bind_probes(endpoints, services.probes, services.shop.sales)
    bind_ops(endpoints, status, services.metrics, refresh, relay)
    endpoints.require_all(gateway_ops.ROUTES)
    bind_ops_page(router)
    return app
