"""What a node may ask its gateway to sign by its hotkey, for clients that know no certificates: two kinds, no others.

The gateway makes the message from these fields itself, so that it never signs bytes that a machine of somebody else
has chosen.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engram.memory import cid as cids
from engram.memory import rules
from engram.memory.errors import InvalidInput
from engram.memory.proof import proofs

WHOLE: Final = "whole"
"""The name of the root over all namespaces."""
NEAR_S: Final = 60
"""How far the time of a root may be from the gateway's own."""
LONGEST_CHALLENGE_S: Final = 600
_ASK: Final = b"engram-node-ask-1"

Hex32: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count: TypeAlias = Annotated[int, Meta(ge=0, lt=2**53)]


class RootStatement(msgspec.Struct, frozen=True, kw_only=True, tag="root", forbid_unknown_fields=True):
    """That a namespace has this root and count at that time (unix milliseconds)."""

    form: Literal["keyed-1", "legacy"]
    namespace: Annotated[str, Meta(max_length=256)]
    root_hex: Hex32
    count: Count
    at_ms: Count

    def message(self, hotkey: bytes) -> bytes:
        """Return what is signed."""
        return f"engram-commitment:{self.form}:{self.namespace}:{self.root_hex}:{self.count}:{self.at_ms}".encode()


class PossessionStatement(msgspec.Struct, frozen=True, kw_only=True, tag="possession", forbid_unknown_fields=True):
    """That the node could read a vector's bytes when it was challenged."""

    validator_hex: Hex32
    nonce_hex: Hex32
    cid: Annotated[str, Meta(max_length=128)]
    namespace: Annotated[str, Meta(max_length=256)]
    root_hex: Hex32
    count: Count
    expires_at: Count
    proof_hex: Hex32

    def message(self, hotkey: bytes) -> bytes:
        """Return what is signed."""
        challenge = proofs.Challenge(
            hotkey,
            bytes.fromhex(self.validator_hex),
            bytes.fromhex(self.nonce_hex),
            self.cid,
            self.namespace,
            bytes.fromhex(self.root_hex),
            self.count,
            self.expires_at,
        )
        return proofs.transcript(challenge) + bytes.fromhex(self.proof_hex)


Statement: TypeAlias = RootStatement | PossessionStatement


def refusal(statement: Statement, now: float) -> str | None:
    """Return why the statement is not one that a node makes at that time (unix seconds); None when it is."""
    if statement.namespace != WHOLE:
        try:
            rules.check_namespace(statement.namespace)
        except InvalidInput as error:
            return str(error)
    match statement:
        case RootStatement():
            if abs(statement.at_ms / 1000 - now) > NEAR_S:
                return f"the root is of {statement.at_ms} ms, more than {NEAR_S} s from now"
        case PossessionStatement():
            if not now - NEAR_S <= statement.expires_at <= now + LONGEST_CHALLENGE_S + NEAR_S:
                return f"the challenge expires at {statement.expires_at}"
            if not cids.is_cid(statement.cid):
                return f"{statement.cid[:80]!r} is no CID"
    return None


def ask_message(message: bytes, sent_at_ms: int) -> bytes:
    """Return what a node's session key signs to ask for the hotkey's signature of `message`."""
    return _ASK + sent_at_ms.to_bytes(8) + message
