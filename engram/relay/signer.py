"""Signs payloads, and verifies signed ones."""

from collections.abc import Callable, Mapping
from typing import final

import msgspec

from engram import wire
from engram.hotkeys import Keypair, MalformedHotkey, ss58, verify
from engram.relay.rules import signed_hash

Document = dict[str, object]


class Signed(msgspec.Struct, frozen=True):
    """A signed payload as it is sent, and the hash that was signed (hex): its idempotency key."""

    body: bytes
    signed_hash: str


@final
class PayloadSigner:
    """Adds `validator_hotkey`, `signature` and `signed_hash`, in this order, after the payload's own fields."""

    def __init__(self, hotkey: str, sign: Callable[[bytes], bytes]) -> None:
        """`hotkey` is the signer's ss58 address; `sign` its signature over a message."""
        self.hotkey = hotkey
        self._sign = sign

    @classmethod
    def of(cls, keypair: Keypair) -> "PayloadSigner":
        """Return the signer of a key pair."""
        return cls(keypair.ss58, keypair.sign)

    def sign(self, payload: bytes) -> Signed:
        """Signs the JSON of a payload; numbers and the order of fields stay as they are."""
        document = wire.decode(payload, Document)
        digest = signed_hash(document)
        signature = "0x" + self._sign(digest.encode("ascii")).hex()
        signed = {**document, "validator_hotkey": self.hotkey, "signature": signature, "signed_hash": digest}
        return Signed(msgspec.json.encode(signed), digest)


def is_signed(document: Mapping[str, object]) -> bool:
    """Return whether the payload is signed by the hotkey it names, over what it holds. Never raises."""
    hotkey, signature = document.get("validator_hotkey"), document.get("signature")
    if not isinstance(hotkey, str) or not isinstance(signature, str):
        return False
    try:
        digest = signed_hash(document)
        octets = bytes.fromhex(signature.removeprefix("0x"))
        public_key = ss58.decode(hotkey)
    except (ValueError, TypeError, RecursionError, MalformedHotkey):
        return False
    return document.get("signed_hash") == digest and verify(
        public_key, digest.encode("ascii"), octets, allow_wrapped=False
    )
