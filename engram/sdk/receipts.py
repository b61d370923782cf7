"""Checks the receipts of a node."""

import msgspec

from engram import wire
from engram.api import node_model as model
from engram.api.node_model import Maybe, known
from engram.hotkeys import PublicKey, certificates, ss58
from engram.hotkeys.certificates import CertificateRefused
from engram.memory.proof import keyed_tree, receipts
from engram.memory.proof.receipts import Deed
from engram.sdk.errors import Impostor, NodeRefused

FRESH_S = 600
"""How far the time of a receipt may be from the client's clock."""


class CheckedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that holds: the node signed it, and its proof leads to the root in it.

    `signed`, `signature` (hex) and `certificate` are what to keep, to show later what the node claimed.
    """

    cid: str
    searchable: bool
    root_hex: str
    count: int
    at_ms: int
    signed: str
    signature: str
    certificate: str | None = None


def checked(
    given: Maybe[model.SignedReceipt | None],
    deed: Deed,
    namespace: str,
    cid: str,
    *,
    node: PublicKey,
    at: float,
    owner: str = "",
    key: str = "",
    session_id: str | None = None,
) -> CheckedReceipt:
    """Return a receipt of the node with that hotkey about that deed, at that time (unix seconds).

    Without a `key` that of the record is not checked: it may have one from before, or that of what it supersedes.

    Raises Impostor when it does not hold, NodeRefused (with the `cid`) when the node gave none: the deed is done.
    """
    found = known(given)
    if found is None:
        raise NodeRefused(f"{cid} is {deed}, and the node gave no receipt of it", code="no_receipt", cid=cid)
    claimed = receipts.Receipt(
        deed=deed,
        namespace=namespace,
        cid=cid,
        owner=owner,
        key_digest=receipts.key_digest(key) or receipts.digest_in(found.signed, deed, namespace, cid, owner),
        searchable=found.searchable,
        root_hex=found.root_hex,
        count=found.count,
        at_ms=found.at_ms,
    )
    certificate = known(found.certificate)
    try:
        signature = bytes.fromhex(found.signature.removeprefix("0x"))
        certificates.require_signed(node, claimed.message(), signature, certificate, at=at, session_id=session_id)
        shown = wire.decode(found.proof, keyed_tree.Shown)
        is_there = keyed_tree.verify(shown, cid, bytes.fromhex(found.root_hex)) is not None
    except (ValueError, CertificateRefused, msgspec.DecodeError, RecursionError) as error:
        raise Impostor(f"the receipt of {ss58.encode(node)} for {cid} does not hold: {error}") from None
    if is_there != (deed == "stored"):
        raise Impostor(f"the receipt of {ss58.encode(node)} says that {cid} is {deed}, and its proof the opposite")
    if abs(found.at_ms / 1000 - at) > FRESH_S:
        raise Impostor(f"the receipt of {ss58.encode(node)} is of {found.at_ms} ms, more than {FRESH_S} s from now")
    return CheckedReceipt(
        cid=cid,
        searchable=found.searchable,
        root_hex=found.root_hex,
        count=found.count,
        at_ms=found.at_ms,
        signed=claimed.message().decode(),
        signature=found.signature,
        certificate=certificate,
    )
