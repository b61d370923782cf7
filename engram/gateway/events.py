"""GET /sessions/{id}/events: a session's changes as server-sent events.

`state` events carry the ids of the session's history, so that a reader resumes after the last one it received
(Last-Event-ID); `stats` events carry none, since only the newest matter. When the session is over the stream ends with
`end`, and a reader that reconnects is answered 204, which makes EventSource stop.

A stream opened by a ticket carries a renewal of it in each id (`17.AAAA…`) and sends one at least every RENEW_EVERY_S,
because EventSource can only reconnect to the same URL, whose ticket is used up (tickets.py).
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Final, final

import msgspec
import trio
from sqlalchemy import Connection

from engram.api import gateway as api
from engram.api.call import Call
from engram.api.route import NoBody
from engram.api.serving import Endpoints
from engram.gateway import records, ticket_records, tickets
from engram.gateway.caller import Caller
from engram.gateway.feed import StreamsFull
from engram.gateway.services import Services
from engram.gateway.sessions import owned
from engram.gateway.ticket_records import Lineage
from engram.gateway.tickets import StreamToken
from engram.gateway.views import TimedStats, session_answer
from engram.http.errors import ApiError
from engram.http.request import Answer, Stream
from engram.http.sse import EventSink, event_stream
from engram.sessions import TERMINAL, EventRecord, Session, history
from engram.sessions import records as session_records

PAGE: Final = 100
"""Events per read of the ledger."""
LONGEST_S: Final = 3_600.0
"""The longest life of a stream; the reader then reconnects and resumes where it was."""
RENEW_EVERY_S: Final = 600.0
"""The oldest renewal that a reader may hold: a sixth of a renewal's lifetime."""
MAX_EVENT_ID: Final = 2**63 - 1


def bind_events(endpoints: Endpoints[Caller], services: Services) -> None:
    """Bind the event stream."""

    async def stream_events(call: Call[NoBody, Caller]) -> Answer | Stream:
        session, token = await _admitted(services, call)
        after = _last_event_id(call)
        if after is not None and session.state in TERMINAL:
            missed = await services.ledger.read(lambda c: history.events_since(c, session.id, after, PAGE))
            if not missed:
                return Answer(204, b"", media="")
        try:
            services.feed.admit(session.controller)
        except StreamsFull:
            raise ApiError(
                429, "too_many_streams", "Too many event streams are open; close one.", headers=(("Retry-After", "5"),)
            ) from None
        if call.http.method == "HEAD":
            call.http.signed_at = None  # a stream has no body to sign
            return Answer(200, b"", media=call.route.stream)
        marks = _Marks(services) if token is None else await _opened(services, token)
        return event_stream(lambda sink: _tell(services, sink, session, after, marks))

    endpoints.bind(api.STREAM_EVENTS, stream_events)


async def _admitted(services: Services, call: Call[NoBody, Caller]) -> tuple[Session, StreamToken | None]:
    """Return the session and the ticket or renewal that admits the reader (None: a signature does)."""
    session_id, ticket = call.path("session_id"), call.query("ticket")
    if ticket is None:
        return await owned(services, call.caller, session_id), None
    now = services.clock.now()
    _, _, renewal = _last_event_text(call).partition(".")

    def query(connection: Connection) -> tuple[Session | None, StreamToken | None]:
        secret = ticket_records.secret(connection)
        for text in (ticket, renewal):
            token = None if secret is None else tickets.read(text, session_id, secret, now)
            if token is not None and ticket_records.opens(connection, token):
                return session_records.get(connection, session_id), token
        return None, None

    session, token = await services.ledger.read(query)
    if token is None:
        raise _bad_ticket()
    if session is None:
        raise ApiError(404, "not_found", "Session not found.")
    return session, token


async def _opened(services: Services, token: StreamToken) -> "_Marks":
    """Use a token up. Raises ApiError when another stream has used it meanwhile."""
    now = services.clock.now()

    def transaction(connection: Connection) -> tuple[Lineage | None, bytes | None]:
        return ticket_records.open_stream(connection, token, now), ticket_records.secret(connection)

    lineage, secret = await services.ledger.write(transaction)
    if lineage is None or secret is None:
        raise _bad_ticket()
    services.feed.poke(token.session_id)  # wakes an older stream of this reader, which then ends
    return _Marks(services, lineage, secret)


def _bad_ticket() -> ApiError:
    return ApiError(401, "bad_ticket", "The ticket is not good (any more) for this session; ask for another.")


