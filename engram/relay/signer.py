"""Signs payloads, and verifies signed ones."""

from collections.abc import Callable, Mapping
from typing import final

import msgspec

from engram import wire
from engram.hotkeys import Keypair, MalformedHotkey, ss58, verify
from engram.relay.rules import SIGNATURE_FIELDS, signed_hash

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
        """Sign the JSON of a payload that bears no signature; its own bytes stay as they are.

        Raises msgspec.DecodeError when it is no JSON object, ValueError when it is signed already.
        """
        document = wire.decode(payload, Document)
        if not document.keys().isdisjoint(SIGNATURE_FIELDS):
            raise ValueError(f"a payload with one of {', '.join(SIGNATURE_FIELDS)} is signed already")
        digest = signed_hash(document)
        signature = "0x" + self._sign(digest.encode("ascii")).hex()
        fields = {"validator_hotkey": self.hotkey, "signature": signature, "signed_hash": digest}
        head = payload.rstrip()[:-1] + b"," if document else b"{"
        return Signed(head + msgspec.json.encode(fields)[1:], digest)


@final
class Keyring:
    """The signers of a process, by the addresses that streams name."""

    def __init__(self, *signers: PayloadSigner) -> None:
        self._signers = {signer.hotkey: signer for signer in signers}
        self.heir = next(iter(self._signers), "")
        """ss58 of the signer that streams without one belong to, which earlier versions kept; empty: there is none."""

    def add(self, signer: PayloadSigner) -> None:
        """Add the signer of a role; the first one is the heir."""
        self._signers[signer.hotkey] = signer
        self.heir = self.heir or signer.hotkey

    def add_heir(self, signer: PayloadSigner) -> None:
        """Add the signer of a gateway, whose streams had none."""
        self.add(signer)
        self.heir = signer.hotkey

    def sign(self, payload: bytes, hotkey: str) -> Signed | None:
        """Sign as this hotkey (ss58); None when its key is not in this process. Raises as PayloadSigner.sign."""
        signer = self._signers.get(hotkey)
        return None if signer is None else signer.sign(payload)


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
