"""Deleting many records in one request: one signature, one transaction, one padding."""

from __future__ import annotations

from typing import Final

from engram.memory import batch_rules
from engram.memory.store.deletions import May
from engram.miner.answers import Answer, Asked, plain, told
from engram.miner.auth import Caller, Space
from engram.miner.errors import Refused
from engram.miner.service import Service

_REASONS: Final = {
    "deleted": None,
    "not_found": "not found",
    "not_owner": "Only the controller of this node or the owner of the record may delete it.",
}


async def delete_batch(service: Service, body: bytes) -> Answer:
    """POST /DeleteBatch: takes up to 256 records out, all in one transaction; a result for each, in their order.

    As for a single one, the signed body names the CIDs; what is not there, or another's, changes nothing for the rest.
    """

    async def act(asked: Asked) -> Answer:
        caller = await service.gate.admit(body, "DeleteBatch")
        space = await service.space(asked, caller)
        may = _right_to_delete(service, caller, space)
        cids = batch_rules.check_deletions(caller.fields)
        outcomes = await service.store.delete_all(space.key, cids, may)
        results: list[dict[str, object]] = []
        for cid, outcome in zip(cids, outcomes, strict=True):
            told_of = {} if outcome == "deleted" else {"code": outcome}
            results.append({"cid": cid, "deleted": outcome == "deleted", "error": _REASONS[outcome], **told_of})
        return Answer(200, {"results": results, "deleted": outcomes.count("deleted"), "error": None})

    def form(status: int, error: str | None, **more: object) -> Answer:
        return plain(status, error, results=[], **more)

    return await told(service.disguise, act, form)


def _right_to_delete(service: Service, caller: Caller, space: Space) -> May:
    """Returns whose records the caller may delete. Raises Refused for who may delete nothing here."""
    if space.is_private:
        if not space.bound:
            text = "Deleting must be signed: the body, or the namespace with namespace_sig_version 2."
            raise Refused(401, "missing_signature", text)
        return lambda owner: True
    signer = service.gate.require_signer(caller)
    return lambda owner: signer in (service.gate.controller, owner)
