"""Finds records by meaning, or one record by its CID."""

from __future__ import annotations

from typing import Any, Literal, final

import trio
from msgspec import UNSET, UnsetType

from engram.api.call import Call
from engram.api.node_model import Found, Hit, Query, Retrieved
from engram.api.route import NoBody
from engram.memory import cid as cids
from engram.memory.errors import InvalidRequest, NotFound
from engram.memory.model import ALWAYS, Excerpt, Record
from engram.memory.search.rules import check_search
from engram.miner.auth import Caller, Space
from engram.miner.service import Service


async def query(service: Service, call: Call[Query, Caller]) -> Found:
    """POST /QuerySynapse: the nearest records of the public or of a private namespace, by cosine.

    `mode` also looks at words and at windows of long texts; `diversity` and `recency` rank what was found.
    """
    caller, space = await service.enter(call)
    wanted = check_search(caller.fields, service.limits)
    vector = wanted.embedding
    if vector is None:
        (vector,) = await service.embedder.embed([wanted.text or ""])
    hits = await service.searcher.find(space.key, wanted, vector)
    service.metrics.searches.labels(wanted.mode or "none").inc()
    if not space.is_private:  # public statistics must reveal nothing about a tenant
        service.statistics.query_answered(round((trio.current_time() - call.arrived_s) * 1000, 3))
    tier, reader = service.trust_tier(space), Reader(service, caller, space)
    return Found(
        results=[
            Hit(
                cid=hit.record.cid,
                metadata=shown(hit.record),
                text=reader.text(hit.record),
                score=round(hit.score, 6),
                relevance=UNSET if hit.relevance is None else round(hit.relevance, 6),
                trust_tier=tier,
                **validity(hit.record),
            )
            for hit in hits
        ]
    )


async def retrieve(service: Service, call: Call[NoBody, Caller]) -> Retrieved:
    """GET /retrieve/{cid}: one record. A private one needs the namespace's fields as query parameters."""
    caller, space = await service.enter(call)
    record = await found_record(service, space.key, call.path("cid"))
    text = Reader(service, caller, space).text(record)
    windows = await _windows(service, space, record) if _asks_for_windows(caller) else UNSET
    return Retrieved(cid=record.cid, metadata=shown(record), text=text, windows=windows, **validity(record))


def _asks_for_windows(caller: Caller) -> bool:
    wanted = caller.fields.get("windows")
    if wanted not in (None, "true", "false"):
        raise InvalidRequest("windows must be true or false.")
    return wanted == "true"


async def _windows(service: Service, space: Space, record: Record) -> Literal["there", "to come", "none"]:
    """Return whether a record can be found by the windows of its text."""
    text = record.text
    if text is None or record.made_here is False or not service.has_windows(space, text, record.metadata):
        return "none"
    (cut,) = await service.embedder.cuts([text])
    if cut is None:
        return "none"
    return "there" if service.has_windows_of(record) else "to come"


async def found_record(service: Service, key: str, cid: str) -> Record:
    """Return a record of a namespace, checked against its CID. Raises NotFound, RecordDamaged, TruthUnavailable."""
    record = await held_record(service, key, cid)
    service.soundness.require(cid, record.embedding, record.metadata, record.model_version)
    return record


async def held_record(service: Service, key: str, cid: str) -> Record:
    """Return a record of a namespace, unchecked. Raises NotFound, TruthUnavailable."""
    record = await service.store.get(key, cid) if cids.is_cid(cid) else None
    if record is None:
        raise NotFound
    return record


def shown(record: Record | Excerpt) -> dict[str, object]:
    """Return a record's metadata as answers show them."""
    return record.metadata  # type: ignore[return-value]  # values are strings and never changed


def validity(record: Record | Excerpt) -> dict[str, Any]:
    """Return the fields of an answer that say how long a record is current; none for one that always is."""
    given = record.validity
    if given == ALWAYS and record.superseded_by is None:
        return {}
    fields = {"key": given.key, "supersedes": given.supersedes, "expires_at": given.expires_at}
    fields["superseded_by"] = record.superseded_by
    return {name: value for name, value in fields.items() if value is not None}


@final
class Reader:
    """A caller who may see the records of a namespace.

    The text of a public record is shown only to the controller and the key that stored it. Content for everyone belongs
    in the metadata, as in the original.
    """

    __slots__ = ("_all_texts", "_signer")

    def __init__(self, service: Service, caller: Caller, space: Space) -> None:
        self._signer = caller.signer
        self._all_texts = space.is_private or caller.signer == service.gate.controller

    def text(self, record: Record | Excerpt) -> str | UnsetType:
        """Return the text of a record if this reader may see it."""
        if record.text is not None and (self._all_texts or (self._signer is not None and self._signer == record.owner)):
            return record.text
        return UNSET
