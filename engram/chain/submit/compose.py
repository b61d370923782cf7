"""Composes and signs extrinsics by bittensor-core; substrate.py does it by substrate-interface."""

from typing import Protocol, final

from engram.chain.read.runtime import Era, RuntimeCall, RuntimeTypes, SignedExtrinsic
from engram.hotkeys import Keypair


class Composer(Protocol):
    """Composes and signs. The key never leaves the process."""

    async def compose(
        self, call: RuntimeCall, keypair: Keypair, nonce: int, era: Era, genesis: bytes
    ) -> SignedExtrinsic:
        """Return the signed extrinsic. Raises CallNotComposable when the runtime does not have the call as given."""
        ...


@final
class CoreComposer:
    """Composes by bittensor-core and the runtime's metadata, in under 1 ms and without requests."""

    def __init__(self, types: RuntimeTypes) -> None:
        self._types = types

    async def compose(
        self, call: RuntimeCall, keypair: Keypair, nonce: int, era: Era, genesis: bytes
    ) -> SignedExtrinsic:
        """See Composer."""
        octets = self._types.compose(call)
        signature = keypair.sign(self._types.signature_payload(octets, nonce, era, genesis))
        return self._types.extrinsic(octets, keypair.public_key, signature, nonce, era)