def _last_event_text(call: Call[NoBody, Caller]) -> str:
    """Return the last event id that the reader received.

    EventSource sends it as the header; a page's first connection sends it as the query parameter.
    """
    return call.header("Last-Event-ID") or call.query("last_event_id") or ""


def _last_event_id(call: Call[NoBody, Caller]) -> int | None:
    """Return the number in the last event id; None when there is none."""
    text, _, _ = _last_event_text(call).partition(".")
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= MAX_EVENT_ID):
        return None
    return int(text)


@final
class _Marks:
    """Makes the ids of one stream's events, with a renewal in each where a ticket opened the stream."""

    def __init__(self, services: Services, lineage: Lineage | None = None, secret: bytes = b"") -> None:
        self._services = services
        self._lineage = lineage
        self._secret = secret
        self.renew_at = inf
        """When to replace the reader's renewal, on trio's clock; never without a ticket."""

    def is_over(self, connection: Connection) -> bool:
        """Return whether this reader has opened a newer stream."""
        return self._lineage is not None and ticket_records.is_over(connection, self._lineage)

    def id_of(self, event_id: int) -> str:
        """Return the id to send with an event of the history."""
        if self._lineage is None:
            return str(event_id)
        self.renew_at = trio.current_time() + RENEW_EVERY_S
        return f"{event_id}.{ticket_records.renew(self._lineage, self._secret, self._services.clock.now())}"

    async def renew(self, sink: EventSink, event_id: int) -> None:
        """Send the reader a new renewal, unless a signature opened its stream."""
        if self._lineage is not None:
            await sink.send_id(self.id_of(event_id))


async def _tell(services: Services, sink: EventSink, session: Session, after: int | None, marks: _Marks) -> None:
    """Send events until the session is over. A slow reader delays only its own stream."""
    ends_at = services.clock.monotonic() + LONGEST_S
    sent: TimedStats | None = None
    with services.feed.subscribe(session.controller, session.id) as subscription:
        if after is None:
            after = await _snapshot(services, sink, session.id, marks)
        else:
            await marks.renew(sink, after)
        while services.clock.monotonic() < ends_at:
            found, events, is_over = await services.ledger.read(_news(session.id, after, marks))
            if is_over:
                return
            for event in events:
                await _state(services, sink, found, event, marks)
                after = event.id
            stats = services.stats.latest(session.id)
            if stats is not None and (sent is None or stats.at != sent.at):
                sent = stats
                await _stats(services, sink, session.id, stats)
            if found.session.state in TERMINAL and not events:
                await sink.send({"session_id": session.id, "status": found.session.state}, event="end")
                return
            if not events:
                with trio.move_on_at(marks.renew_at):
                    await subscription.changed()
            if trio.current_time() >= marks.renew_at:
                await marks.renew(sink, after)


async def _snapshot(services: Services, sink: EventSink, session_id: str, marks: _Marks) -> int:
    """Send the session's current state to a new reader; return the id of the newest event."""

    def query(connection: Connection) -> tuple[records.FoundSession, EventRecord]:
        return _existing(connection, session_id), history.newest_event(connection, session_id)

    found, newest = await services.ledger.read(query)
    await _state(services, sink, found, newest, marks)
    return newest.id


def _news(
    session_id: str, after: int, marks: _Marks
) -> Callable[[Connection], tuple[records.FoundSession, Sequence[EventRecord], bool]]:
    def query(connection: Connection) -> tuple[records.FoundSession, Sequence[EventRecord], bool]:
        found = _existing(connection, session_id)
        return found, history.events_since(connection, session_id, after, PAGE), marks.is_over(connection)

    return query


def _existing(connection: Connection, session_id: str) -> records.FoundSession:
    found = records.find(connection, session_id)
    assert found is not None, "only sessions that ended long ago unpaid are dropped"
    return found


async def _state(
    services: Services, sink: EventSink, found: records.FoundSession, event: EventRecord, marks: _Marks
) -> None:
    shown = session_answer(
        found.session,
        services.instants.now(),
        services.clock.monotonic(),
        transaction=found.transaction,
        stats=services.stats.latest(found.session.id),
    )
    data = {
        "session_id": event.session_id,
        "what": event.event,
        "at": event.at,
        "details": msgspec.Raw(event.data.encode("utf-8")),
        "session": shown,
    }
    await sink.send(data, event="state", event_id=marks.id_of(event.id))


async def _stats(services: Services, sink: EventSink, session_id: str, stats: TimedStats) -> None:
    age_s = round(max(0.0, services.clock.monotonic() - stats.at), 3)
    await sink.send({"session_id": session_id, "stats": stats.stats, "age_s": age_s}, event="stats")
