"""Revoked tokens: who signed one can end it before it expires.

`POST /mcp/revocations` takes `{"id": …, "exp": …}` with a token for this one request, of scope `revoke`, of the same
key. A revocation is kept until the token would have expired.
"""

from pathlib import Path
from typing import Annotated, Final, Protocol, final

import msgspec
import trio
from msgspec import Meta

from engram import files, wire
from engram.clock import Clock
from engram.hotkeys import PublicKey
from engram.http.request import Answer, Request, json_answer
from engram.mcp.access import Access, Denied
from engram.mcp.http import Refusal, refusal
from engram.mcp.tokens import MAX_S

PATH: Final = "/mcp/revocations"
MOST: Final = 10_000
MOST_OF_ONE_KEY: Final = 100
"""Revocations that are kept at once."""


class Revoke(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which token is revoked, and when it would have expired (unix seconds)."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    exp: Annotated[int, Meta(ge=0, lt=2**53)]


class Revoked(msgspec.Struct, frozen=True):
    """The token is not taken any more."""

    revoked: str


class TooMany(Exception):
    """The key has revoked as many tokens as are kept."""


class Revocations(Protocol):
    """Where revocations are kept; they outlive the process."""

    async def is_revoked(self, key: PublicKey, token_id: str) -> bool:
        """Return whether a token of this key was revoked."""
        ...

    async def revoke(self, key: PublicKey, token_id: str, until: float, now: float) -> None:
        """Keep a revocation until then (unix seconds). Raises TooMany."""
        ...


@final
class RevocationEndpoint:
    """Takes revocations over HTTP."""

    def __init__(self, access: Access, revocations: Revocations, clock: Clock) -> None:
        self._access = access
        self._revocations = revocations
        self._clock = clock

    async def post(self, request: Request) -> Answer:
        """Revoke a token of the key that signed the request."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.lines]
        try:
            self._access.ours(headers)
            key, claims = await self._access.claims(headers, request.body)
            if claims.body is None or "revoke" not in claims.scope:
                raise Denied(403, "insufficient_scope", "a token for this one request is needed: engram mcp revoke")
            wanted = wire.decode(request.body, Revoke)
        except Denied as denied:
            return refusal(denied)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_answer(Refusal(f"the body is id and exp of a token: {error}", "invalid"), 422)
        now = self._clock.now()
        try:
            await self._revocations.revoke(key, wanted.id, min(wanted.exp, now + MAX_S), now)
        except TooMany as error:
            return json_answer(Refusal(str(error), "too_many"), 429)
        return json_answer(Revoked(wanted.id))


class _Row(msgspec.Struct, frozen=True):
    key: str
    id: str
    until: float


@final
class RevocationFile:
    """Revocations in one JSON file, read at the start and written whole at each change."""

    def __init__(self, path: Path) -> None:
        """Raise OSError for a file that cannot be read, ValueError for one that is damaged."""
        self._path = path
        self._changing = trio.Lock()
        try:
            rows = wire.decode(path.read_bytes(), list[_Row])
        except FileNotFoundError:
            rows = []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} does not hold revoked tokens: {error}; move it away") from None
        self._rows = {(row.key, row.id): row for row in rows}

    async def is_revoked(self, key: PublicKey, token_id: str) -> bool:
        """As Revocations."""
        return (key.hex(), token_id) in self._rows

    async def revoke(self, key: PublicKey, token_id: str, until: float, now: float) -> None:
        """As Revocations. Raises OSError as well."""
        async with self._changing:
            kept = {named: row for named, row in self._rows.items() if row.until > now}
            if len(kept) >= MOST or sum(row.key == key.hex() for row in kept.values()) >= MOST_OF_ONE_KEY:
                raise TooMany(f"{MOST_OF_ONE_KEY} tokens of this key, or {MOST} in all, are revoked already")
            kept[key.hex(), token_id] = _Row(key.hex(), token_id, until)
            await trio.to_thread.run_sync(self._write, list(kept.values()))
            self._rows = kept

    def _write(self, rows: list[_Row]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.put(self._path, msgspec.json.encode(rows))
