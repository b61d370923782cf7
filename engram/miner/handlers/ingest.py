"""Stores records, single or in a batch, deletes one, and returns one for repair."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio

from engram.api.call import Call
from engram.api.node_model import (
    Delete,
    Deleted,
    Ingest,
    IngestBatch,
    Ingested,
    IngestedBatch,
    Repair,
    Repaired,
    Result,
)
from engram.hotkeys import ss58
from engram.memory import cid as cids
from engram.memory import rules
from engram.memory.embed.protocol import MOST_TOKENS
from engram.memory.errors import (
    IndexUnavailable,
    InvalidInput,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    TruthUnavailable,
    WriteUnknown,
)
from engram.memory.model import ALWAYS, PUBLIC, Entry, Record
from engram.memory.rules import IngestInput
from engram.memory.store import succession
from engram.miner import authority
from engram.miner.auth import Caller, Space
from engram.miner.errors import Refused
from engram.miner.fields import string
from engram.miner.handlers import receipts
from engram.miner.handlers.query import found_record, held_record, shown
from engram.miner.service import Service
from engram.miner.storage import cost_bytes
from engram.miner.surface import refusal_of

_AT_ONCE = 16
"""Items of a batch handled before other tasks get a turn: about 0.5 ms."""
_NEVER_CUT_CHARS = 64
"""A text of at most this many characters is never truncated, so it is not checked."""
_OTHER_TEXT = (
    "A text with the same vector and metadata, so with the same CID, is there already and stays; nothing was stored."
    " The vector of a long text covers its beginning alone: send a metadata field that tells the versions apart."
)
_DOUBTS = {"bad_signature": "wrong", "missing_header": "incomplete"}
"""Words after `signature_` for AuthError codes that would not be understood there."""


async def ingest(service: Service, call: Call[Ingest, Caller]) -> Ingested:
    """POST /IngestSynapse: store a text or a vector. The answer is sent once it is durable."""
    caller, space = await service.enter(call)
    checked = rules.check_ingest(caller.fields, service.limits)
    wants_receipt = receipts.is_wanted(caller.fields)
    checked = await _with_validity(service, caller, space, checked)
    service.storage.admit(cost_bytes(checked, service.limits.dimension), caller.signer or space.owner)
    embedding = checked.embedding
    if embedding is None:
        (embedding,) = await service.embedder.embed([checked.text or ""])
    entry = _entry(service, caller, space, checked, embedding)
    record: Record | None
    try:
        record = await service.store.put(entry)
        result = _result(service, caller, space, entry, record)
    except IndexUnavailable:  # durable; the index follows later
        result, record = await _unsearchable(service, caller, space, entry)
    result = await _with_cut(service, space, checked, result)
    if result.truncated is True:
        await service.wait_for_windows(record)
        result = _with_windows(service, result, record)
    answer = Ingested(**msgspec.structs.asdict(result))
    if not wants_receipt or result.cid is None:
        return answer
    signed = (
        None
        if record is None
        else await receipts.of_stored(service, space, record, searchable=_is_found(service, result, record))
    )
    return msgspec.structs.replace(answer, receipt=signed)


async def ingest_batch(service: Service, call: Call[IngestBatch, Caller]) -> IngestedBatch:
    """POST /IngestBatch: up to 256 items, each as a body of /IngestSynapse; a result for each, in their order.

    Items are independent: some may be stored and others not.
    """
    caller, space = await service.enter(call)
    receipts.require_none(caller.fields)
    items = rules.check_batch(caller.fields)
    authority.require_plain(items)
    results = await _batch(service, caller, space, items)
    for result in results:
        service.metrics.ingests.labels("stored" if result.cid else "refused").inc()
    return IngestedBatch(results=results, stored=sum(1 for result in results if result.cid))


async def delete(service: Service, call: Call[Delete, Caller]) -> Deleted:
    """DELETE /retrieve/{cid}: delete a record; signed as DeleteSynapse over a body that names the `cid`."""
    caller, space = await service.enter(call)
    cid = call.path("cid")
    wants_receipt = receipts.is_wanted(caller.fields)
    await _require_right_to_delete(service, caller, space, cid)
    try:
        if not await service.store.delete(space.key, cid):
            raise NotFound
    except IndexUnavailable:  # durable; hits are joined with the truth, so no search shows it any more
        pass
    if not wants_receipt:
        return Deleted(deleted=True, cid=cid)
    return Deleted(deleted=True, cid=cid, receipt=await receipts.of_deleted(service, space, cid))


async def repair(service: Service, call: Call[Repair, Caller]) -> Repaired:
    """POST /RepairSynapse: a public record with its vector, to repair a copy elsewhere."""
    caller = await service.admit(call)
    record = await found_record(service, PUBLIC, string(caller.fields, "cid"))
    return Repaired(cid=record.cid, embedding=list(rules.unpack_vector(record.embedding)), metadata=shown(record))


async def _batch(service: Service, caller: Caller, space: Space, items: Sequence[object]) -> list[Result]:
    results = [Result() for _ in items]
    checked: dict[int, IngestInput] = {}
    for number, item in enumerate(items):
        try:
            one = await _with_validity(service, caller, space, rules.check_item(item, service.limits))
            if isinstance(item, dict):
                receipts.require_none(item)
            service.storage.admit(cost_bytes(one, service.limits.dimension), caller.signer or space.owner)
            checked[number] = one
        except (InvalidInput, InvalidRequest, QuotaExceeded) as error:
            results[number] = _refused(error)
        if number % _AT_ONCE == _AT_ONCE - 1:
            await trio.lowlevel.checkpoint()
    texts = [number for number, one in checked.items() if one.embedding is None]
    vectors = {number: one.embedding for number, one in checked.items() if one.embedding is not None}
    if texts:
        embedded = await service.embedder.embed([checked[number].text or "" for number in texts])
        vectors |= dict(zip(texts, embedded, strict=True))
    entries: dict[int, Entry] = {}
    for number, one in checked.items():
        entries[number] = _entry(service, caller, space, one, vectors[number])
        if len(entries) % _AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    if entries:
        together = await _stored_together(service, caller, space, list(entries.values()))
        for number, (result, _) in zip(entries, together, strict=True):
            results[number] = await _with_cut(service, space, checked[number], result)
        if any(result.truncated is True for result in results):
            await service.wait_for_windows(_last([record for _, record in together]))
            for number, (_, record) in zip(entries, together, strict=True):
                results[number] = _with_windows(service, results[number], record)
    return results


def _last(records: Sequence[Record | None]) -> Record | None:
    """Return the one that was stored last."""
    return max((record for record in records if record is not None), key=lambda each: each.sequence, default=None)


async def _stored_together(
    service: Service, caller: Caller, space: Space, entries: Sequence[Entry]
) -> list[tuple[Result, Record | None]]:
    """Return the result for each, and its record where that could be read."""
    try:
        stored = await service.store.put_all(entries)
    except IndexUnavailable:  # durable; the index follows later
        return [await _unsearchable(service, caller, space, entry) for entry in entries]
    except TruthUnavailable as error:
        return [(Result(error=f"{error}; try again.", code="store_unavailable"), None) for _ in entries]
    except WriteUnknown as error:
        return [(Result(error=f"{error}; try again.", code="unknown"), None) for _ in entries]
    return [
        (_result(service, caller, space, entry, record), record) for entry, record in zip(entries, stored, strict=True)
    ]


def _refused(error: InvalidInput | InvalidRequest | QuotaExceeded) -> Result:
    refusal = refusal_of(error)
    assert refusal is not None
    return Result(error=refusal.error, code=refusal.code or msgspec.UNSET)


async def _with_cut(service: Service, space: Space, checked: IngestInput, result: Result) -> Result:
    """Add to the result of a truncated text that was stored how much of it the vector covers."""
    if checked.embedding is not None or checked.text is None or len(checked.text) <= _NEVER_CUT_CHARS:
        return result
    if result.cid is None or result.text_kept is False:
        return result
    (cut,) = await service.embedder.cuts([checked.text])
    if cut is None:
        return result
    has = service.has_windows(space, checked.text, checked.metadata)
    result = msgspec.structs.replace(result, truncated=True, tokens=cut.tokens, tokens_used=cut.tokens_used)
    return msgspec.structs.replace(result, tokens_searchable=cut.tokens_used) if has else result


def _with_windows(service: Service, result: Result, record: Record | None) -> Result:
    """Return the result of a text, all of which counts as found where its windows are."""
    if not service.has_windows_of(record):
        return result
    if isinstance(result.tokens, int) and isinstance(result.tokens_searchable, int):
        return msgspec.structs.replace(result, tokens_searchable=min(result.tokens, MOST_TOKENS))
    return result


async def _unsearchable(service: Service, caller: Caller, space: Space, entry: Entry) -> tuple[Result, Record | None]:
    """Return the result and the record of a stored entry that is not searchable yet; no owner and no record when it
    cannot be read."""
    try:
        record = await service.store.get(entry.namespace, entry.cid)
    except TruthUnavailable:
        record = None
    result = Result(cid=entry.cid) if record is None else _result(service, caller, space, entry, record)
    return msgspec.structs.replace(result, searchable=False), record


def _result(service: Service, caller: Caller, space: Space, entry: Entry, record: Record) -> Result:
    if (
        entry.validity != ALWAYS
        and succession.may_succeed(entry.namespace, entry.owner, record.owner)
        and succession.has_other_text(record, entry)
    ):
        return Result(error=_OTHER_TEXT, code="other_text")
    holds = ALWAYS != entry.validity == record.validity
    return Result(
        cid=entry.cid,
        owner=None if record.owner is None else ss58.encode(record.owner),
        owner_reason=_not_the_senders(caller, space, record) or msgspec.UNSET,
        text_kept=msgspec.UNSET if _keeps_text(service, caller, space, entry, record) else False,
        superseded_by=record.superseded_by or msgspec.UNSET,
        current=record.is_current(service.clock.now()) if holds else msgspec.UNSET,
    )


def _is_found(service: Service, result: Result, record: Record) -> bool:
    """Return whether searches find all that the answer to an ingest says of a text."""
    if result.searchable is False or result.text_kept is False or not record.is_current(service.clock.now()):
        return False
    if isinstance(result.tokens, int) and isinstance(result.tokens_searchable, int):
        return result.tokens_searchable == min(result.tokens, MOST_TOKENS)
    return True


def _not_the_senders(caller: Caller, space: Space, record: Record) -> str | None:
    """Return why a sent record does not belong to its sender; None when it does."""
    sender = caller.signer or space.owner
    if sender is None:
        code = caller.doubt_code
        return f"signature_{_DOUBTS.get(code, code)}" if code else "unsigned"
    if record.owner is None:
        return "stored_first_unsigned"
    return None if record.owner == sender else "stored_first_by_other"


def _keeps_text(service: Service, caller: Caller, space: Space, entry: Entry, record: Record) -> bool:
    """Return whether the stored text is the one that was sent; an existing record with this CID stays as it is.

    A caller who may not see the stored text does not learn whether it is the same.
    """
    if entry.text is None or (caller.signer is None and not space.is_private):
        return True
    if space.is_private or caller.signer in (service.gate.controller, record.owner):
        return record.text == entry.text
    return False


def _entry(service: Service, caller: Caller, space: Space, checked: IngestInput, embedding: bytes) -> Entry:
    embedding = service.as_stored(space, embedding)
    cid = cids.compute(embedding, checked.metadata, checked.model_version)
    return Entry(
        *(space.key, cid, embedding, checked.text, checked.metadata, checked.model_version),
        owner=caller.signer or space.owner,
        validity=checked.validity,
        made_here=checked.embedding is None,
        superseded_by=checked.superseded_by,
    )


async def _with_validity(service: Service, caller: Caller, space: Space, checked: IngestInput) -> IngestInput:
    """Return what is to be stored, with the key of the record that it supersedes where it names none itself.

    Raises InvalidInput unless the caller may say this about a record that it stores.
    """
    validity = checked.validity
    named = "key" if validity.key else "supersedes" if validity.supersedes else "superseded_by"
    says = validity.key or validity.supersedes or checked.superseded_by
    if space.key == PUBLIC and caller.signer is None and says:
        raise InvalidInput(f"{named} says what replaces a record of yours: in the public namespace, sign the request.")
    if validity.supersedes is not None and checked.superseded_by is None:
        there = await service.store.get(space.key, validity.supersedes)
        if there is None or not succession.may_succeed(space.key, caller.signer, there.owner):
            raise InvalidInput(
                f"supersedes names {validity.supersedes}, which is no record of yours in this namespace."
            )
        validity = msgspec.structs.replace(validity, key=validity.key or there.validity.key)
    return msgspec.structs.replace(checked, validity=validity)


async def _require_right_to_delete(service: Service, caller: Caller, space: Space, cid: str) -> None:
    """Raise Refused unless the caller may delete the record.

    A version 1 namespace signature, which fits any request for a minute, is not enough.
    """
    if not space.is_private:
        owner = (await held_record(service, PUBLIC, cid)).owner
        service.gate.require_controller_or(owner, caller)
    elif not space.bound:
        text = "Deleting must be signed: the body, or the namespace with namespace_sig_version 2."
        raise Refused(401, "missing_signature", text)
    elif space.owner is None:
        return  # opened by a key, so there is no signature
    if caller.fields.get("cid") != cid:
        raise Refused(401, "cid_not_signed", "The signed body must name the cid that is deleted.")
