"""The receiver's public surface."""

import re
from typing import Any, Final

import msgspec

from config.model import HttpSettings
from engram.api import xeris as api
from engram.api.call import Call, Surface
from engram.api.node_model import Health
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.clock import Clock, Ids
from engram.http.app import App, new_app
from engram.http.errors import ApiError
from engram.http.request import Answer, Stream, json_answer
from engram.http.router import Router
from engram.ledger import CommitUnknown, Ledger, LedgerUnavailable
from engram.relay.schemas import SCHEMAS
from engram.telemetry.metrics import Metrics
from engram.xeris import intelligence, live, records
from engram.xeris.agent_handlers import Agents, bind_mcp
from engram.xeris.judging import Refused
from engram.xeris.prices import NOT_PAID, Sells, bind_free
from engram.xeris.receiver import XerisReceiver
from engram.xeris.submissions import claims_of

MAX_BODY_BYTES: Final = 1_000_000
PAGE_BYTES: Final = 1_000_000
"""Of the documents of a page, which anybody may ask for and be slow to read; one document alone may have as many."""
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_MOST: Final = 100
_RETRY: Final = (("Retry-After", "30"),)


def xeris_app(
    receiver: XerisReceiver,
    ledger: Ledger,
    *,
    settings: HttpSettings,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
    selling: Sells | None = None,
    agents: Agents | None = None,
) -> App:
    """Return the application; with `selling` submissions are paid for. Without `agents` MCP is refused."""
    app = new_app("xeris", settings=settings, clock=clock, ids=ids, metrics=metrics, max_body_bytes=MAX_BODY_BYTES)

    async def submit(call: Call[api.RelayedPayload, None]) -> Answer:
        try:
            if selling is not None and await selling.must_pay(call.http.body):
                refused = Refused("payment_required", NOT_PAID)
                await receiver.note_refused(claims_of(call.http.body), refused)
                raise selling.offered(refused.code, NOT_PAID)
            taken = await receiver.take(call.http.body)
        except Refused as refused:
            if selling is not None and refused.code == "payment_required":
                raise selling.offered(refused.code, NOT_PAID) from None
            failure = api.Failure(error=str(refused), code=refused.code)
            return Answer(refused.status, msgspec.json.encode(failure), _RETRY if refused.status in (425, 429) else ())
        except (LedgerUnavailable, CommitUnknown):
            raise ApiError(503, "unavailable", "The ledger does not answer; send the payload again.") from None
        return Answer(200, taken.acknowledgement)

    async def listed(call: Call[NoBody, None]) -> api.IntelligencePage:
        netuid, limit = _number(call, "netuid", receiver.netuid), min(_MOST, max(1, _number(call, "limit", 20)))
        kind, before = _kind(call), _number(call, "before", 0)
        found, following = await ledger.read(
            lambda c: records.page(c, netuid, kind, limit, PAGE_BYTES, before_id=before or None)
        )
        return api.IntelligencePage(items=[intelligence.shown(each) for each in found], next=following)

    async def one(call: Call[NoBody, None]) -> api.Intelligence | Answer:
        wanted = call.path("signed_hash")
        found = None
        if _HASH.fullmatch(wanted):
            found = await ledger.read(lambda c: intelligence.one(c, wanted))
        if found is None:
            return json_answer(api.Failure(error="no payload of this hash was accepted", code="not_found"), 404)
        return found

    async def events(call: Call[NoBody, None]) -> Stream:
        last = call.header("Last-Event-ID") or ""
        after = int(last) if last.isascii() and last.isdecimal() and len(last) < 16 else None
        return live.events(ledger, receiver.arrivals, _number(call, "netuid", receiver.netuid), _kind(call), after)

    async def taken(_: Call[NoBody, None]) -> api.Schemas:
        kinds = receiver.taken.items()
        return api.Schemas(schemas=[api.TakenSchema(kind=kind, versions=list(versions)) for kind, versions in kinds])

    async def schema(call: Call[NoBody, None]) -> Answer:
        found = SCHEMAS.get(call.path("name"))
        if found is None:
            text = f"there is no schema of this name, only {', '.join(SCHEMAS)}"
            return json_answer(api.Failure(error=text, code="not_found"), 404)
        return json_answer(found)

    async def health(_: Call[NoBody, None]) -> Health:
        return Health(status="ok")

    endpoints: Endpoints[None] = Endpoints(Router(app), Surface())
    endpoints.bind(api.SUBMIT, submit)
    endpoints.bind(api.LIST, listed)
    endpoints.bind(api.EVENTS, events)
    endpoints.bind(api.ONE, one)
    bind_mcp(endpoints, agents, clock, metrics)
    if selling is None:
        bind_free(endpoints)
    else:
        selling.bind(endpoints)
    endpoints.bind(api.TAKEN, taken)
    endpoints.bind(api.SCHEMAS, schema)
    endpoints.bind(api.HEALTH, health)
    endpoints.require_all(api.ROUTES)
    return app


def _kind(call: Call[Any, None]) -> str | None:
    text = call.query("kind")
    if not text:
        return None
    if text not in SCHEMAS:
        raise ApiError(422, "invalid", f"kind must be one of {', '.join(SCHEMAS)}, not {text[:40]!r}")
    return text


def _number(call: Call[Any, None], name: str, default: int) -> int:
    text = call.query(name)
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ApiError(422, "invalid", f"{name} must be a whole number, not {text[:40]!r}")
    return int(text)
