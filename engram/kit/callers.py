"""Who calls: proven by a signature, or named by the proxy on this machine that has proven it."""

import ipaddress
from typing import Final, final

import msgspec

from engram.clock import Clock
from engram.hotkeys import AuthError, MalformedHotkey, PublicKey, ReplayStore, Verifier, profiles, ss58
from engram.http.request import Request
from engram.kit.settings import MinerSettings
from engram.proxy.authorization import ChainView, Policy, Refuses, decide
from engram.proxy.exchange.heads import is_signature

BY_PROXY: Final = b"x-epistula-caller"
_X_EPISTULA: Final = b"x-epistula-"


class Caller(msgspec.Struct, frozen=True):
    """A validator whose request is proven and who may call."""

    hotkey: str
    """SS58 address."""
    scheme: str
    """How the request was signed; `proxy` where the proxy has verified it."""


class NotAuthorized(Exception):
    """The caller is proven and may not call."""

    def __init__(self, refused: Refuses) -> None:
        super().__init__(refused.message)
        self.refused = refused


@final
class Callers:
    """Identifies the caller of each request."""

    def __init__(
        self, settings: MinerSettings, chain: ChainView, clock: Clock, *, started_ms: int | None = None
    ) -> None:
        """Take when the process started, in unix ms (None: now): requests stamped before are refused."""
        callers = settings.callers
        self._behind_proxy = settings.serve.behind_proxy
        self._chain = chain
        self._clock = clock
        self._policy = Policy(
            allowed=frozenset(ss58.decode(address) for address in callers.allowed),
            denied=frozenset(),
            min_stake=callers.min_stake,
            unit=callers.stake_unit,
            source="settings file",
            max_age_s=callers.cache_duration_s,
            has_chain=bool(callers.chain_endpoint),
        )
        self.takes_x_epistula_alone = set(callers.schemes) == {"x-epistula"}
        """Whether a request without any signature lacks the headers of that scheme."""
        self._verifier = Verifier(
            [profiles.STRICT[name] for name in callers.schemes],
            started_ms=self._now_ms() if started_ms is None else started_ms,
            replays=ReplayStore(),
            self_key=settings.hotkey,
        )

    def identify(self, request: Request) -> Caller:
        """Return the caller. Raises AuthError, NotAuthorized."""
        if self._behind_proxy and (named := self._named_by_proxy(request)) is not None:
            return Caller(named, "proxy")
        signed = self._verifier.request(
            request.lines,
            method=request.method,
            raw_path=request.raw_path,
            body=request.body,
            now_ms=self._now_ms(),
        )
        decision = decide(self._policy, self._chain, signed.public_key)
        if isinstance(decision, Refuses):
            raise NotAuthorized(decision)
        return Caller(ss58.encode(signed.public_key), signed.scheme)

    def _named_by_proxy(self, request: Request) -> str | None:
        """Return the caller that the proxy names; a request with a signature of its own is judged by that."""
        named = [value for name, value in request.lines if name == BY_PROXY]
        if not named or _is_signed(request) or not _is_loopback(request):
            return None
        if len(named) > 1:
            raise AuthError("duplicate_header", "X-Epistula-Caller is there twice")
        try:
            key: PublicKey = ss58.decode(named[0].decode("ascii"))
        except (MalformedHotkey, UnicodeDecodeError):
            raise AuthError("malformed", "X-Epistula-Caller is no SS58 address") from None
        return ss58.encode(key)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def is_x_epistula(request: Request) -> bool:
    """Return whether a request has that scheme's headers."""
    return any(name.startswith(_X_EPISTULA) and name != BY_PROXY for name, _ in request.lines)


def _is_signed(request: Request) -> bool:
    """Return whether a request bears a signature: what comes through the proxy has lost its own there."""
    return any(name != BY_PROXY and is_signature(name, value) for name, value in request.lines)


def _is_loopback(request: Request) -> bool:
    peer = request.scope.get("client") or ("", 0)
    try:
        return ipaddress.ip_address(peer[0]).is_loopback
    except ValueError:
        return False
