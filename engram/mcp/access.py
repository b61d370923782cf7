"""Who may call an MCP server over HTTP: Host and Origin first, then loopback or a token.

A server's names are those configured, the address that it is bound to, and for a peer on loopback those of loopback. A
token is for one of them with the server's own port, whatever Host the client writes.

| request                                                        | caller                                 |
|----------------------------------------------------------------|----------------------------------------|
| Host that is not ours                                          | 421                                    |
| Origin that is not ours                                        | 403                                    |
| a valid bearer token of a permitted key                        | that key, with the token's scopes      |
| an invalid, expired or revoked token                           | 401 `invalid_token`                    |
| no token; from loopback, to a loopback name, with no header of a proxy | this machine, if the server is open to it |
| no token; anyone else                                          | anonymous, with what is open to all, else 401 |
"""

import hashlib
from collections.abc import Awaitable, Callable, Collection
from typing import Final, final

import msgspec

from engram.clock import Clock
from engram.hotkeys import Noted, PublicKey, ReplayStore
from engram.http.request import Request
from engram.mcp import rules, tokens
from engram.mcp.model import Caller, Scope
from engram.mcp.tokens import Claims, TokenRefused

FORWARDED: Final = (
    *("forwarded", "via", "x-forwarded", "x-real-", "x-client-"),
    *("x-original-", "x-envoy-", "cf-", "true-client-"),
)
"""How headers of proxies begin: behind one, a loopback peer is not the client. Some proxies send none of them."""
AHEAD_S: Final = 2
"""How far ahead of ours the clock of a signer of one request may be."""
ALL: Final[frozenset[Scope]] = frozenset({"read", "write"})

Headers = list[tuple[str, str]]


class Arrived(msgspec.Struct, frozen=True):
    """What is known of a request before its message is read."""

    headers: Headers
    """In lower case, in the order received."""
    client: str
    """The address of the client, as seen behind trusted proxies."""
    body: bytes
    bound: tuple[str, int] | None = None
    """Address and port that the server is bound to; None where it is on no network."""

    @classmethod
    def of(cls, request: Request) -> "Arrived":
        """Return what is known of an HTTP request."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.lines]
        return cls(headers, request.exchange.client, request.body, request.scope.get("server"))


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
    """Names, or name:port in lower case, that the server is reached by, beside the address that it is bound to."""
    named_by: str = "its configuration"
    """What an operator adds a name to."""
    loopback: frozenset[Scope] = frozenset()
    """What programs on this machine may do without a token, and whoever reaches it through a proxy on this machine that
    says nothing of itself."""
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

    async def caller(self, arrived: Arrived) -> Caller:
        """Return who sent a request. Raises Denied, and what `is_revoked` raises."""
        policy = self._policy
        first = self.ours(arrived)
        if "authorization" in first:
            key, claims = await self.claims(arrived)
            scopes: frozenset[Scope] = frozenset(each for each in claims.scope if each != "revoke")
            names = None if claims.namespaces is None else frozenset(claims.namespaces)
            return Caller(key=key, scopes=(scopes & policy.signed) | policy.anyone, namespaces=names)
        local = rules.is_loopback_address(arrived.client) and rules.is_loopback_name(first["host"])
        if local and policy.loopback and not any(name.startswith(FORWARDED) for name in first):
            return Caller(scopes=policy.loopback)
        if policy.anyone:
            return Caller(scopes=policy.anyone)
        raise _refused("a bearer token is needed: engram mcp token", code="token_missing")

    def ours(self, arrived: Arrived) -> dict[str, str]:
        """Return the first header of each name of a request for this server. Raises Denied for one that is not."""
        first = dict(reversed(arrived.headers))
        names = rules.names_of(self._policy.hosts, arrived.bound, local=rules.is_loopback_address(arrived.client))
        if not rules.host_is_ours(first.get("host"), names):
            text = f"this server is not known as {first.get('host', '')[:100]!r}: add that to {self._policy.named_by}"
            raise Denied(421, "host", text)
        if not rules.origin_is_ours(first.get("origin"), names):
            raise Denied(403, "origin", "pages of this origin may not call")
        return first

    async def claims(self, arrived: Arrived) -> tuple[PublicKey, Claims]:
        """Return who signed the token of a request, and what it says. Raises Denied, and what `is_revoked` raises."""
        first = dict(reversed(arrived.headers))
        scheme, _, token = first.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _refused("Authorization must be Bearer and a token: engram mcp token")
        local = rules.is_loopback_address(arrived.client)
        audiences = rules.audiences_of(self._policy.hosts, arrived.bound, local=local)
        try:
            key, claims = tokens.read(token.strip(), audiences=audiences, now=self._clock.now())
        except TokenRefused as refused:
            raise _refused(str(refused)) from None
        if not self._policy.permitted(key):
            raise Denied(403, "not_permitted", f"{claims.key} may not call this server")
        if claims.body is not None:
            self._take_once(key, claims, arrived.body)
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
    more = "" if code == "token_missing" else f', error="{code}", error_description="{rules.quotable(message)}"'
    return Denied(401, code, message, f'Bearer realm="engram-mcp"{more}')
