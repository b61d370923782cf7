"""What anybody may ask: is it up, what is on sale, under which terms, and how the subnet stands."""

import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec
import trio
from quart import Response, request

from config.model import Settings
from engram import __version__
from engram.gateway.answers import (
    HealthAnswer,
    IdentityAnswer,
    NodesAnswer,
    ReadyAnswer,
    ReasonAnswer,
    TermsAnswer,
)
from engram.gateway.metagraph import MetagraphAnswers
from engram.gateway.replies import reply
from engram.gateway.rules import Reason
from engram.gateway.sales_check import Sales
from engram.gateway.services import Probe, Services
from engram.gateway.views import tiers_answer
from engram.http.app import App
from engram.http.asgi import JSON
from engram.http.edge import FastAnswer
from engram.http.errors import ApiError
from engram.ledger import LedgerError
from engram.payments.refund_settings import published
from engram.payments.refund_terms import PublishedTerms
from engram.sessions import rules

SERVICE: Final = "engram-cloud-gateway"
PROBE_S: Final = 2.0
"""A part that does not say within this that it is well counts as unwell."""
MAX_NETUID: Final = 65_535

_PROBE_HEADERS: Final = (JSON, (b"cache-control", b"no-store"))
_NOTES: Final = {
    "akash": "Nodes provisioned on Akash on demand — no fixed pool limit.",
    "docker": "Nodes run as containers on the operator's own hosts.",
    "local": "Nodes run as processes on the gateway's own machine.",
}


def add_public_routes(app: App, services: Services) -> None:
    """Add the endpoints that need no signature."""
    add_probes(app, services.probes, services.shop.sales)
    settings = services.settings
    tiers = tiers_answer(rules.tiers(settings.pricing.lite_usd_per_hour))

    @app.get("/tiers")
    async def show_tiers() -> Response:
        return reply(tiers)

    @app.get("/nodes")
    async def show_nodes() -> Response:
        backend = settings.provisioning.backend
        found = await services.shop.sales.reasons()
        return reply(
            NodesAnswer(
                _NOTES[backend], settings.akash.chain_id, not found, list(services.not_enforced()), _shown(found)
            )
        )

    @app.get("/identity")
    async def show_identity() -> Response:
        return reply(
            IdentityAnswer(
                hotkey=services.keypair.ss58,
                public_key=services.keypair.public_key.hex(),
                scheme="engram-cloud",
                sig_versions=[1, 2],
                environment=settings.environment,
                version=__version__,
            )
        )

    @app.get("/terms")
    async def show_terms() -> Response:
        return reply(_terms(services))

    netuids, metagraphs = settings.chain.netuids, MetagraphAnswers(services.subnets)

    @app.get("/bittensor/metagraph")
    async def show_metagraph() -> Response:
        return await _metagraph(metagraphs, netuids[0] if netuids else 0)


def add_probes(app: App, probes: Mapping[str, Probe], sales: Sales) -> None:
    """Add /health (the process answers) and /ready (it can do its work, and whether it sells)."""

    healthy = msgspec.json.encode(HealthAnswer("ok", SERVICE))

    async def health() -> FastAnswer:
        return 200, healthy, _PROBE_HEADERS

    async def ready() -> FastAnswer:
        checks = await readiness(probes)
        well = not any(checks.values())
        found: tuple[Reason, ...] = ()
        with trio.move_on_after(PROBE_S), contextlib.suppress(LedgerError):  # the probes say so
            found = await sales.reasons()
        body = msgspec.json.encode(ReadyAnswer(well, checks, _shown(found)))
        return (200, body, _PROBE_HEADERS) if well else (503, body, (*_PROBE_HEADERS, (b"retry-after", b"2")))

    app.fast("/health", health)
    app.fast("/ready", ready)


def _shown(found: tuple[Reason, ...]) -> list[ReasonAnswer]:
    return [ReasonAnswer(reason.code, reason.message) for reason in found]


async def readiness(probes: Mapping[str, Probe]) -> dict[str, str]:
    """What is wrong with each part; empty texts for those that are well."""
    checks = dict.fromkeys(probes, "no answer in time")

    async def ask(name: str, probe: Probe) -> None:
        checks[name] = await probe()

    with trio.move_on_after(PROBE_S):
        async with trio.open_nursery() as nursery:
            for name, probe in probes.items():
                nursery.start_soon(ask, name, probe)
    return checks


async def _metagraph(metagraphs: MetagraphAnswers, default_netuid: int) -> Response:
    text = request.args.get("netuid", str(default_netuid))
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= MAX_NETUID):
        raise ApiError(400, "bad_netuid", f"netuid must be a whole number from 0 to {MAX_NETUID}.")
    answer = await metagraphs.answer(int(text), request.args.get("fields"), request.headers.get("If-None-Match"))
    response = Response(answer.body, status=answer.status, content_type="application/json")
    response.headers["ETag"] = answer.etag
    response.headers["Age"] = str(int(answer.age_s))
    response.headers["Cache-Control"] = "max-age=6"
    if answer.status == 304:
        del response.headers["Content-Type"]
    return response


def _terms(services: Services) -> TermsAnswer:
    settings = services.settings
    terms = published(settings.payments)
    return TermsAnswer(
        terms_url=settings.gateway.terms_url,
        min_hours=settings.sessions.min_hours,
        max_hours=settings.sessions.max_hours,
        live_sessions_per_hotkey=settings.sessions.live_per_hotkey,
        payment_flow="upfront",
        paid_time="Paid time starts when the node is active; provisioning costs nothing.",
        refunds=_refunds(settings, terms),
        refund_terms=terms,
        early_stop=_early_stop(settings.payments.early_stop_refund_percent),
        early_stop_refund_percent=settings.payments.early_stop_refund_percent,
    )


def _refunds(settings: Settings, terms: PublishedTerms) -> str:
    payments = settings.payments
    when = "at once" if terms.sent == "automatically" else "by the operator"
    return (
        "If no node can be provided, or the session is stopped before its node is active, the whole payment is sent "
        f"back {when}, to the address that paid it and no other. If an active node is lost for good, or the operator "
        "ends the session, the price of the remaining time is; so is the price of the time a node was down beyond "
        f"{payments.outage_free_s:g} s. Parts of a payment below ${payments.refund_min_usd:g} are not sent."
    )


def _early_stop(percent: int) -> str:
    if percent == 0:
        return "Remaining time of an active session that its owner stops is not refunded."
    return f"{percent} % of the price of the remaining time is refunded when the owner stops an active session."
