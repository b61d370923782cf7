"""The key by which a node signs: its hotkey, or a session key where the hotkey stays with the gateway."""

from __future__ import annotations

from typing import final

import msgspec

from engram.hotkeys import Keypair, PublicKey, certificates, node_identity, sealed, ss58
from engram.hotkeys.certificates import Certificate, CertificateRefused
from engram.hotkeys.node_identity import Introduction
from engram.hotkeys.sealed import BoxKey
from engram.miner.errors import Refused


class Signed(msgspec.Struct, frozen=True):
    """A signature and what makes it the node's."""

    signature: bytes
    certificate: str | None
    """None: the hotkey itself signed."""

    @property
    def text(self) -> str:
        """The signature as answers spell it."""
        return "0x" + self.signature.hex()


@final
class Signer:
    """Signs for the node whose hotkey is `hotkey`, which need not be the key that signs."""

    def __init__(self, hotkey: PublicKey, keypair: Keypair, box: BoxKey | None = None) -> None:
        self.hotkey = hotkey
        self.address = ss58.encode(hotkey)
        """The hotkey as SS58."""
        self.certificate: str | None = None
        self.ends_at: float | None = None
        """When the session ends, by the last certificate."""
        self._keypair = keypair
        self._box = box
        self._held: Certificate | None = None

    @classmethod
    def with_hotkey(cls, keypair: Keypair) -> Signer:
        """Return the signer of a node that has its hotkey."""
        return cls(keypair.public_key, keypair)

    @classmethod
    def with_session_key(cls, hotkey: PublicKey) -> Signer:
        """Return a signer with new keys. They are only ever in this process's memory."""
        return cls(hotkey, Keypair.generate(), BoxKey())

    @property
    def own_hotkey(self) -> Keypair | None:
        """The hotkey's pair, or None where the gateway keeps it."""
        return self._keypair if self._box is None else None

    def introduction(self, session_id: str, launch_token: str) -> Introduction:
        """Return what the node shows to whoever asks who it is."""
        return Introduction(
            hotkey=self.hotkey,
            key=self._keypair.public_key,
            box_key=b"" if self._box is None else self._box.public,
            session_id=session_id,
            launch_token=launch_token,
        )

    def introduce(self, introduction: Introduction, nonce: bytes) -> bytes:
        """Return the signature of the introduction to that nonce."""
        return node_identity.sign(self._keypair, introduction, nonce)

    def sign(self, message: bytes) -> Signed:
        """Return the signature of `message`. Raises Refused (503) while a session key has no certificate."""
        if self._box is not None and self.certificate is None:
            raise Refused(503, "not_certified", "The gateway has not certified this node's key yet; try again.")
        return Signed(self._keypair.sign(message), self.certificate)

    def accept(self, text: str, shown: Introduction, content: bytes, at: float) -> bytes:
        """Take a certificate of this node's session key, and return the secrets that came with it, opened.

        `at` is the node's clock (unix seconds). Since it may be wrong it decides nothing but whether an older
        certificate is taken: only where the one that is held is not valid yet, as after the gateway's clock was set
        back, and the older one is. Raises Refused: for a node with its hotkey (409), another key, launch or hotkey
        (403), or what is older than the certificate that is held (409).
        """
        if self._box is None:
            raise Refused(409, "has_hotkey", "This node has its hotkey and takes no certificate.")
        try:
            found = certificates.verified(text, self.hotkey)
            is_ours = certificates.session_key_of(found) == shown.key and found.box_key == shown.box_key.hex()
        except CertificateRefused as error:
            raise Refused(403, error.code, f"{error}.") from None
        if not is_ours or (found.session_id, found.launch_token) != (shown.session_id, shown.launch_token):
            raise Refused(403, "other_node", "The certificate is of another node.")
        held = self._held
        if held is not None and found.not_before < held.not_before and not _gives_way(held, found, at):
            raise Refused(409, "older", "The node has a newer certificate.")
        if found.secrets != sealed.digest(content):
            raise Refused(403, "other_secrets", "The certificate names other secrets.")
        try:
            secrets = self._box.opened(content) if content else b""
        except ValueError as error:
            raise Refused(403, "other_secrets", f"{error}.") from None
        self._held, self.certificate, self.ends_at = found, text, float(found.ends_at)
        return secrets


def _gives_way(held: Certificate, older: Certificate, at: float) -> bool:
    return certificates.is_early(held, at) and certificates.is_current(older, at)
