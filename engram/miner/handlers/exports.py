"""Everything for whoever takes their memory along before the session ends: page by page, or in one long answer."""

from __future__ import annotations

import msgspec

from engram.hotkeys.python_json import JsonObject
from engram.memory.errors import InvalidRequest, RecordDamaged
from engram.memory.upkeep import export_pages
from engram.memory.upkeep.export_pages import KINDS, MOST_ROWS, Kind, Page
from engram.miner.answers import Answer, plain, told_openly
from engram.miner.errors import Refused
from engram.miner.handlers.export_stream import AT_ONCE, ExportStream
from engram.miner.handlers.proofs import signed_whole
from engram.miner.service import Service

_READ_WITHIN_S = 10.0


class Asked(msgspec.Struct, frozen=True):
    """What an export is to give: documents of `kind` behind number `after`."""

    kind: Kind
    after: int
    limit: int


async def export(service: Service, body: bytes) -> Answer:
    """POST /export: everything that the controller may take along, in pages: public records and the controller's own,
    and with `kind` its conversations, key shares and attestations.

    `after` is the `next` of the page before; `next` is null on the last one. A page has at most 500 documents and about
    1 MiB; it is asked for when the last one has arrived, so an interrupted export goes on where it was.
    """

    async def act() -> Answer:
        asked = await _admitted(service, body, "export")
        page = await _page(service, asked.kind, asked.after, asked.limit)
        return Answer(200, {"records": page.documents, "count": len(page.documents), "next": page.next})

    return await told_openly(act, plain)


async def export_stream(service: Service, body: bytes) -> Answer | ExportStream:
    """POST /export-stream: the same in one answer, a document a line: all of `kind` behind `after`, then all of the
    kinds that follow it. The last line has `"kind": "end"`; without it the answer was cut off."""
    made: list[ExportStream] = []

    async def act() -> Answer:
        asked = await _admitted(service, body, "export-stream")
        if service.exports_open >= AT_ONCE:
            raise Refused(503, "busy", f"{AT_ONCE} exports are on their way already; try again later.")
        made.append(_stream(service, asked))
        return Answer(200, {})

    answer = await told_openly(act, plain)
    return made[0] if made else answer


def _stream(service: Service, asked: Asked) -> ExportStream:
    async def read(kind: Kind, after: int) -> Page:
        return await _page(service, kind, after, MOST_ROWS)

    async def end(count: int) -> object:
        try:
            return {"kind": "end", "count": count, "commitment": await signed_whole(service)}
        except RecordDamaged as damaged:  # everything came, and what is whole of it is of use
            return {"kind": "end", "count": count, "commitment": None, "error": str(damaged)}

    def counted(change: int) -> None:
        service.exports_open += change

    return ExportStream(read, end, counted, asked.kind, asked.after)


async def _admitted(service: Service, body: bytes, endpoint: str) -> Asked:
    caller = await service.gate.admit(body, endpoint)
    service.gate.require_controller(caller)
    return _asked(caller.fields)


def _asked(fields: JsonObject) -> Asked:
    after, limit = fields.get("after") or 0, fields.get("limit") or MOST_ROWS
    if type(after) is not int or type(limit) is not int or not 0 <= after < 2**62 or limit < 1:
        raise InvalidRequest("after and limit must be whole numbers, not below 0.")
    for kind in KINDS:
        if kind == fields.get("kind", "record"):
            return Asked(kind, after, min(limit, MOST_ROWS))
    raise InvalidRequest(f"kind must be one of {', '.join(KINDS)}.")


async def _page(service: Service, kind: Kind, after: int, limit: int) -> Page:
    controller = service.gate.controller
    if kind == "record":
        return await service.truth.read(
            lambda connection: export_pages.page(connection, kind, after, limit, controller), budget_s=_READ_WITHIN_S
        )
    return await service.notebook.read(lambda connection: export_pages.page(connection, kind, after, limit, controller))
