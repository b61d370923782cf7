"""Any one actor of a running gateway may crash: the surface answers, and the work goes on after the restart."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import config
from actors import Actor, Context
from engram.chain.sync.actor import MetagraphSyncer
from engram.control import server
from engram.control.client import ControlClient
from engram.control.commands import ListSessions
from engram.control.model import SessionPage
from engram.gateway.feed import EventFeed
from engram.http import listener
from engram.http.app import App
from engram.ledger import LedgerActor, data_folder
from engram.payments.actor import PaymentVerifier
from engram.payments.payment_worker import PaymentWork
from engram.provisioning import saga
from engram.provisioning.actor import Provisioner
from engram.provisioning.local import LocalBackend
from engram.relay.actor import RelayEmitter
from engram.relay.protocol import OutboxGrew
from engram.roles import gateway, gateway_ports, shared
from engram.roles.process import Process
from engram.roles.shared import Shared
from engram.stats import RereadSessions, StatsPoller
from tests.e2e.buyer import Buyer, balance
from tests.e2e.gateway_process import with_ports_of_its_own

SETTINGS = """
[miner]
embedder = "hash"
[stats]
interval_s = 0.5
[chain]
poll_s = 0.5
"""
OPENING_BALANCE = 1_000_000_000


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Shared]:
    file = folder / "settings.toml"
    file.write_text(with_ports_of_its_own(SETTINGS))
    flags: dict[str, str | float | None] = {"data_dir": str(folder / "data"), "gateway.port": 0, "ops.port": 0}
    loaded = config.load("local", files=[file], environ={}, flags=flags, env_files=())
    with data_folder(Path(loaded.settings.data_dir)) as data:
        process = Process("engram", shared.REFUSALS)
        parts = shared.open_shared(process, [gateway.open_role], loaded.settings, data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run, parts)
            await booted(parts)
            yield parts
            assert process.system is not None
            process.system.request_stop()


async def booted(process: Shared) -> None:
    with trio.fail_after(30):
        while "gateway" not in process.listeners or process.listeners["gateway"].bound is None:  # noqa: ASYNC110 - a process under test has no event to offer
            await trio.sleep(0.02)


class Injection:
    """The next message that an actor takes once this is armed crashes it; put in place before the actor starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, actor: type[Actor[Any]]) -> None:
        self.armed = False
        self.crashed = False
        original = actor.handle

        async def handle(this: Actor[Any], message: Any) -> object:
            if self.armed and not self.crashed:
                self.crashed = True
                raise RuntimeError("injected")
            return await original(this, message)

        monkeypatch.setattr(actor, "handle", handle)


async def purchase(process: Shared) -> None:
    """A whole purchase, from quote to stopped, by a phone that tries again when it is told to."""
    await trio.to_thread.run_sync(partial(_purchase, process))


def _purchase(process: Shared) -> None:
    buyer, url = Buyer(), process.listeners["gateway"].url
    buyer.quote(url)
    for _ in range(20):
        answer = buyer.pay(url)
        assert answer.status in (202, 503), answer
        if answer.status == 202:
            break
    session_id = str(answer.body["session_id"])
    buyer.wait(url, session_id, "active")
    assert len(buyer.sessions(url)) == 1
    assert balance(process.listeners["facilitator"].url, buyer.wallet) == OPENING_BALANCE - 100_000
    assert buyer.stop(url, session_id).status == 200
    buyer.wait(url, session_id, "stopped")


@pytest.mark.parametrize(
    "actor", [LedgerActor, PaymentVerifier, Provisioner, StatsPoller, MetagraphSyncer, RelayEmitter]
)
async def test_a_crashed_actor_is_restarted_and_purchases_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actor: type[Actor[Any]]
) -> None:
    injection = Injection(monkeypatch, actor)
    async with running(tmp_path) as process:
        injection.armed = True
        if actor is RelayEmitter:
            process.registry.ref(RelayEmitter, "relay_emitter").tell(OutboxGrew())
        if actor is StatsPoller:
            process.registry.ref(StatsPoller, "stats_poller").tell(RereadSessions())
        await purchase(process)
        assert injection.crashed


