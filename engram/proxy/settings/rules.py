"""Which settings go together. Pure: from settings to problems, each with what would be right."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Final

from config.addresses import is_http_url, right_origin
from config.errors import Problem
from config.keys import nearest
from engram.hotkeys import MalformedHotkey, profiles, ss58
from engram.http import targets
from engram.http.errors import NotSent
from engram.proxy.settings.model import PLACEHOLDERS, BackendSettings, ProxySettings, RouteSettings

_PATH: Final = re.compile(r"/(?:[!$&-;=@-~]*)(?:/\*)?")
_HEALTH_PATH: Final = re.compile(r"/[!\"$-~]*")
"""What a request line can have: no blanks, line ends or fragment, and ASCII alone."""
_METHOD: Final = re.compile(r"[A-Z]{1,24}")
NO_FILE: Final = "no file of settings (engram proxy config makes one)"
_OWN_PATHS: Final = ("/", "/status", "/check", "/capacity", "/jobs")
_OWN_PREFIXES: Final = ("/check/", "/jobs/")


def problems(settings: ProxySettings, origins: Mapping[str, str]) -> Iterator[Problem]:
    """Yield every reason why the proxy must not start with these settings."""
    for key, message in _found(settings):
        yield Problem(_where(key, origins), key, message)


def _where(key: str, origins: Mapping[str, str]) -> str:
    """Return where a key was written, or else its section, or else where the settings are written at all."""
    if (own := origins.get(key) or origins.get(key.partition("[")[0])) is not None:
        return own
    section = key.partition(".")[0] + "."
    beside = (where for other, where in origins.items() if other.startswith(section))
    files = (where for where in origins.values() if not where.startswith("environment"))
    return next(beside, None) or next(files, NO_FILE)


def _found(settings: ProxySettings) -> Iterator[tuple[str, str]]:
    yield from _hotkeys(settings)
    yield from _schemes(settings)
    yield from _listener(settings)
    yield from _files(settings)
    for name, group in settings.groups().items():
        yield from _backend(_key_of(name), group)
    for number, route in enumerate(settings.routes):
        yield from _route(f"routes[{number}]", route, settings)
    paths = [route.path for route in settings.routes]
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield "routes", f"{path} is there twice: which of the two is meant?"
    if settings.answers.sign and not settings.answers.hotkey_file:
        yield "answers.hotkey_file", "is not set: signed answers need the miner's own key"


def _key_of(group: str) -> str:
    own = {"training": "services.training_server_url", "inference": "services.inference_server_url"}
    return own.get(group, f"backends.{group}")


def _hotkeys(settings: ProxySettings) -> Iterator[tuple[str, str]]:
    own = settings.auth.miner_hotkey
    if own in PLACEHOLDERS or own.startswith("<"):
        where = "Configuration missing 'auth.miner_hotkey'" if not own else f"{own!r} is the example's placeholder"
        yield "auth.miner_hotkey", f"{where}: write this miner's SS58 address (or set MINER_HOTKEY)"
    elif (problem := _not_a_hotkey(own)) is not None:
        yield "auth.miner_hotkey", problem
    for key in ("allowed_senders", "denied_senders"):
        for text in getattr(settings.auth, key):
            if (problem := _not_a_hotkey(text)) is not None:
                yield f"auth.{key}", problem
    both = set(settings.auth.allowed_senders) & set(settings.auth.denied_senders)
    for text in sorted(both):
        yield "auth.denied_senders", f"{text} is in allowed_senders too: take it out of one of them"


def _not_a_hotkey(text: str) -> str | None:
    try:
        ss58.decode(text)
    except MalformedHotkey as error:
        return f"{text[:60]!r} is no SS58 address of a hotkey (prefix 42): {error}"
    return None


def _schemes(settings: ProxySettings) -> Iterator[tuple[str, str]]:
    if not settings.auth.schemes:
        yield "auth.schemes", f"is empty; name at least one of {', '.join(profiles.STRICT)}"
    for name in settings.auth.schemes:
        if name not in profiles.STRICT:
            known = ", ".join(profiles.STRICT)
            yield "auth.schemes", f"{name!r} is not one of {known}{nearest(name, profiles.STRICT)}"
    for name in settings.auth.lenient_schemes:
        if name not in settings.auth.schemes:
            yield "auth.lenient_schemes", f"{name!r} is not in auth.schemes: add it there, or take it out here"
    for body in settings.auth.get_body_candidates:
        if body not in ("", "{}"):
            yield "auth.get_body_candidates", f'{body!r} is neither "" nor "{{}}", the bodies that clients sign'


def _listener(settings: ProxySettings) -> Iterator[tuple[str, str]]:
    server = settings.server
    if bool(server.tls_certificate) != bool(server.tls_key):
        missing = "tls_key" if server.tls_certificate else "tls_certificate"
        yield f"server.{missing}", "is not set: https needs the certificate and its key"
    if server.public_url and not server.public_url.startswith("https://"):
        yield "server.public_url", f"{server.public_url!r} does not begin with https://, which validators demand"
    if server.public_url and not server.trusted_proxies:
        yield "server.trusted_proxies", "is empty: name the addresses of the front, or all clients count as one"
    for network in server.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield "server.trusted_proxies", f"{network!r} is not a network such as 10.0.0.0/8 or ::1/128"
    for origin in server.cors_origins:
        if origin in ("*", "null") or right_origin(origin) != origin.removesuffix("/"):
            yield "server.cors_origins", f"{origin!r} is no exact origin such as https://app.example"
    chain = settings.auth.chain_endpoint
    over_http = f"http{chain.removeprefix('ws')}" if chain.startswith(("ws://", "wss://")) else chain
    if chain and not _is_requestable(over_http):
        yield "auth.chain_endpoint", f"{chain!r} is no wss:// or https:// URL"
    if settings.auth.min_stake_url and not _is_requestable(settings.auth.min_stake_url):
        yield "auth.min_stake_url", f"{settings.auth.min_stake_url!r} is no http or https URL"


def _is_requestable(url: str) -> bool:
    """Return whether the text is a URL that a request can be sent to as it is written."""
    try:
        targets.target(url)
    except NotSent:
        return False
    return is_http_url(url)


def _files(settings: ProxySettings) -> Iterator[tuple[str, str]]:
    server = settings.server
    named = {
        "server.tls_certificate": server.tls_certificate,
        "server.tls_key": server.tls_key,
        "bodies.spool_dir": settings.bodies.spool_dir,
        "answers.hotkey_file": settings.answers.hotkey_file,
    }
    for key, path in named.items():
        if not path.isprintable():
            yield key, f"{path!r} has characters that no file's name should have"
    if not server.host.isprintable() or " " in server.host:
        yield "server.host", f"{server.host!r} is no address and no host name"


def _backend(key: str, group: BackendSettings) -> Iterator[tuple[str, str]]:
    if not group.urls:
        yield key, "urls is empty: name at least one http or https URL"
    for url in group.urls:
        if not _is_requestable(url) or "?" in url or "#" in url or "@" in url:
            text = "is no http or https URL of a server, such as http://127.0.0.1:8091"
            yield key, f"{url!r} {text}" + ("" if url.isascii() else "; percent-encode what is not ASCII")
    if group.health_path and _HEALTH_PATH.fullmatch(group.health_path) is None:
        text = "a path begins with a slash, and has no blanks and nothing that is not ASCII"
        yield key, f"health_path is {group.health_path!r}; {text}"
    if not group.ca_file.isprintable():
        yield key, f"ca_file is {group.ca_file!r}, which has characters that no file's name should have"


def _route(key: str, route: RouteSettings, settings: ProxySettings) -> Iterator[tuple[str, str]]:
    if _PATH.fullmatch(route.path) is None or ("*" in route.path and not route.path.endswith("/*")):
        yield key, f"path is {route.path!r}; write an exact path such as /edit, or a prefix such as /v1/*"
    if route.path in _OWN_PATHS or route.path.startswith(_OWN_PREFIXES):
        yield key, f"path is {route.path!r}, which the proxy answers itself"
    groups = settings.groups()
    if route.backend not in groups:
        yield key, f"backend is {route.backend!r}, not one of {', '.join(groups)}{nearest(route.backend, groups)}"
    for method in route.methods:
        if _METHOD.fullmatch(method) is None or method in ("CONNECT", "TRACE"):
            yield key, f"{method!r} is no method that can be passed on; write GET, POST, …"
    if route.strip_prefix and not route.path.startswith(route.strip_prefix):
        yield key, f"strip_prefix is {route.strip_prefix!r}; path {route.path!r} does not begin with it"
    if route.websocket and "GET" not in route.methods:
        yield key, "websocket is true and methods has no GET, by which a WebSocket begins"
