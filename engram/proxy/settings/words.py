"""Explains the settings in words: every route, backend and limit, and what an operator should look at. Pure."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from config.addresses import is_public_host
from engram.proxy.settings.model import BackendSettings, ProxySettings, RouteSettings
from engram.proxy.settings.reading import Loaded

_NAMES_NO_RECEIVER = ("x-epistula", "chutes-miner", "gateway")


def explain(loaded: Loaded) -> Iterator[str]:
    """Yield the settings in words, one sentence a line."""
    settings = loaded.settings
    yield from _listener(settings)
    yield from _callers(settings, loaded)
    for name, group in sorted(settings.groups().items()):
        yield _group(name, group)
    for route in settings.table():
        yield _route(route, settings)
    yield from _limits(settings)


def cautions(loaded: Loaded) -> Iterator[str]:
    """Yield what does not keep the proxy from starting, and should be looked at."""
    settings = loaded.settings
    server, auth = settings.server, settings.auth
    if not server.tls_certificate and not server.public_url:
        yield (
            "server.tls_certificate: the proxy speaks plain http and no front is named (server.public_url): "
            "validators demand https"
        )
    if auth.self_debug_key and len(auth.self_debug_key) < 16:
        yield "auth.self-debug-key: is shorter than 16 characters, which can be guessed; leave it out or lengthen it"
    for name in auth.schemes:
        if name in _NAMES_NO_RECEIVER or name in auth.lenient_schemes:
            yield (
                f"auth.schemes: {name} accepts requests that name no receiver: whoever gets one can pass it on to "
                "another miner, and others can pass theirs on to this one"
            )
    if auth.min_stake_url.startswith("http://"):
        yield "auth.min_stake_url: is read by plain http: whoever is on the way may change who passes"
    if not auth.chain_endpoint and not auth.allowed_senders:
        yield "auth.allowed_senders: is empty and there is no chain: no request passes"
    for name, group in settings.groups().items():
        for url in group.urls:
            if _is_public(url):
                yield (
                    f"{name}: {url} is a public address: anyone may reach that server past the proxy; "
                    "bind it to loopback or a private network"
                )
    yield from loaded.notes
    if "server.reload" in loaded.origins:
        yield "server.reload: settings files are always watched; SIGHUP reads them at once"


def _listener(settings: ProxySettings) -> Iterator[str]:
    server = settings.server
    how = "https" if server.tls_certificate else "http"
    front = f", behind {server.public_url}" if server.public_url else ""
    yield f"Listens on {server.host}:{server.port} by {how}{front}; stands for {settings.auth.miner_hotkey}."
    yield (
        f"Takes {server.max_connections} connections, {server.max_connections_per_address or 'any number'} of one "
        f"address; headers within {server.header_timeout_s:g} s and {server.max_header_bytes} bytes."
    )


def _callers(settings: ProxySettings, loaded: Loaded) -> Iterator[str]:
    auth = settings.auth
    source = loaded.origins.get("auth.min_stake", "default")
    if auth.allowed_senders:
        yield f"{len(auth.allowed_senders)} hotkeys of auth.allowed_senders may call, whatever the chain says."
    if auth.chain_endpoint:
        yield (
            f"Hotkeys with a validator permit on subnet {auth.netuid} and more than {auth.min_stake:g} of stake "
            f"({auth.stake_unit}; auth.min_stake, from {source}) may call while the metagraph of "
            f"{auth.chain_endpoint} is at most {auth.cache_duration:g} s old."
        )
        if auth.min_stake_url:
            yield (
                f"The stake is the one that {auth.min_stake_url} names, read every 5 minutes; until the first reading "
                "auth.min_stake counts."
            )
    if auth.denied_senders:
        yield f"{len(auth.denied_senders)} hotkeys of auth.denied_senders may never call."
    yield (
        f"Signatures: {', '.join(auth.schemes)}; at most {auth.allowed_delta_ms} ms old and "
        f"{auth.future_delta_ms} ms ahead of this machine's clock; each is accepted once."
    )


def _group(name: str, group: BackendSettings) -> str:
    servers = ", ".join(group.urls)
    check = f"asked for {group.health_path} every {group.health_interval_s:g} s" if group.health_path else "not asked"
    return (
        f"Backend {name}: {servers}; {check}; a server is left out for {group.eject_s:g} s and more after "
        f"{group.failures} failures in a row, the whole backend for {group.breaker_open_s:g} s after "
        f"{group.breaker_failures}."
    )


def _route(route: RouteSettings, settings: ProxySettings) -> str:
    first_byte_s = route.first_byte_s or settings.services.request_timeout_s
    job = f"; a POST that takes over {route.answer_after_s:g} s becomes a job" if route.answer_after_s else ""
    total = f", {route.total_s:g} s in all" if route.total_s else ""
    socket = "; WebSockets too" if route.websocket else ""
    gone = "is cut" if route.on_client_gone == "abort" else f"may finish within {route.drain_s:g} s"
    return (
        f"{'/'.join(route.methods)} {route.path} goes to {route.backend}: {route.connect_s:g} s to connect, "
        f"{first_byte_s:g} s to the first byte, {route.idle_s:g} s between parts{total}; bodies up to "
        f"{route.max_bytes or settings.bodies.max_bytes} bytes; when the client leaves the backend {gone}{job}{socket}."
    )


def _limits(settings: ProxySettings) -> Iterator[str]:
    limits = settings.limits
    yield (
        f"Before its signature is proven a request counts for its address: "
        f"{limits.requests_per_minute_per_address or 'any number'} a minute, {limits.concurrent_per_address} at once."
    )
    yield (
        f"A proven key has {limits.requests_per_minute_per_key or 'any number'} requests a minute and "
        f"{limits.concurrent_per_key} at once; {limits.concurrent} requests run together, {limits.queue} wait for "
        f"at most {limits.queue_s:g} s."
    )
    yield (
        f"Bodies over {settings.bodies.memory_bytes} bytes without Content-Digest wait for their proof on disk, "
        f"{settings.bodies.spool_bytes} bytes in all; shorter ones in memory, {settings.bodies.memory_bytes_in_all} "
        "bytes in all, and then on disk too. An address has no more of either than it leaves free."
    )
    if any(route.answer_after_s for route in settings.table()):
        jobs = settings.jobs
        yield (
            f"{jobs.open} jobs run at once, each for at most {jobs.run_s:g} s; a result of up to "
            f"{jobs.max_result_bytes} bytes is kept for {jobs.keep_s:g} s, or a minute once it was fetched, and "
            f"{jobs.kept_bytes} bytes in all."
        )


def _is_public(url: str) -> bool:
    return is_public_host(urlsplit(url).hostname or "")
