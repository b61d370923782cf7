"""A hotkey's own sessions: look, list, stop, and get a ticket for the event stream."""

from engram.gateway import records
from engram.gateway.answers import SessionAnswer, SessionsAnswer, StoppedAnswer, TicketAnswer
from engram.gateway.caller import Caller, consume_signature, identify_request
from engram.gateway.services import Services
from engram.gateway.tickets import LIFETIME_S
from engram.gateway.views import session_answer
from engram.hotkeys import MalformedHotkey, gateway_scheme, parse_hotkey
from engram.hotkeys.replay_guard import SingleUse
from engram.http.direct import Answer, Direct, Request, json_answer
from engram.http.errors import ApiError
from engram.ledger import LaneClosed
from engram.sessions import EndReason, Session, SessionEvent
from engram.sessions import records as session_records

LISTED = 200


def add_session_routes(direct: Direct, services: Services) -> None:
    """Add the endpoints under /sessions that cost nothing."""
    tickets = SingleUse(started_ms=int(services.clock.now() * 1000), window_ms=gateway_scheme.WINDOW_MS)

    async def show_session(request: Request) -> Answer:
        caller = identify_request(services, request)
        return json_answer(_shown(services, _require(caller, await _looked_up(services, request.parameters[0]))))

    async def stop_session(request: Request) -> Answer:
        (session_id,) = request.parameters
        caller = identify_request(services, request)
        await owned(services, caller, session_id)
        now = services.instants.now()
        await services.ledger.write(
            lambda connection: session_records.transition(
                connection, session_id, SessionEvent.END, now, reason=EndReason.USER
            )
        )
        services.session_changed(session_id)
        services.feed.poke(session_id)
        return json_answer(StoppedAnswer(True, session_id))

    async def list_sessions(request: Request) -> Answer:
        caller = identify_request(services, request)
        if not _is(request.parameters[0], caller):
            raise ApiError(403, "not_yours", "Can only list your own sessions.")
        listed = await services.ledger.read(
            lambda connection: records.of_controller(connection, caller.public_key, LISTED)
        )
        return json_answer(SessionsAnswer([_shown(services, found) for found in listed]))

    async def issue_ticket(request: Request) -> Answer:
        (session_id,) = request.parameters
        caller = identify_request(services, request)
        await owned(services, caller, session_id)
        consume_signature(services, tickets, caller)
        ticket = services.tickets.issue(session_id, services.clock.now())
        return json_answer(TicketAnswer(ticket, LIFETIME_S, f"/sessions/{session_id}/events?ticket={ticket}"))

    direct.bind("GET", "/sessions/<session_id>", show_session)
    direct.bind("DELETE", "/sessions/<session_id>", stop_session)
    direct.bind("GET", "/sessions/hotkey/<hotkey>", list_sessions)
    direct.bind("POST", "/sessions/<session_id>/ticket", issue_ticket)


async def owned(services: Services, caller: Caller, session_id: str) -> Session:
    """The caller's session of this id. Raises ApiError 404, or 403 when it is somebody else's."""
    return (await _owned(services, caller, session_id)).session


async def _owned(services: Services, caller: Caller, session_id: str) -> records.Found:
    return _require(caller, await services.ledger.read(lambda connection: records.find(connection, session_id)))


async def _looked_up(services: Services, session_id: str) -> records.Found | None:
    """On the loop, since phones ask this most; in a reader's thread where the lane is closed."""
    try:
        return records.look(services.ledger, session_id)
    except LaneClosed:
        return await services.ledger.read(lambda connection: records.find(connection, session_id))


def _require(caller: Caller, found: records.Found | None) -> records.Found:
    if found is None:
        raise ApiError(404, "not_found", "Session not found.")
    if found.session.controller != caller.public_key:
        raise ApiError(403, "not_yours", "Not your session.")
    return found


def _shown(services: Services, found: records.Found) -> SessionAnswer:
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
