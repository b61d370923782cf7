"""Any one actor of a running gateway may crash: the surface answers, and the work goes on after the restart."""

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import config
import run
from actors import Actor
from engram.chain.actor import MetagraphSyncer
from engram.gateway.feed import EventFeed
from engram.ledger import LedgerActor, data_folder
from engram.payments.actor import PaymentVerifier
from engram.payments.work import PaymentWork
from engram.provisioning import saga
from engram.provisioning.actor import Provisioner
from engram.provisioning.local import LocalBackend
from engram.relay.actor import RelayEmitter
from engram.relay.protocol import OutboxGrew
from engram.stats import Reread, StatsPoller
from tests.e2e.buyer import Buyer, balance

SETTINGS = """
[miner]
embedder = "hash"
[stats]
interval_s = 0.5
[chain]
poll_s = 0.5
[provisioning]
first_port = 19300
"""
OPENING_BALANCE = 1_000_000_000


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[run.Process]:
    file = folder / "settings.toml"
    file.write_text(SETTINGS)
    flags: dict[str, str | float | None] = {"data_dir": str(folder / "data"), "gateway.port": 0, "ops.port": 0}
    loaded = config.load("local", files=[file], environ={}, flags=flags, env_files=())
    with data_folder(Path(loaded.settings.data_dir)) as data:
        process = run.Process(("gateway",), loaded.settings, data, None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run)
            await booted(process)
            yield process
            assert process.system is not None
            process.system.request_stop()


async def booted(process: run.Process) -> None:
    with trio.fail_after(30):
        while process.listeners["gateway"].bound is None:  # noqa: ASYNC110 - a process under test has no event to offer
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


async def purchase(process: run.Process) -> None:
    """A whole purchase, from quote to stopped, by a phone that tries again when it is told to."""
    await trio.to_thread.run_sync(partial(_purchase, process))


def _purchase(process: run.Process) -> None:
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
            process.registry.ref(StatsPoller, "stats_poller").tell(Reread())
        await purchase(process)
        assert injection.crashed


@pytest.mark.parametrize("job", [EventFeed.run, LocalBackend.watch], ids=["event_feed", "node_watch"])
async def test_a_crashed_job_is_restarted_and_purchases_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Callable[..., Any]
) -> None:
    armed, lives = trio.Event(), 0

    async def run_until_armed(this: object, *args: object) -> None:
        nonlocal lives
        lives += 1
        if lives > 1:
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
        assert lives == 2


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
