"""Encoded answers, kept until their subnet is read anew."""

import hashlib
from collections import OrderedDict
from typing import final

import msgspec

from engram.chain.model import Metagraph
from engram.hotkeys import PublicKey, ss58

BODIES_KEPT = 64
"""The one least recently asked for goes first."""
ADDRESSES_KEPT = 20_000


class EncodedBody(msgspec.Struct, frozen=True):
    """A JSON body and its strong entity tag."""

    metagraph: Metagraph
    etag: str
    body: bytes


@final
class Addresses:
    """ss58 texts of public keys; the newest 20,000 are remembered, for each costs 6 µs and few ever change."""

    def __init__(self) -> None:
        self._texts: dict[PublicKey, str] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def of(self, public_key: PublicKey) -> str:
        """The address of a 32-byte key."""
        text = self._texts.get(public_key)
        if text is None:
            if len(self._texts) >= ADDRESSES_KEPT:
                self._texts.clear()
            text = self._texts[public_key] = ss58.encode(public_key)
        return text


@final
class Bodies:
    """At most 64 encoded bodies, by subnet and selection of fields; one of an older block is never given out."""

    def __init__(self) -> None:
        self.addresses = Addresses()
        self._bodies: OrderedDict[tuple[int, tuple[str, ...]], EncodedBody] = OrderedDict()

    def __len__(self) -> int:
        return len(self._bodies)

    def get(self, metagraph: Metagraph, selected: tuple[str, ...]) -> EncodedBody | None:
        """The body of this very metagraph, None when it was not encoded yet."""
        key = metagraph.netuid, selected
        kept = self._bodies.get(key)
        if kept is None or kept.metagraph is not metagraph:
            return None
        self._bodies.move_to_end(key)
        return kept

    def put(self, metagraph: Metagraph, selected: tuple[str, ...], body: bytes) -> EncodedBody:
        """Keeps a body in the place of an older one."""
        etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        encoded = EncodedBody(metagraph, etag, body)
        key = metagraph.netuid, selected
        self._bodies[key] = encoded
        self._bodies.move_to_end(key)
        if len(self._bodies) > BODIES_KEPT:
            self._bodies.popitem(last=False)
        return encoded
