"""Signs receipts of what was stored and deleted, for those who ask for one."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import structlog
from msgspec import UNSET

from engram.api.node_model import SignedReceipt
from engram.hotkeys import ss58
from engram.memory.errors import InvalidRequest, TruthUnavailable
from engram.memory.model import Record
from engram.memory.proof.receipts import Deed, Receipt, key_digest
from engram.miner.auth import Space
from engram.miner.errors import Refused
from engram.miner.service import Service

_log = structlog.get_logger("engram.miner")


def is_wanted(fields: Mapping[str, object]) -> bool:
    """Read whether a receipt is asked for. Raises InvalidRequest."""
    wanted = fields.get("receipt")
    if not isinstance(wanted, bool | None):
        raise InvalidRequest("receipt must be true or false.")
    return bool(wanted)


def require_none(fields: Mapping[str, object]) -> None:
    """Raise InvalidRequest for a batch or an item of one that asks for a receipt."""
    if is_wanted(fields):
        raise InvalidRequest("A batch gives no receipts: store or delete singly what needs one.")


async def of_stored(service: Service, space: Space, record: Record, *, searchable: bool) -> SignedReceipt | None:
    """Return a receipt of a stored record, as `_signed` does; `searchable` says whether searches find it now."""
    owner = "" if record.owner is None else ss58.encode(record.owner)
    digest = key_digest(record.validity.key or "")
    return await _signed(service, space, "stored", record.cid, owner, digest, searchable=searchable)


async def of_deleted(service: Service, space: Space, cid: str) -> SignedReceipt | None:
    """Return a receipt of a deletion, as `_signed` does."""
    return await _signed(service, space, "deleted", cid, "", "", searchable=False)


async def _signed(
    service: Service, space: Space, deed: Deed, cid: str, owner: str, digest: str, *, searchable: bool
) -> SignedReceipt | None:
    """Return a receipt with its proof; None when the node cannot sign now.

    The deed is done and durable by then, so what keeps the node from signing is logged and never told as its failure.
    """
    try:
        await service.soundness.require_all(space.key)
        tree = await service.commitment.of(space.key)
        claimed = Receipt(
            deed=deed,
            namespace=space.name,
            cid=cid,
            owner=owner,
            key_digest=digest,
            searchable=searchable,
            root_hex=tree.root.hex(),
            count=len(tree),
            at_ms=int(service.clock.now() * 1000),
        )
        signed = service.identity.signer.sign(claimed.message())
    except (TruthUnavailable, Refused) as error:
        _log.warning("receipt_not_signed", reason=str(error))
        return None
    return SignedReceipt(
        searchable=claimed.searchable,
        root_hex=claimed.root_hex,
        count=claimed.count,
        at_ms=claimed.at_ms,
        signed=claimed.message().decode(),
        signature=signed.text,
        certificate=signed.certificate or UNSET,
        proof=msgspec.json.encode(tree.show(cid)).decode(),
    )
