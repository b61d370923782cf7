"""The endpoints that need no signature: health, prices, terms, nodes, and the metagraph."""

import contextlib
from collections.abc import Mapping
from math import inf
from statistics import median
from typing import Final, final

import trio

from config.model import Settings
from engram import __version__
from engram.api import gateway as api
from engram.api.call import Call, Reply
from engram.api.gateway_model import (
    BackendAnswer,
    HealthAnswer,
    IdentityAnswer,
    NodesAnswer,
    ReadyAnswer,
    ReasonAnswer,
    TermsAnswer,
    TiersAnswer,
)
from engram.api.openapi import JSON
from engram.api.refund_terms import PublishedTerms
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.gateway.metagraph import MetagraphAnswers
from engram.gateway.rules import Reason
from engram.gateway.sales_check import Sales
from engram.gateway.services import Probe, Services
from engram.gateway.views import tiers_answer
from engram.http.errors import ApiError
from engram.http.request import Answer
from engram.ledger import LedgerError
from engram.payments.refund_settings import published
from engram.provisioning import records as node_records
from engram.provisioning.backend_factory import BACKENDS
from engram.provisioning.placement import Standing
from engram.sessions import history, paid_clock, rules

SERVICE: Final = "engram-cloud-gateway"
PROBE_S: Final = 2.0
"""A probe that does not answer within this time counts as failed."""
STARTS_KEPT_S: Final = 15.0
MAX_NETUID: Final = 65_535


def bind_public(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the endpoints that need no signature."""
    bind_probes(endpoints, services.probes, services.shop.sales)
    settings = services.settings
    tiers = tiers_answer(rules.tiers(settings.pricing.lite_usd_per_hour))

    async def show_tiers(_: Call[NoBody, Caller]) -> TiersAnswer:
        return tiers

    starts = _Starts(services)

    async def show_nodes(_: Call[NoBody, Caller]) -> NodesAnswer:
        found = await services.shop.sales.reasons()
        is_full = any(reason.code == "no_capacity" for reason in found)
        backends = services.backends
        backends.note_held(await services.ledger.read(node_records.count_by_backend))
        return NodesAnswer(
            note=" ".join(_note(name) for name in backends.names),
            akash_network=settings.akash.chain_id,
            available=not found,
            not_enforced=list(backends.not_enforced),
            price_usd_per_hour={tier.tier: tier.price_usd_per_hour for tier in tiers.tiers},
            backends=[_backend(standing, backends.free(standing.name)) for standing in backends.standings],
            cannot_sell=_shown(found),
            free_at=await _free_at(services) if is_full else None,
            usual_start_s=await starts.usual_s(),
            longest_start_s=settings.provisioning.attempts * settings.provisioning.launch_timeout_s,
        )

    async def show_identity(_: Call[NoBody, Caller]) -> IdentityAnswer:
        return IdentityAnswer(
            hotkey=services.keypair.ss58,
            public_key=services.keypair.public_key.hex(),
            scheme="engram-cloud",
            sig_versions=[1, 2],
            environment=settings.environment,
            version=__version__,
        )

    async def show_terms(_: Call[NoBody, Caller]) -> TermsAnswer:
        return _terms(services)

    netuids, metagraphs = settings.chain.netuids, MetagraphAnswers(services.subnets)

    async def show_metagraph(call: Call[NoBody, Caller]) -> Answer:
        return await _metagraph(metagraphs, netuids[0] if netuids else 0, call)

    async def show_openapi(_: Call[NoBody, Caller]) -> Answer:
        return Answer(200, api.openapi_document())

    endpoints.bind(api.TIERS, show_tiers)
    endpoints.bind(api.NODES, show_nodes)
    endpoints.bind(api.IDENTITY, show_identity)
    endpoints.bind(api.TERMS, show_terms)
    endpoints.bind(api.METAGRAPH, show_metagraph)
    endpoints.bind(api.OPENAPI, show_openapi)


async def _free_at(services: Services) -> float | None:
    """Return when (unix seconds) the next session ends, None where none runs."""
    now = services.instants.now()
    left_s = await services.ledger.read(lambda connection: paid_clock.next_end_s(connection, now))
    return None if left_s is None else round(now.wall + left_s, 3)


@final
class _Starts:
    """How long starts take here, read again every STARTS_KEPT_S."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._read_at = -inf
        self._usual_s: float | None = None

    async def usual_s(self) -> float | None:
        """Return the median of the latest starts (seconds); None before the first."""
        now = self._services.clock.monotonic()
        if now - self._read_at >= STARTS_KEPT_S:
            self._read_at = now
            found = await self._services.ledger.read(history.start_seconds)
            self._usual_s = round(median(found), 1) if found else None
        return self._usual_s


def bind_probes(endpoints: Endpoints[Caller], probes: Mapping[str, Probe], sales: Sales) -> None:
    """Bind /health (the process answers) and /ready (it can do its work; also says whether it sells)."""

    async def ready(_: Call[NoBody, Caller]) -> Reply[ReadyAnswer]:
        checks = await readiness(probes)
        well = not any(checks.values())
        found: tuple[Reason, ...] = ()
        with trio.move_on_after(PROBE_S), contextlib.suppress(LedgerError):  # the ledger's probe reports it
            found = await sales.reasons()
        answer = ReadyAnswer(well, checks, _shown(found))
        return Reply(answer) if well else Reply(answer, (("Retry-After", "2"),), 503)

    endpoints.bind_fixed(api.HEALTH, HealthAnswer("ok", SERVICE))
    endpoints.bind(api.READY, ready)


def _note(backend: str) -> str:
    row = BACKENDS.get(backend)
    return "" if row is None else row.note


def _backend(standing: Standing, free: int) -> BackendAnswer:
    limits = () if standing.offers is None else standing.offers.not_enforced
    return BackendAnswer(standing.name, standing.answers, standing.places, free, _note(standing.name), list(limits))


def _shown(found: tuple[Reason, ...]) -> list[ReasonAnswer]:
    return [ReasonAnswer(reason.code, reason.message) for reason in found]


async def readiness(probes: Mapping[str, Probe]) -> dict[str, str]:
    """Return what is wrong with each part; an empty text means that the part is fine."""
    checks = dict.fromkeys(probes, "no answer in time")

    async def ask(name: str, probe: Probe) -> None:
        checks[name] = await probe()

    with trio.move_on_after(PROBE_S):
        async with trio.open_nursery() as nursery:
            for name, probe in probes.items():
                nursery.start_soon(ask, name, probe)
    return checks


async def _metagraph(metagraphs: MetagraphAnswers, default_netuid: int, call: Call[NoBody, Caller]) -> Answer:
    netuid = call.query("netuid")
    text = str(default_netuid) if netuid is None else netuid
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= MAX_NETUID):
        raise ApiError(400, "bad_netuid", f"netuid must be a whole number from 0 to {MAX_NETUID}.")
    shown = await metagraphs.answer(int(text), call.query("fields"), call.header("If-None-Match"))
    headers = (("ETag", shown.etag), ("Age", str(int(shown.age_s))), ("Cache-Control", call.route.cache))
    return Answer(shown.status, shown.body, headers, "" if shown.status == 304 else JSON)


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
