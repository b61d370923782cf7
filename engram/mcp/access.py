"""Who may call an MCP server over HTTP: Host and Origin first, then loopback or a token.

| request                                                        | caller                                 |
|----------------------------------------------------------------|----------------------------------------|
| Host that is not ours                                          | 421                                    |
| Origin that is not ours                                        | 403                                    |
| a valid bearer token of a permitted key                        | that key, with the token's scopes      |
| an invalid, expired or revoked token                           | 401 `invalid_token`                    |
| no token; from loopback, to a loopback name, through no proxy  | this machine, if the server is open to it |
| no token; anyone else                                          | anonymous, with what is open to all, else 401 |
"""

import hashlib
from collections.abc import Awaitable, Callable, Collection
from typing import Final, final

import msgspec

from engram.clock import Clock
from engram.hotkeys import Noted, PublicKey, ReplayStore
from engram.mcp import rules, tokens
from engram.mcp.model import Caller, Scope
from engram.mcp.tokens import Claims, TokenRefused

FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers of proxies: behind one, a loopback peer is not the client."""
AHEAD_S: Final = 2
"""How far ahead of ours the clock of a signer of one request may be."""
ALL: Final[frozenset[Scope]] = frozenset({"read", "write"})

Headers = list[tuple[str, str]]


@final
class Denied(Exception):
    """The request is refused before any message is read; `challenge` is for WWW-Authenticate."""

    def __init__(self, status: int, code: str, message: str, challenge: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.challenge = challenge


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what on one server."""

    hosts: Collection[str] = ()
    """Names, or name:port in lower case, that the server is reached by, beside loopback names."""
    loopback: frozenset[Scope] = ALL
    """What programs on this machine may do without a token."""
    anyone: frozenset[Scope] = frozenset()
    """What is open to all."""
    signed: frozenset[Scope] = ALL
    """The most that a token can give."""
    permitted: Callable[[PublicKey], bool] = lambda key: False
    """Whether tokens of a key are taken."""


@final
class Access:
    """Decides on requests."""

    def __init__(
        self,
        policy: Policy,
        clock: Clock,
        is_revoked: Callable[[PublicKey, str], Awaitable[bool]],
        replays: ReplayStore | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._is_revoked = is_revoked
        self._replays = replays if replays is not None else ReplayStore()
        self._started = clock.now()

    async def caller(self, headers: Headers, client: str, body: bytes) -> Caller:
        """Return who sent a request. Raises Denied, and what `is_revoked` raises."""
        policy = self._policy
        first = self.ours(headers)
        if "authorization" in first:
            key, claims = await self.claims(headers, body)
            scopes: frozenset[Scope] = frozenset(each for each in claims.scope if each != "revoke")
            names = None if claims.namespaces is None else frozenset(claims.namespaces)
            return Caller(key=key, scopes=(scopes & policy.signed) | policy.anyone, namespaces=names)
        local = rules.is_loopback_address(client) and rules.is_loopback_name(first["host"])
        if local and policy.loopback and not any(name in first for name in FORWARDED):
            return Caller(scopes=policy.loopback)
        if policy.anyone:
            return Caller(scopes=policy.anyone)
        raise _refused("a bearer token is needed: engram mcp token", code="token_missing")

    def ours(self, headers: Headers) -> dict[str, str]:
        """Return the first header of each name of a request for this server. Raises Denied for one that is not."""
        first = dict(reversed(headers))
        if not rules.host_is_ours(first.get("host"), self._policy.hosts):
            raise Denied(421, "host", "this server has other names: mcp.hosts lists them")
        if not rules.origin_is_ours(first.get("origin"), self._policy.hosts):
            raise Denied(403, "origin", "pages of this origin may not call")
        return first

    async def claims(self, headers: Headers, body: bytes) -> tuple[PublicKey, Claims]:
        """Return who signed the token of a request, and what it says. Raises Denied, and what `is_revoked` raises."""
        first = dict(reversed(headers))
        scheme, _, token = first.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _refused("Authorization must be Bearer and a token: engram mcp token")
        audiences = frozenset({first.get("host", "").lower()})
        try:
            key, claims = tokens.read(token.strip(), audiences=audiences, now=self._clock.now())
        except TokenRefused as refused:
            raise _refused(str(refused)) from None
        if not self._policy.permitted(key):
            raise Denied(403, "not_permitted", f"{claims.key} may not call this server")
        if claims.body is not None:
            self._take_once(key, claims, body)
        if await self._is_revoked(key, claims.id):
            raise _refused("the token was revoked")
        return key, claims

    def _take_once(self, key: PublicKey, claims: Claims, body: bytes) -> None:
        """Take a token for one request. What was taken before the start is not remembered, so it waits that long."""
        if hashlib.sha256(body).hexdigest() != claims.body:
            raise _refused("the token is for another body")
        if claims.iat < self._started + AHEAD_S:
            raise Denied(503, "busy", f"the server has just started: sign again in {AHEAD_S} s")
        now_ms = int(self._clock.now() * 1000)
        if claims.iat * 1000 > now_ms + AHEAD_S * 1000:
            raise _refused("the token is from the future: set the clock of the machine that made it")
        match self._replays.note(key + bytes.fromhex(claims.id), expires_ms=claims.exp * 1000, now_ms=now_ms):
            case Noted.NEW:
                return
            case Noted.FULL:
                raise Denied(503, "busy", "too many signed requests are remembered: try again in a minute")
            case Noted.SEEN | Noted.FORGOTTEN:
                raise _refused("the token was used before")


def _refused(message: str, *, code: str = "invalid_token") -> Denied:
    quoted = message.replace('"', "'")
    more = "" if code == "token_missing" else f', error="{code}", error_description="{quoted}"'
    return Denied(401, code, message, f'Bearer realm="engram-mcp"{more}')
