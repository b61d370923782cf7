"""All that the settings decide, built once for each reading of them: a request keeps the plan it began under."""

from collections.abc import Callable
from typing import Final

import msgspec

from engram.hotkeys import Keypair, PublicKey, ReplayStore, Scheme, Verifier, epistula, profiles, ss58
from engram.http.asgi import HeaderLines
from engram.http.cors import Cors
from engram.http.limits import ClientAddress
from engram.proxy.authorization import Policy, policy_of
from engram.proxy.backends.group import Group
from engram.proxy.routing import Routes
from engram.proxy.settings import Loaded, ProxySettings

HASHED: Final = frozenset({"epistula-v2", "dippy", "apex", "x-epistula"})
"""Schemes that sign a body's SHA-256: Content-Digest proves them without the body."""
_ALLOWED: Final = (
    "Content-Type",
    "Content-Digest",
    "Idempotency-Key",
    "Last-Event-ID",
    *(f"Epistula-Secret-Signature-{number}" for number in range(3)),
)
"""Request headers that the scripts of a page may send, besides those that sign."""
_EXPOSED: Final = (
    "X-Request-Id",
    "X-Job-Id",
    "X-Job-Status",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "Content-Digest",
)
"""Headers of an answer that they may read, besides those that sign it."""


class Plan(msgspec.Struct, frozen=True):
    """The settings in force, and what was made of them."""

    settings: ProxySettings
    origins: "dict[str, str]"
    self_key: PublicKey
    policy: Policy
    routes: Routes
    verifier: Verifier
    groups: dict[str, Group]
    cors: Cors
    client_address: ClientAddress
    signer: Keypair | None
    number: int = 1
    """How often settings have been read."""

    def cors_headers(self, origin: bytes) -> HeaderLines:
        """Return the CORS headers of an answer."""
        return self.cors.headers(origin) if self.settings.server.cors_origins else ()


def schemes_of(settings: ProxySettings) -> list[Scheme]:
    """Return the schemes that the settings accept, with their windows."""
    auth = settings.auth
    found = []
    for name in auth.schemes:
        lenient = name in auth.lenient_schemes
        scheme = (profiles.LENIENT if lenient else profiles.STRICT)[name]
        if name in HASHED:
            with_braces = "{}" in auth.get_body_candidates
            messages = scheme.messages
            if name in ("epistula-v2", "dippy"):
                messages = epistula.stripped_body_messages if with_braces else profiles.STRICT[name].messages
            scheme = msgspec.structs.replace(scheme, messages=messages)
            if name != "x-epistula":
                scheme = msgspec.structs.replace(scheme, past_ms=auth.allowed_delta_ms, future_ms=auth.future_delta_ms)
        found.append(scheme)
    return found


def _cors_of(settings: ProxySettings) -> Cors:
    signing = {name.title() for scheme in schemes_of(settings) for name in scheme.headers}
    answered = {name.title() for name in epistula.V2.headers} if settings.answers.sign else set()
    return Cors(
        settings.server.cors_origins, allowed=(*_ALLOWED, *sorted(signing)), exposed=(*_EXPOSED, *sorted(answered))
    )


def plan_of(
    loaded: Loaded,
    groups: dict[str, Group],
    *,
    started_ms: int,
    replays: ReplayStore,
    admit: Callable[[PublicKey], None],
    signer: Keypair | None,
    number: int,
) -> Plan:
    """Return the plan for these settings; `admit` refuses callers by raising."""
    settings = loaded.settings
    self_key = ss58.decode(settings.auth.miner_hotkey)
    return Plan(
        settings=settings,
        origins=dict(loaded.origins),
        self_key=self_key,
        policy=policy_of(settings.auth, loaded.origins.get("auth.min_stake", "the default"), ss58.decode),
        routes=Routes(settings.table()),
        verifier=Verifier(schemes_of(settings), started_ms=started_ms, replays=replays, self_key=self_key, admit=admit),
        groups=groups,
        cors=_cors_of(settings),
        client_address=ClientAddress(settings.server.trusted_proxies),
        signer=signer,
        number=number,
    )
