"""A hotkey's own sessions: show, list, stop, and issue a ticket for the event stream."""

import msgspec

from engram.api import gateway as api
from engram.api.call import Call
from engram.api.gateway_model import RestoredBody, SessionAnswer, SessionsAnswer, StoppedAnswer, TicketAnswer
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.gateway import records, ticket_records
from engram.gateway.caller import Caller, replayed
from engram.gateway.services import Services
from engram.gateway.tickets import LIFETIME_S
from engram.gateway.views import session_answer
from engram.hotkeys import MalformedHotkey, gateway_scheme, parse_hotkey
from engram.http.errors import ApiError
from engram.ledger import LaneClosed
from engram.payments import records as payment_records
from engram.sessions import EndReason, Session, SessionEvent
from engram.sessions import records as session_records

LISTED = 200


def bind_sessions(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the free endpoints under /sessions."""

    async def show_session(call: Call[NoBody, Caller]) -> SessionAnswer:
        session_id = call.path("session_id")
        try:
            found = records.look(services.ledger, session_id)  # on the loop: this is the most frequent request
        except LaneClosed:
            found = await services.ledger.read(lambda connection: records.find(connection, session_id))
        return _shown(services, _require(call.caller, found))

    async def stop_session(call: Call[NoBody, Caller]) -> StoppedAnswer:
        session_id = call.path("session_id")
        await owned(services, call.caller, session_id)
        now = services.instants.now()
        await services.ledger.write(
            lambda connection: session_records.transition(
                connection, session_id, SessionEvent.END, now, reason=EndReason.USER
            )
        )
        services.hints.session_changed(session_id)
        services.feed.poke(session_id)
        return StoppedAnswer(True, session_id)

    async def mark_restored(call: Call[RestoredBody, Caller]) -> SessionAnswer:
        session_id, emptied_at = call.path("session_id"), call.request.emptied_at
        found = await _owned(services, call.caller, session_id)
        at = services.clock.now()
        restored = await services.ledger.write(
            lambda connection: session_records.note_restored(connection, session_id, emptied_at, at)
        )
        if restored is None:
            session = found.session
            raise ApiError(409, "not_this_loss", not_this_loss(emptied_at, session.emptied_at, str(session.state)))
        services.feed.poke(session_id)
        return _shown(services, msgspec.structs.replace(found, session=restored))

    async def list_sessions(call: Call[NoBody, Caller]) -> SessionsAnswer:
        caller = call.caller
        if not _is(call.path("hotkey"), caller):
            raise ApiError(403, "not_yours", "Can only list your own sessions.")
        listed, unsettled = await services.ledger.read(
            lambda connection: (
                records.of_controller(connection, caller.public_key, LISTED),
                payment_records.open_of(connection, caller.public_key),
            )
        )
        return SessionsAnswer([_shown(services, found) for found in listed], unsettled)

    async def issue_ticket(call: Call[NoBody, Caller]) -> TicketAnswer:
        session_id = call.path("session_id")
        await owned(services, call.caller, session_id)
        caller, now = call.caller, services.clock.now()
        request = None if caller.signed_ms is None else caller.public_key + caller.message_sha256
        expires_at = now if caller.signed_ms is None else (caller.signed_ms + gateway_scheme.WINDOW_MS) / 1000
        ticket = await services.ledger.write(
            lambda connection: ticket_records.issue(connection, session_id, request, expires_at, now)
        )
        if ticket is None:
            raise replayed(services)
        return TicketAnswer(ticket, LIFETIME_S, f"/sessions/{session_id}/events?ticket={ticket}")

    endpoints.bind(api.SHOW_SESSION, show_session)
    endpoints.bind(api.STOP_SESSION, stop_session)
    endpoints.bind(api.MARK_RESTORED, mark_restored)
    endpoints.bind(api.LIST_SESSIONS, list_sessions)
    endpoints.bind(api.ISSUE_TICKET, issue_ticket)


def not_this_loss(given: float, emptied_at: float | None, status: str) -> str:
    """Return why nothing was restored.

    >>> not_this_loss(7.5, None, "active")
    'emptied_at is 7.5, and this session has lost nothing.'
    >>> not_this_loss(7.5, 9.25, "active")
    'emptied_at is 7.5; the node last began again empty at 9.25: restore your export into the node of now.'
    >>> not_this_loss(9.25, 9.25, "stopped")
    'The session is stopped: no node serves it.'
    """
    if emptied_at is None:
        return f"emptied_at is {given}, and this session has lost nothing."
    if given != emptied_at:
        return (
            f"emptied_at is {given}; the node last began again empty at {emptied_at}:"
            " restore your export into the node of now."
        )
    return f"The session is {status}: no node serves it."


async def owned(services: Services, caller: Caller, session_id: str) -> Session:
    """Return the caller's session of this id. Raises ApiError 404, or 403 when it belongs to another key."""
    return (await _owned(services, caller, session_id)).session


async def _owned(services: Services, caller: Caller, session_id: str) -> records.FoundSession:
    return _require(caller, await services.ledger.read(lambda connection: records.find(connection, session_id)))


def _require(caller: Caller, found: records.FoundSession | None) -> records.FoundSession:
    if found is None:
        raise ApiError(404, "not_found", "Session not found.")
    if found.session.controller != caller.public_key:
        raise ApiError(403, "not_yours", "Not your session.")
    return found


def _shown(services: Services, found: records.FoundSession) -> SessionAnswer:
    return session_answer(
        found.session,
        services.instants.now(),
        services.clock.monotonic(),
        transaction=found.transaction,
        stats=services.stats.latest(found.session.id),
    )


def _is(hotkey: str, caller: Caller) -> bool:
    try:
        return parse_hotkey(hotkey) == caller.public_key
    except MalformedHotkey:
        return False
