"""Namespaces that are opened by a key in each request, as in the original; they have no owner."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final, final

import trio

from engram.hotkeys.python_json import JsonValue
from engram.miner.errors import Refused

_KEYS_REMEMBERED: Final = 1_024
_ROUNDS: Final = 100_000
_LEAST_CHARS: Final = 16
_MOST_CHARS: Final = 1_024


@final
class NamespaceKeys:
    """Derives the store's names of such namespaces and caches the most recently used ones."""

    def __init__(self) -> None:
        self._derived: OrderedDict[bytes, str] = OrderedDict()
        self._deriving = trio.CapacityLimiter(1)

    async def derive(self, name: str, secret: JsonValue) -> str:
        """Return the store's name (PBKDF2, 100,000 rounds). Raises Refused for a short key or a non-string."""
        if not isinstance(secret, str) or not _LEAST_CHARS <= len(secret) <= _MOST_CHARS:
            raise Refused(403, "namespace_key", f"namespace_key must have at least {_LEAST_CHARS} characters.")
        coded, salt = secret.encode("utf-8", "surrogatepass"), name.encode()
        remembered = hashlib.sha256(len(salt).to_bytes(4) + salt + coded).digest()
        if (known := self._derived.get(remembered)) is not None:
            self._derived.move_to_end(remembered)
            return known
        derived = await trio.to_thread.run_sync(
            hashlib.pbkdf2_hmac, "sha256", coded, salt, _ROUNDS, limiter=self._deriving
        )
        self._derived[remembered] = f"key:{derived.hex()}:{name}"
        if len(self._derived) > _KEYS_REMEMBERED:
            self._derived.popitem(last=False)
        return self._derived[remembered]
