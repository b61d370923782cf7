"""The key by which a node signs: its hotkey, or a session key where the hotkey stays with the gateway."""

from __future__ import annotations

from typing import final

from engram.hotkeys import Keypair, PublicKey, ss58


@final
class Signer:
    """Signs for the node whose hotkey is `hotkey`, which need not be the key that signs."""

    def __init__(self, hotkey: PublicKey, keypair: Keypair) -> None:
        self.hotkey = hotkey
        self.address = ss58.encode(hotkey)
        """The hotkey as SS58."""
        self._keypair = keypair

    @classmethod
    def with_hotkey(cls, keypair: Keypair) -> Signer:
        """Return the signer of a node that has its hotkey."""
        return cls(keypair.public_key, keypair)

    @classmethod
    def with_session_key(cls, hotkey: PublicKey) -> Signer:
        """Return a signer with a new session key. The key is only ever in this process's memory."""
        return cls(hotkey, Keypair.generate())

    @property
    def has_hotkey(self) -> bool:
        """Whether the key that signs is the hotkey itself."""
        return self._keypair.public_key == self.hotkey

    @property
    def own_hotkey(self) -> Keypair | None:
        """The hotkey's pair, or None where the gateway keeps it."""
        return self._keypair if self.has_hotkey else None

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, 64 bytes."""
        return self._keypair.sign(message)
