"""Encoded answers, kept until their subnet is read anew."""

import hashlib
from collections import OrderedDict
from typing import final

import msgspec

from engram.chain.model import Metagraph

BODIES_KEPT = 64
"""The one least recently asked for goes first."""


class EncodedBody(msgspec.Struct, frozen=True):
    """A JSON body and its strong entity tag."""

    metagraph: Metagraph
    etag: str
    body: bytes


@final
class Bodies:
    """At most 64 encoded bodies, by subnet and selection of fields; one of an older block is never given out."""

    def __init__(self) -> None:
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
