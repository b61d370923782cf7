"""Everything for whoever takes their memory along before the session ends, page by page."""

from __future__ import annotations

from engram.memory import exporting
from engram.memory.errors import InvalidRequest
from engram.memory.exporting import KINDS, MOST_ROWS, Kind, Page
from engram.miner.answers import Answer, plain, told_openly
from engram.miner.service import Service

_READ_WITHIN_S = 10.0


async def export(service: Service, body: bytes) -> Answer:
    """POST /export: everything that the controller may take along, in pages: public records and the controller's own,
    and with `kind` its conversations, key shares and attestations.

    `after` is the `next` of the page before; `next` is null on the last one. A page has at most 500 documents and about
    1 MiB; it is asked for when the last one has arrived, so an interrupted export goes on where it was.
    """

    async def act() -> Answer:
        caller = await service.gate.admit(body, "export")
        service.gate.require_controller(caller)
        fields = caller.fields
        after, limit = fields.get("after") or 0, fields.get("limit") or MOST_ROWS
        if type(after) is not int or type(limit) is not int or not 0 <= after < 2**62 or limit < 1:
            raise InvalidRequest("after and limit must be whole numbers, not below 0.")
        kind = _kind(fields.get("kind", "record"))
        controller, most = service.gate.controller, min(limit, MOST_ROWS)
        if kind == "record":
            page: Page = await service.truth.read(
                lambda connection: exporting.page(connection, kind, after, most, controller), budget_s=_READ_WITHIN_S
            )
        else:
            page = await service.notebook.read(
                lambda connection: exporting.page(connection, kind, after, most, controller)
            )
        return Answer(200, {"records": page.documents, "count": len(page.documents), "next": page.next})

    return await told_openly(act, plain)


def _kind(asked: object) -> Kind:
    for kind in KINDS:
        if kind == asked:
            return kind
    raise InvalidRequest(f"kind must be one of {', '.join(KINDS)}.")
