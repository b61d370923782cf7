"""Why a receiver refuses a payload: each code once, in the order of the checks. judging.py and docs/relay.md derive.

403 says something about the settings of sender and receiver, so a sender keeps its payloads; 425 and 429 mean: again
later.
"""

from typing import Final

import msgspec


class Refusal(msgspec.Struct, frozen=True):
    """One row: a code, its HTTP status, and what is wrong with the payload."""

    code: str
    status: int
    meaning: str


REFUSALS: Final = (
    Refusal("payment_required", 402, "is of a signer that has no submission left, where submissions cost money"),
    Refusal("schema", 422, "is no payload of a schema that is known"),
    Refusal("from_the_future", 425, "is more than two minutes ahead of the receiver's clock"),
    Refusal("too_old", 410, "is older than `xeris.keep_days`"),
    Refusal("output_hash", 422, "has an output_hash that is not that of its output"),
    Refusal("nonce", 422, "has a nonce that does not name its block"),
    Refusal("signature", 422, "is not signed by the key that it names, over what it says"),
    Refusal("cosignature", 422, "has a co-signature that does not hold, or a key twice, however it is spelled"),
    Refusal("too_many", 429, "is of a key that submits more than `http.requests_per_minute_per_hotkey`"),
    Refusal("subnet", 403, "is of a subnet that is none of `xeris.netuids`"),
    Refusal("nonce_used", 409, "came with a nonce that another payload had"),
    Refusal("equivocation", 409, "is a second output of one block by one of its signers"),
    Refusal("gaps", 422, "is a gap marker, and its signer has had 256 of its block accepted"),
    Refusal("unknown_gateway", 403, "is of memory, and its signer is none of `xeris.gateways`"),
    Refusal("not_final", 425, "is of a gateway, and of a block above the chain's finalized head (yet)"),
    Refusal("root", 422, "is of memory, and a node did not sign the root that it names"),
    Refusal("at_work", 425, "came a moment ago, and the chain is still being read for it"),
    Refusal("permits_unknown", 425, "is of a block whose permits were not recorded and cannot be read (yet)"),
    Refusal("no_permit", 422, "is signed by a key that held no validator permit at its block"),
    Refusal("anchor_root", 422, "is an anchor whose root is not that of its leaves"),
    Refusal("anchor_leaves", 422, "is an anchor of outputs that were not accepted from its signer"),
    Refusal("commitment_unknown", 425, "is an anchor whose commitment cannot be read on the chain (yet)"),
    Refusal("commitment_other", 422, "is an anchor, and its signer committed another root, or none, in its block"),
    Refusal("quorum", 422, "is signed by fewer than `xeris.quorum` validators"),
)
STATUS: Final = {each.code: each.status for each in REFUSALS}


def table() -> str:
    """Return the rows as the Markdown table of docs/relay.md."""
    rows = [f"| `{each.code}` | {each.status} | {each.meaning} |" for each in REFUSALS]
    return "\n".join(["| code | status | the payload |", "|---|---|---|", *rows])
