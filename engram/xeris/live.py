"""Accepted payloads as server-sent events, in order, from where the reader left off."""

from functools import partial
from typing import Final

import structlog

from engram.http.request import Stream
from engram.http.sse import EventSink, event_stream
from engram.ledger import Ledger, LedgerError
from engram.xeris import records
from engram.xeris.intelligence import Arrivals, summary

REREAD_S: Final = 5.0
_AT_ONCE: Final = 100

_log = structlog.get_logger("engram.xeris")


def events(ledger: Ledger, arrivals: Arrivals, netuid: int, kind: str | None, after: int | None) -> Stream:
    """Return the stream of what is accepted after the payload of a number; None: from now on."""

    async def produce(sink: EventSink) -> None:
        try:
            await follow(sink)
        except LedgerError as error:  # the reader comes again, with the id of the last event that it received
            _log.warning("intelligence_stream_ended", reason=str(error))

    async def follow(sink: EventSink) -> None:
        seen = after
        if seen is None:
            seen = await ledger.read(records.last_id)
            await sink.send_id(str(seen))
        while True:
            found = await ledger.read(partial(records.later, netuid=netuid, kind=kind, after_id=seen, limit=_AT_ONCE))
            for each in found:
                await sink.send(summary(each), event="intelligence", event_id=str(each.id))
                seen = each.id
            if len(found) < _AT_ONCE:
                await arrivals.wait(REREAD_S)

    return event_stream(produce)
