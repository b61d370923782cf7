"""Exports everything that the controller may take from a node, in pages or as one stream."""

from __future__ import annotations

import msgspec

from engram.api.call import Call
from engram.api.node_model import Export, ExportedPage, ExportEnd, ExportPage
from engram.hotkeys.python_json import JsonObject
from engram.memory.errors import InvalidRequest, RecordDamaged
from engram.memory.upkeep import export_pages
from engram.memory.upkeep.export_pages import KINDS, MOST_ROWS, Kind, Page
from engram.miner.auth import Caller
from engram.miner.errors import Refused
from engram.miner.handlers.export_stream import AT_ONCE, ExportStream
from engram.miner.handlers.proofs import signed_whole, takes
from engram.miner.service import Service

_READ_WITHIN_S = 10.0


class Wanted(msgspec.Struct, frozen=True):
    """What to export: documents of `kind` after number `after`."""

    kind: Kind
    after: int
    limit: int


async def export(service: Service, call: Call[ExportPage, Caller]) -> ExportedPage:
    """POST /export: everything that the controller may export, in pages: public records and the controller's own,
    and with `kind` its conversations, key shares and attestations.

    `after` is the `next` of the page before; `next` is null on the last one. A page has at most 500 documents and about
    1 MiB; the client requests it once it has the one before, so an interrupted export can resume.
    """
    wanted = await _admitted(service, call)
    page = await _page(service, wanted.kind, wanted.after, wanted.limit)
    return ExportedPage(records=page.documents, count=len(page.documents), next=page.next)


async def export_stream(service: Service, call: Call[Export, Caller]) -> ExportStream:
    """POST /export-stream: the same in one answer, a document a line: all of `kind` after `after`, then all later
    kinds. The last line has `"kind": "end"`; without it the answer was cut off."""
    wanted = await _admitted(service, call)
    if service.exports_open >= AT_ONCE:
        raise Refused(503, "busy", f"{AT_ONCE} exports are on their way already; try again later.")
    return _stream(service, wanted, takes_certificate=takes(call))


def _stream(service: Service, wanted: Wanted, *, takes_certificate: bool) -> ExportStream:
    async def read(kind: Kind, after: int) -> Page:
        return await _page(service, kind, after, MOST_ROWS)

    async def end(count: int) -> object:
        try:
            return ExportEnd(
                kind="end", count=count, commitment=await signed_whole(service, takes_certificate=takes_certificate)
            )
        except RecordDamaged as damaged:  # all documents were sent, and the undamaged ones are useful
            return ExportEnd(kind="end", count=count, error=str(damaged))

    def counted(change: int) -> None:
        service.exports_open += change

    return ExportStream(read, end, counted, wanted.kind, wanted.after)


async def _admitted(service: Service, call: Call[Export, Caller] | Call[ExportPage, Caller]) -> Wanted:
    caller = await service.admit(call)
    service.gate.require_controller(caller)
    return _wanted(caller.fields)


def _wanted(fields: JsonObject) -> Wanted:
    after, limit = fields.get("after") or 0, fields.get("limit") or MOST_ROWS
    if type(after) is not int or type(limit) is not int or not 0 <= after < 2**62 or limit < 1:
        raise InvalidRequest("after and limit must be whole numbers, not below 0.")
    for kind in KINDS:
        if kind == fields.get("kind", "record"):
            return Wanted(kind, after, min(limit, MOST_ROWS))
    raise InvalidRequest(f"kind must be one of {', '.join(KINDS)}.")


async def _page(service: Service, kind: Kind, after: int, limit: int) -> Page:
    controller = service.gate.controller
    if kind == "record":
        return await service.truth.read(
            lambda connection: export_pages.page(connection, kind, after, limit, controller), budget_s=_READ_WITHIN_S
        )
    return await service.notebook.read(lambda connection: export_pages.page(connection, kind, after, limit, controller))