@pytest.mark.parametrize("job", [EventFeed.run, LocalBackend.watch], ids=["event_feed", "node_watch"])
async def test_a_crashed_job_is_restarted_and_purchases_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Callable[..., Any]
) -> None:
    armed, again, lives = trio.Event(), trio.Event(), 0

    async def run_until_armed(this: object, *args: object) -> None:
        nonlocal lives
        lives += 1
        if lives > 1:
            again.set()
            await job(this, *args)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job, this, *args)
            await armed.wait()
            raise RuntimeError("injected")

    monkeypatch.setattr(EventFeed if job.__name__ == "run" else LocalBackend, job.__name__, run_until_armed)
    async with running(tmp_path) as process:
        armed.set()
        await purchase(process)
        with trio.fail_after(20):
            await again.wait()
        assert lives == 2


class Crashing:
    """Stands before what serves a surface: its first life ends in a crash once it is armed."""

    def __init__(self, serve: Callable[..., Any]) -> None:
        self._serve = serve
        self.lives = 0
        self.armed, self.serving_again = trio.Event(), trio.Event()

    async def __call__(self, *args: Any, context: Context, **rest: Any) -> None:
        self.lives += 1
        if self.lives > 1:
            await self._serve(*args, context=Told(context, self.serving_again), **rest)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._serve, *args, context=context, **rest))
            await self.armed.wait()
            raise RuntimeError("injected")


class Told:
    """A job's context that sets an event when the job is ready."""

    def __init__(self, context: Context, told: trio.Event) -> None:
        self._context, self._told = context, told

    @property
    def stop_requested(self) -> trio.Event:
        return self._context.stop_requested

    def ready(self, info: object = None) -> None:
        self._context.ready(info)
        self._told.set()


@pytest.mark.parametrize("surface", ["gateway", "ops", "facilitator"])
async def test_a_crashed_server_is_restarted_where_it_was_and_purchases_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surface: str
) -> None:
    original = listener.serve
    crashing = Crashing(original)

    async def serve(app: App, *args: Any, **rest: Any) -> None:
        await (crashing if app.surface == surface else original)(app, *args, **rest)

    monkeypatch.setattr(listener, "serve", serve)
    async with running(tmp_path) as process:
        urls = {name: each.url for name, each in process.listeners.items()}
        crashing.armed.set()
        with trio.fail_after(30):
            await crashing.serving_again.wait()
        await purchase(process)
        assert crashing.lives == 2
        assert {name: each.url for name, each in process.listeners.items()} == urls


async def test_a_crashed_control_socket_is_restarted_and_purchases_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def control_job(folder: Path, operations: server.Operations) -> Callable[[Context], Awaitable[None]]:
        async def run(context: Context) -> None:
            await crashing(folder, operations, context=context)

        return run

    async def serve(folder: Path, operations: server.Operations, *, context: Context) -> None:
        await original(folder, operations)(context)

    original = server.control_job
    crashing = Crashing(serve)
    monkeypatch.setattr(gateway_ports, "control_job", control_job)
    async with running(tmp_path) as process:
        crashing.armed.set()
        with trio.fail_after(30):
            await crashing.serving_again.wait()
        client = ControlClient(process.folder, timeout_s=5.0)
        assert await trio.to_thread.run_sync(client.call, ListSessions()) == SessionPage(rows=[], after="")
        await purchase(process)
        assert crashing.lives == 2


async def test_a_crashed_payment_and_a_crashed_saga_are_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes: list[str] = []

    def once(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        async def crash_first(*args: Any, **kwargs: Any) -> Any:
            if name not in crashes:
                crashes.append(name)
                raise RuntimeError("injected")
            return await original(*args, **kwargs)

        return crash_first

    monkeypatch.setattr(saga, "run", once("saga", saga.run))
    monkeypatch.setattr(PaymentWork, "_drive", once("payment", PaymentWork._drive))
    async with running(tmp_path) as process:
        await purchase(process)
    assert sorted(crashes) == ["payment", "saga"]
