"""A hotkey's own sessions: look, list, stop, and get a ticket for the event stream."""

from quart import Response

from engram.gateway import records
from engram.gateway.answers import SessionAnswer, SessionsAnswer, StoppedAnswer, TicketAnswer
from engram.gateway.caller import Caller, identify, use_up
from engram.gateway.once import Once
from engram.gateway.presenting import session_answer
from engram.gateway.replies import reply
from engram.gateway.services import Services
from engram.gateway.tickets import LIFETIME_S
from engram.hotkeys import MalformedHotkey, parse_hotkey
from engram.http.app import App
from engram.http.errors import ApiError
from engram.sessions import EndReason, Session, SessionEvent
from engram.sessions import records as session_records

LISTED = 200


def add_session_routes(app: App, services: Services) -> None:
    """Add the endpoints under /sessions that cost nothing."""
    once = Once(started_ms=int(services.clock.now() * 1000))

    @app.get("/sessions/<session_id>")
    async def show_session(session_id: str) -> Response:
        """For ids that are no session's; those are answered by session_lane.py."""
        caller = await identify(services)
        return reply(_shown(services, await _owned(services, caller, session_id)))

    @app.delete("/sessions/<session_id>")
    async def stop_session(session_id: str) -> Response:
        caller = await identify(services)
        await owned(services, caller, session_id)
        now = services.instants.now()
        await services.ledger.write(
            lambda connection: session_records.transition(
                connection, session_id, SessionEvent.END, now, reason=EndReason.USER
            )
        )
        services.session_changed(session_id)
        services.feed.poke(session_id)
        return reply(StoppedAnswer(True, session_id))

    @app.get("/sessions/hotkey/<hotkey>")
    async def list_sessions(hotkey: str) -> Response:
        caller = await identify(services)
        if not _is(hotkey, caller):
            raise ApiError(403, "not_yours", "Can only list your own sessions.")
        listed = await services.ledger.read(
            lambda connection: records.of_controller(connection, caller.public_key, LISTED)
        )
        return reply(SessionsAnswer([_shown(services, found) for found in listed]))

    @app.post("/sessions/<session_id>/ticket")
    async def issue_ticket(session_id: str) -> Response:
        caller = await identify(services)
        await owned(services, caller, session_id)
        use_up(services, once, caller)
        ticket = services.tickets.issue(session_id, services.clock.now())
        return reply(TicketAnswer(ticket, LIFETIME_S, f"/sessions/{session_id}/events?ticket={ticket}"))


async def owned(services: Services, caller: Caller, session_id: str) -> Session:
    """The caller's session of this id. Raises ApiError 404, or 403 when it is somebody else's."""
    return (await _owned(services, caller, session_id)).session


async def _owned(services: Services, caller: Caller, session_id: str) -> records.Found:
    return _require(caller, await services.ledger.read(lambda connection: records.find(connection, session_id)))


def _require(caller: Caller, found: records.Found | None) -> records.Found:
    if found is None:
        raise ApiError(404, "not_found", "Session not found.")
    if found.session.controller != caller.public_key:
        raise ApiError(403, "not_yours", "Not your session.")
    return found


def shown_to(services: Services, caller: Caller, found: records.Found | None) -> SessionAnswer:
    """What a caller sees of a session. Raises ApiError 404, or 403 when it is somebody else's."""
    return _shown(services, _require(caller, found))


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
