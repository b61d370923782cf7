"""Encrypts what an agent remembers before it leaves this machine, and makes the vectors that find it again.

The key of a namespace is derived from the hotkey, so it needs no file of its own: who has the hotkey reads what it
remembered, on any machine. The vector of a text is not encrypted: it is what makes the text findable.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable, Mapping
from typing import Protocol, final

from engram.hotkeys import Keypair
from engram.hotkeys.python_json import JsonValue
from engram.mcp import ToolFailed
from engram.memory.embed.protocol import Embedder
from engram.memory.errors import EmbedderUnavailable
from engram.sdk import encryption
from engram.sdk.encryption import NamespaceCipher, Undecryptable

_CONTEXT = b"engram-agent-memory-1:"


class Starts(Protocol):
    """Starts the embedder's task, once; called at the first text, since a model takes seconds and 100 MB."""

    def __call__(self, embedder: Embedder) -> None: ...


def key_of(keypair: Keypair, namespace: str) -> str:
    """Return the key of a namespace (hex): HMAC-SHA256 of its name under the hotkey's private key."""
    return hmac.new(keypair.private_key(), _CONTEXT + namespace.encode(), hashlib.sha256).hexdigest()


@final
class Vault:
    """Encrypts and decrypts for one hotkey, in any of its namespaces."""

    def __init__(self, keypair: Keypair, embedder: Callable[[], Embedder], start: Starts) -> None:
        self._keypair = keypair
        self._make = embedder
        self._start = start
        self._embedder: Embedder | None = None
        self._ciphers: dict[str, NamespaceCipher] = {}

    async def vector(self, text: str) -> list[float]:
        """Return the vector of a text. Raises ToolFailed while there is no embedder."""
        if self._embedder is None:
            self._embedder = self._make()
            self._start(self._embedder)
        try:
            [found] = await self._embedder.embed([text])
        except EmbedderUnavailable as error:
            raise ToolFailed(f"nothing can be encrypted and found again now: {error}") from None
        return list(struct.unpack(f"<{len(found) // 4}f", found))

    def seal(self, namespace: str, text: str, metadata: Mapping[str, JsonValue]) -> str:
        """Return the ciphertext of a memory."""
        return encryption.encrypt(self._cipher(namespace), text, metadata)

    def open(self, namespace: str, sealed: str) -> encryption.Memory | None:
        """Return the memory in a ciphertext; None for one of another key."""
        try:
            return encryption.decrypt(self._cipher(namespace), sealed)
        except Undecryptable:
            return None

    def _cipher(self, namespace: str) -> NamespaceCipher:
        found = self._ciphers.get(namespace)
        if found is None:
            found = self._ciphers[namespace] = NamespaceCipher(namespace, key_of(self._keypair, namespace))
        return found
