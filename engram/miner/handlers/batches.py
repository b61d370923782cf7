"""Deletes many records in one request: one signature, one transaction, one padded answer."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from engram.api.call import Call
from engram.api.node_model import DeleteBatch, DeletedBatch, DeletedResult
from engram.memory import batch_rules
from engram.memory.store.deletions import May
from engram.miner.auth import Caller, Space
from engram.miner.errors import Refused
from engram.miner.handlers import receipts
from engram.miner.service import Service

_REASONS: Final = {
    "deleted": None,
    "not_found": "not found",
    "not_owner": "Only the controller of this node or the owner of the record may delete it.",
}


async def delete_batch(service: Service, call: Call[DeleteBatch, Caller]) -> DeletedBatch:
    """POST /DeleteBatch: delete up to 256 records in one transaction; a result for each, in order.

    The signed body names the CIDs, as for a single one. A missing record, or another owner's, does not affect the rest.
    """
    caller, space = await service.enter(call)
    may = _right_to_delete(service, caller, space)
    receipts.require_none(caller.fields)
    cids = batch_rules.check_deletions(caller.fields)
    outcomes = await service.store.delete_all(space.key, cids, may)
    results = [
        DeletedResult(
            cid=cid,
            deleted=outcome == "deleted",
            error=_REASONS[outcome],
            code=UNSET if outcome == "deleted" else outcome,
        )
        for cid, outcome in zip(cids, outcomes, strict=True)
    ]
    return DeletedBatch(results=results, deleted=outcomes.count("deleted"))


def _right_to_delete(service: Service, caller: Caller, space: Space) -> May:
    """Return a predicate for the records that the caller may delete. Raises Refused when it may delete none."""
    if space.is_private:
        if not space.bound:
            text = "Deleting must be signed: the body, or the namespace with namespace_sig_version 2."
            raise Refused(401, "missing_signature", text)
        return lambda owner: True
    signer = service.gate.require_signer(caller)
    return lambda owner: signer in (service.gate.controller, owner)
