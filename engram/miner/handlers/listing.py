"""Lists a namespace in pages, and looks records up by the client's own references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from engram.api.call import Call
from engram.api.node_model import List, Listed, Listing, LookUp, Reference, References
from engram.memory import batch_rules, rules
from engram.memory.errors import InvalidRequest
from engram.memory.model import Record
from engram.memory.proof import proofs
from engram.memory.proof.keyed_tree import KeyedTree
from engram.memory.store import record_sql
from engram.miner.auth import Caller, Space
from engram.miner.handlers.proofs import signed_root, takes
from engram.miner.handlers.query import Reader, shown, validity
from engram.miner.service import Service

R = TypeVar("R", Listed, Reference)

MOST_BYTES: Final = 1_048_576
"""The most bytes of JSON in a page; a larger record gets its own page."""
_TRIES: Final = 5
"""How often a page is read while its namespace changes."""


async def listing(service: Service, call: Call[List, Caller]) -> Listing:
    """POST /list: a page of the public or of a private namespace, oldest first; with `key` the versions of one fact.

    `after` walks by a cursor that deletions and inserts do not move, and each page has the signed root that it belongs
    to. `offset` skips records when others are deleted between two pages.
    """
    caller, space = await service.enter(call)
    checked = rules.check_list(caller.fields)
    if "after" in caller.fields:
        if checked.offset:
            raise InvalidRequest("Send after or offset, not both.")
        return await _walked(service, caller, space, checked, takes_certificate=takes(call))
    reader = Reader(service, caller, space)
    page = await service.store.page(space.key, checked.conditions, checked.limit, checked.offset, checked.key)
    records = [
        Listed(cid=record.cid, metadata=shown(record), text=reader.text(record), **validity(record)) for record in page
    ]
    return Listing(records=records, count=len(records), offset=checked.offset, limit=checked.limit)


async def look_up(service: Service, call: Call[LookUp, Caller]) -> References:
    """POST /LookupBatch: records whose metadata `key` is one of up to 256 `values`, oldest first, in pages."""
    caller, space = await service.enter(call)
    checked = batch_rules.check_lookup(caller.fields)
    after = service.cursors.read(space.key, checked.after)
    page = await service.truth.read(
        lambda connection: record_sql.page(connection, space.key, checked.conditions, checked.limit, after=after)
    )
    reader = Reader(service, caller, space)

    def show(record: Record) -> Reference:
        if checked.whole:
            return Reference(cid=record.cid, metadata=shown(record), text=reader.text(record))
        return Reference(cid=record.cid, value=record.metadata[checked.key])

    records = _bounded([show(record) for record in page])
    return References(records=records, count=len(records), next=_next(service, space, page, records, checked.limit))


async def _walked(
    service: Service, caller: Caller, space: Space, checked: rules.ListInput, *, takes_certificate: bool
) -> Listing:
    after = service.cursors.read(space.key, batch_rules.cursor(caller.fields))
    page, tree = await _page(service, space, checked, after)
    reader = Reader(service, caller, space)
    records = _bounded(
        [
            Listed(
                cid=record.cid,
                metadata=shown(record),
                text=reader.text(record),
                embedding_hash=proofs.embedding_hash(record.embedding),
                **validity(record),
            )
            for record in page
        ]
    )
    root = None
    if tree is not None:
        root = await signed_root(service, space, tree, takes_certificate=takes_certificate)
    return Listing(
        records=records,
        count=len(records),
        limit=checked.limit,
        next=_next(service, space, page, records, checked.limit),
        commitment=root,
    )


async def _page(
    service: Service, space: Space, checked: rules.ListInput, after: int
) -> tuple[list[Record], KeyedTree | None]:
    """Return a page and its namespace's tree at the same moment; no tree when it changes too fast."""
    page: list[Record] = []
    for _ in range(_TRIES):
        page, sequence = await service.truth.read(
            lambda connection: (
                record_sql.page(connection, space.key, checked.conditions, checked.limit, after=after, key=checked.key),
                record_sql.last_sequence(connection),
            )
        )
        tree = await service.commitment.as_of(space.key, sequence)
        if tree is not None:
            return page, tree
    return page, None


def _bounded(records: Sequence[R]) -> list[R]:
    kept: list[R] = []
    size = 0
    for each in records:
        size += len(msgspec.json.encode(each))
        if kept and size > MOST_BYTES:
            break
        kept.append(each)
    return kept


def _next(service: Service, space: Space, page: Sequence[Record], records: Sequence[object], limit: int) -> str | None:
    """Return the cursor after the records of a page; None after the last record."""
    if len(records) == len(page) < limit:
        return None
    return service.cursors.of(space.key, page[len(records) - 1].id)
