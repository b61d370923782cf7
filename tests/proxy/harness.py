"""A proxy on a real socket in this process, with the parts that a role gives it."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from engram.clock import Clock, SystemClock, SystemIds
from engram.hotkeys import Keypair, PublicKey, ReplayStore
from engram.http.sockets import Address
from engram.ledger import InlineLedger, Ledger, open_inline
from engram.proxy.authorization import Caller, ChainView
from engram.proxy.capacity import Capacity
from engram.proxy.endings import Ended
from engram.proxy.exchange.admission import Admission
from engram.proxy.exchange.spool import Spool
from engram.proxy.jobs.worker import Jobs
from engram.proxy.planning import Planner, retire_others
from engram.proxy.serving import Surface
from engram.proxy.settings.model import (
    AnswerSettings,
    AuthSettings,
    BackendSettings,
    BodySettings,
    JobSettings,
    LimitSettings,
    ProxySettings,
    RouteSettings,
    ServerSettings,
    ServicesSettings,
)
from engram.proxy.settings.reading import Loaded
from engram.proxy.state import State
from engram.proxy.surface import proxy_app
from engram.telemetry.metrics import Metrics
from tests.http.harness import Raw
from tests.proxy.signing import ALICE, BOB, CHARLIE

UNLIMITED = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=0)
AUTH = AuthSettings(
    miner_hotkey=BOB.ss58, chain_endpoint="", allowed_senders=(ALICE.ss58, CHARLIE.ss58), self_debug_key="internal"
)
SERVER = ServerSettings(host="127.0.0.1", port=0, drain_s=5.0)


class Chain:
    """A subnet of a test's own."""

    def __init__(self, *callers: tuple[PublicKey, Caller], age_s: float | None = 0.0) -> None:
        self.callers = dict(callers)
        self.age: float | None = age_s

    def age_s(self) -> float | None:
        return self.age

    def caller(self, hotkey: PublicKey) -> Caller | None:
        return self.callers.get(hotkey)


class Host:
    """The place of a supervised job's context."""

    def __init__(self) -> None:
        self.stop_requested = trio.Event()
        self.is_ready = trio.Event()
        self.address = Address("", 0)

    def ready(self, info: object = None) -> None:
        if isinstance(info, Address):
            self.address = info
        self.is_ready.set()


class Proxied:
    """A running proxy."""

    def __init__(self, state: State, planner: Planner, host: Host, ledger: Ledger, loaded: Loaded) -> None:
        self.state = state
        self.planner = planner
        self._ledger = ledger
        self.loaded = loaded
        self._host = host
        self._noted = trio.Event()
        note = state.endings.note

        def noting(ended: Ended) -> None:
            note(ended)
            self._noted.set()
            self._noted = trio.Event()

        state.endings.note = noting  # type: ignore[method-assign]

    @property
    def ledger(self) -> InlineLedger:
        """The ledger, where it is one that a test may write to at once."""
        assert isinstance(self._ledger, InlineLedger)
        return self._ledger

    @property
    def port(self) -> int:
        return self._host.address.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._host.stop_requested.set()

    async def reload(self, settings: ProxySettings) -> None:
        """Put other settings in force, as a change of their file does."""
        former = self.state.plan
        self.loaded = Loaded(settings, {}, (), ())
        plan = await self.planner.plan(self.loaded, former)
        self.state.use(plan)
        retire_others(former, plan)

    @property
    def ends(self) -> list[Ended]:
        """How requests ended, oldest first."""
        return list(self.state.endings._by_id.values())

    async def end(self, number: int = -1) -> Ended:
        """The ending of a request, once it is there."""
        await self.ended(number + 1 if number >= 0 else 1)
        return self.ends[number]

    async def ended(self, count: int) -> None:
        """Wait until so many requests have ended."""
        with trio.fail_after(30):
            while len(self.ends) < count:
                await self._noted.wait()

    @property
    def in_progress(self) -> int:
        """Requests that hold anything."""
        admission = self.state.admission
        groups = self.state.plan.groups.values()
        held = len(admission.addresses) + len(admission.keys) + admission.places.taken + admission.places.waiting
        return held + sum(group.in_flight for group in groups)


def settings_for(*ports: int, **sections: Any) -> ProxySettings:
    """Settings whose two services are at these ports."""
    urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
    backend = BackendSettings(urls=urls, keep_alive_s=1.0, slow_start_s=0.0)
    backend = msgspec.structs.replace(backend, **sections.pop("backend", {}))
    route = sections.pop("route", {})
    paths = sections.pop("paths", ("/inference", "/train"))
    routes = tuple(RouteSettings(path=path, backend="servers", **route) for path in paths)
    made: dict[str, Any] = {
        "server": SERVER,
        "auth": AUTH,
        "limits": UNLIMITED,
        "services": ServicesSettings(request_timeout_s=5.0),
        "backends": {"servers": backend},
        "routes": (*routes, *sections.pop("routes", ())),
    } | sections
    return ProxySettings(**made)


@asynccontextmanager
async def proxying(
    settings: ProxySettings,
    *,
    chain: ChainView | None = None,
    clock: Clock | None = None,
    signer: Keypair | None = None,
    ledger: Ledger | None = None,
    spool: Path | None = None,
) -> AsyncIterator[Proxied]:
    """Serve a proxy with these settings."""
    folder = spool or Path(tempfile.mkdtemp(prefix="spool-"))
    own = open_inline() if ledger is None else None
    books = ledger or own
    assert books is not None
    clock = clock or SystemClock()
    ids = SystemIds()
    state = State(
        chain=chain or Chain(),
        admission=Admission(settings.limits),
        spool=Spool(folder, settings.bodies),
        jobs=Jobs(books, clock, ids, settings.jobs),
        capacity=Capacity(settings.capacity),
        clock=clock,
        ids=ids,
        metrics=Metrics(),
    )
    # As a process that has run for a while: what was stamped before its start is refused.
    planner = Planner(state, ReplayStore(), signer)
    planner._started_ms -= 60_000
    if signer is not None:
        settings = msgspec.structs.replace(settings, answers=AnswerSettings(sign=True, hotkey_file="-"))
    loaded = Loaded(settings, {}, (), ())
    state.use(await planner.plan(loaded, None))
    surface = Surface(settings, state, proxy_app(state), None)
    host, jobs_host = Host(), Host()
    serve: Any = surface._run
    hold_jobs: Any = state.jobs.run
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold_jobs, jobs_host)
            await jobs_host.is_ready.wait()
            nursery.start_soon(serve, host)
            with trio.fail_after(5):
                await host.is_ready.wait()
            yield Proxied(state, planner, host, books, loaded)
            nursery.cancel_scope.cancel()
    finally:
        state.close()
        if own is not None:
            own.close()


@asynccontextmanager
async def calling(proxied: Proxied, address: str = "127.0.0.1") -> AsyncIterator[Raw]:
    """A client's connection, from one of this machine's addresses."""
    async with await trio.open_tcp_stream("127.0.0.1", proxied.port, local_address=address) as stream:
        yield Raw(stream)


def change(settings: ProxySettings, section: str, **values: Any) -> ProxySettings:
    """The settings with other values in one section."""
    changed = msgspec.structs.replace(getattr(settings, section), **values)
    return msgspec.structs.replace(settings, **{section: changed})


__all__ = [
    "AUTH",
    "SERVER",
    "UNLIMITED",
    "BodySettings",
    "Chain",
    "JobSettings",
    "Proxied",
    "RouteSettings",
    "calling",
    "change",
    "proxying",
    "settings_for",
]
