"""How a node shows by which key it signs, to a nonce that the asking side made: an old answer is none.

The signature is by the key that is shown, over the words `engram-node-identity-1` and nonce, hotkey, shown key, box
key, session id and launch token, each behind its length in 4 bytes.
"""

from typing import Final

import msgspec

from engram.hotkeys.keypair import Keypair, verify
from engram.hotkeys.ss58 import PublicKey

NONCE_BYTES: Final = 32
_DOMAIN: Final = b"engram-node-identity-1"


class Introduction(msgspec.Struct, frozen=True, kw_only=True):
    """What a node shows. Keys are 32 bytes; `box_key` is empty where the node has its hotkey."""

    hotkey: PublicKey
    key: PublicKey
    """By which it signs: its session key, or its hotkey."""
    box_key: bytes
    session_id: str
    launch_token: str


def message(introduction: Introduction, nonce: bytes) -> bytes:
    """Return the bytes that are signed."""
    parts = (
        *(nonce, introduction.hotkey, introduction.key, introduction.box_key),
        *(introduction.session_id.encode(), introduction.launch_token.encode()),
    )
    return _DOMAIN + b"".join(len(part).to_bytes(4) + part for part in parts)


def sign(keypair: Keypair, introduction: Introduction, nonce: bytes) -> bytes:
    """Return the signature; `keypair` is the shown key's."""
    return keypair.sign(message(introduction, nonce))


def holds(introduction: Introduction, nonce: bytes, signature: bytes) -> bool:
    """Return whether the shown key signed the introduction to this nonce."""
    return verify(introduction.key, message(introduction, nonce), signature, allow_wrapped=False)
