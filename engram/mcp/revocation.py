"""Revoked tokens: who signed one can end it before it expires.

`POST /mcp/revocations` takes `{"id": …, "exp": …}` with a token for this one request, of scope `revoke`, of the same
key. A revocation is kept until the token would have expired. How many there may be is bounded by key and by address.
"""

import fcntl
import os
from math import ceil
from pathlib import Path
from typing import Annotated, Final, Protocol, final

import msgspec
import trio
from msgspec import Meta

from engram import files, wire
from engram.clock import Clock
from engram.hotkeys import PublicKey
from engram.http.limits import Limiter, bucket_of
from engram.http.request import Answer, Request, json_answer
from engram.mcp.access import Access, Arrived, Denied
from engram.mcp.http import Refusal, refusal
from engram.mcp.tokens import MAX_S, SKEW_S

PATH: Final = "/mcp/revocations"
MOST_OF_ONE_KEY: Final = 100
"""Revocations of a key that are kept at once. Keys cost nothing, so no bound is shared by all of them: who has many
could else stop everyone's revocations."""
A_DAY_OF_ONE_ADDRESS: Final = 100
BURST_OF_ONE_ADDRESS: Final = 20
_DAY_MINUTES: Final = 1_440
_REWRITE_BYTES: Final = 65_536
"""From this size on a file is written anew, without what has expired, each time it has doubled."""


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
        self._limiter = Limiter(A_DAY_OF_ONE_ADDRESS / _DAY_MINUTES, BURST_OF_ONE_ADDRESS, clock.monotonic)

    async def post(self, request: Request) -> Answer:
        """Revoke a token of the key that signed the request."""
        arrived = Arrived.of(request)
        try:
            self._access.ours(arrived)
            key, claims = await self._access.claims(arrived)
            if claims.body is None or "revoke" not in claims.scope:
                raise Denied(403, "insufficient_scope", "a token for this one request is needed: engram mcp revoke")
            wanted = wire.decode(request.body, Revoke)
        except Denied as denied:
            return refusal(denied)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_answer(Refusal(f"the body is id and exp of a token: {error}", "invalid"), 422)
        if await self._revocations.is_revoked(key, wanted.id):
            return json_answer(Revoked(wanted.id))
        if wait_s := self._limiter.take(bucket_of(arrived.client)):
            text = f"{BURST_OF_ONE_ADDRESS} tokens were revoked from this address: try again in {ceil(wait_s)} s"
            return json_answer(Refusal(text, "too_many"), 429)
        now = self._clock.now()
        try:
            await self._revocations.revoke(key, wanted.id, min(wanted.exp, now + SKEW_S + MAX_S), now)
        except TooMany as error:
            return json_answer(Refusal(str(error), "too_many"), 429)
        return json_answer(Revoked(wanted.id))


class _Row(msgspec.Struct, frozen=True):
    key: str
    id: str
    until: float


class _Read(msgspec.Struct, frozen=True):
    """What the file said when it was last read."""

    version: tuple[int, int, int] = (0, 0, 0)
    """Inode, size, time of change: another one is another content."""
    until: dict[tuple[str, str], float] = {}
    """When each revoked token would have expired, by key and id."""


@final
class RevocationFile:
    """Revocations in one file, a line of JSON each, added at its end and on disk when `revoke` returns.

    Several processes may share it: each takes a lock to write, and notices what the others wrote.
    """

    def __init__(self, path: Path) -> None:
        """Raise OSError for a file that cannot be read, ValueError for one that is damaged."""
        self._path = path
        self._changing = trio.Lock()
        self._rewrite_at = 0
        self._read = _Read()
        self._read = self._now()

    async def is_revoked(self, key: PublicKey, token_id: str) -> bool:
        """As Revocations. Raises OSError and ValueError as well, when the file cannot be read any more."""
        self._read = self._now()
        return (key.hex(), token_id) in self._read.until

    async def revoke(self, key: PublicKey, token_id: str, until: float, now: float) -> None:
        """As Revocations; one that is kept already is kept. Raises OSError and ValueError as well."""
        async with self._changing:
            self._read = await trio.to_thread.run_sync(self._add, _Row(key.hex(), token_id, until), now)

    def _now(self) -> _Read:
        """Return what the file says, read again where it has changed."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return self._read
        version = found.st_ino, found.st_size, found.st_mtime_ns
        if version == self._read.version:
            return self._read
        *lines, _ = self._path.read_bytes().split(b"\n")  # what follows the last line's end was never acknowledged
        try:
            rows = [wire.decode(line, _Row) for line in lines]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{self._path} does not hold revoked tokens: {error}; move it away") from None
        return _Read(version, {(row.key, row.id): row.until for row in rows})

    def _add(self, row: _Row, now: float) -> _Read:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read = found = self._now()
            if (row.key, row.id) in found.until:
                return found
            if sum(key == row.key and until > now for (key, _), until in found.until.items()) >= MOST_OF_ONE_KEY:
                raise TooMany(f"{MOST_OF_ONE_KEY} tokens of this key are revoked already")
            if found.version[1] >= self._rewrite_at:
                kept = [_Row(*named, until) for named, until in found.until.items() if until > now]
                files.put(self._path, b"".join(map(_line, (*kept, row))))
                self._rewrite_at = max(_REWRITE_BYTES, 2 * self._path.stat().st_size)
            else:
                self._append(_line(row))
            return self._now()
        finally:
            os.close(lock)

    def _append(self, line: bytes) -> None:
        with self._path.open("r+b") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            file.seek(whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _line(row: _Row) -> bytes:
    return msgspec.json.encode(row) + b"\n"
