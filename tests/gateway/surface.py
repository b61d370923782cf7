"""A gateway on a loopback socket with real payments in a real ledger; only nodes and the facilitator are doubles."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import msgspec
import trio

from actors import ChildSpec, Job, NodeInfo, Registry, SupervisorSpec, System, open_system
from config.model import Settings
from engram.chain.sync.subnets import Subnets
from engram.clock import ManualClock, SeededIds
from engram.control.status import status_of
from engram.gateway import probes
from engram.gateway.app import gateway_app, ops_app
from engram.gateway.feed import EventFeed
from engram.gateway.gauges import gauges
from engram.gateway.pricing import Shop
from engram.gateway.sales_check import Conditions
from engram.gateway.sales_switch import Selling
from engram.gateway.services import Services
from engram.gateway.views import TimedStats
from engram.hotkeys import Keypair, gateway_scheme
from engram.http.client import HttpClient
from engram.http.listener import Listener
from engram.http.sockets import Address
from engram.ledger import InlineLedger, open_inline
from engram.payments import outcomes
from engram.payments.actor import PAYMENT_VERIFIER, PaymentVerifier
from engram.payments.model import Transferable
from engram.payments.outcomes import Settlement, Verification
from engram.payments.play_wallet import PlayWallet
from engram.payments.ports import PaymentPorts
from engram.provisioning.backends import Backends
from engram.provisioning.countersigning import Countersigner
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.relay import PayloadSigner, RelayStatus, RetryPolicy
from engram.relay.actor import RELAY_EMITTER, EmitterPorts, RelayEmitter
from engram.relay.protocol import GetRelayStatus
from engram.relay.rounds import RoundLosses
from engram.relay.signer import Keyring
from engram.roles.balances import balances_of
from engram.sessions import ClockInstants, SessionEvent
from engram.sessions import records as session_records
from engram.telemetry.metrics import Metrics
from tests.fakes.hints import RecordedHints
from tests.fakes.nodes import InMemoryProvisioner
from tests.payments.branch import payments_branch

RECIPIENT = "0x" + "11" * 20
PHONE = Keypair.from_seed(hashlib.sha256(b"phone").digest())
STRANGER = Keypair.from_seed(hashlib.sha256(b"stranger").digest())
GATEWAY = Keypair.from_seed(hashlib.sha256(b"gateway").digest())
NO_LIMITS = {"requests_per_minute_per_ip": 0, "requests_per_minute_per_hotkey": 0}


class ScriptedFacilitator:
    """Takes every payment at once, unless told otherwise."""

    def __init__(self) -> None:
        self.verification: Verification = outcomes.Valid()
        self.settlement: Settlement | None = None
        self.settled: list[str] = []
        self.may_settle = trio.Event()
        self.may_settle.set()

    async def verify(self, transfer: Transferable) -> Verification:
        return self.verification

    async def settle(self, transfer: Transferable) -> Settlement:
        await self.may_settle.wait()
        if self.settlement is not None:
            return self.settlement
        self.settled.append(transfer.nonce.hex())
        return outcomes.Settled("0x" + hashlib.sha256(transfer.nonce).hexdigest())


class KnownStats:
    """What the poller would know."""

    def __init__(self) -> None:
        self.by_session: dict[str, TimedStats] = {}

    def latest(self, session_id: str) -> TimedStats | None:
        return self.by_session.get(session_id)


class ShownHints(RecordedHints):
    """Of these, open event streams take note too."""

    def __init__(self, feed: EventFeed) -> None:
        super().__init__()
        self._feed = feed

    def session_changed(self, session_id: str) -> None:
        super().session_changed(session_id)
        self._feed.poke(session_id)


class Gateway(msgspec.Struct):
    """A running gateway and the strings that tests pull."""

    url: str
    ops_url: str
    services: Services
    ledger: InlineLedger
    clock: ManualClock
    instants: ClockInstants
    facilitator: ScriptedFacilitator
    stats: KnownStats
    selling: Selling
    feed: EventFeed
    hinted: list[str]
    client: httpx2.AsyncClient
    public: Any
    system: System
    """When its applications were made, by its clock."""
    nonces: SeededIds = msgspec.field(default_factory=lambda: SeededIds(7))
    wallet: PlayWallet = msgspec.field(default_factory=lambda: PlayWallet(hashlib.sha256(b"wallet").digest()))

    def auth(
        self, method: str, path: str, body: bytes = b"", keypair: Keypair = PHONE, version: int = 1
    ) -> dict[str, str]:
        """Fresh signed headers; the clock moves on, so that no two are the same."""
        self.clock.advance(0.01)
        return self.auth_at(method, path, self.clock.now(), body, keypair, version)

    def auth_at(
        self, method: str, path: str, at_s: float, body: bytes = b"", keypair: Keypair = PHONE, version: int = 1
    ) -> dict[str, str]:
        """Headers signed at another moment than now."""
        return gateway_scheme.sign_request(keypair, method, path, round(at_s * 1000), body, version=version)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        keypair: Keypair = PHONE,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """A signed request; `headers` are added (or take the place of the signed ones)."""
        content = b"" if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        signed = self.auth(method, path, content, keypair)
        return await self.client.request(method, self.url + path, content=content, headers=signed | (headers or {}))

    def payment(self, asked: httpx2.Response, nonce: bytes | None = None) -> dict[str, str]:
        """The header that pays a 402."""
        required = asked.headers["PAYMENT-REQUIRED"]
        nonce = nonce or bytes.fromhex(self.nonces.token(32))
        return {"PAYMENT-SIGNATURE": self.wallet.pay(required, self.clock.now(), nonce)}

    async def buy(self, tier: str = "lite", hours: float = 1.0, keypair: Keypair = PHONE) -> dict[str, Any]:
        """A paid session."""
        body = {"tier": tier, "duration_hours": hours}
        asked = await self.ask("POST", "/sessions", body, keypair=keypair)
        assert asked.status_code == 402, asked.text
        bought = await self.ask("POST", "/sessions", body, keypair=keypair, headers=self.payment(asked))
        assert bought.status_code == 202, bought.text
        return dict(bought.json())

    async def happen(self, session_id: str, *events: SessionEvent) -> None:
        """Let the provisioner have done its part."""
        for event in events:
            change = partial(session_records.transition, session_id=session_id, event=event, now=self.instants.now())
            moved = await self.ledger.write(change)
            assert moved is not None, event
        self.feed.poke(session_id)


def local_settings(**sections: dict[str, object]) -> Settings:
    """Settings of a local gateway without rate limits; `sections` are changed."""
    plain = msgspec.to_builtins(Settings())
    plain["payments"] |= {"recipient": RECIPIENT}
    plain["http"] |= NO_LIMITS
    for section, changes in sections.items():
        plain[section] |= changes
    return msgspec.convert(plain, Settings)


@asynccontextmanager
async def running_gateway(
    places: int = 10,
    now: float = 1_700_000_000.0,
    conditions: Conditions | None = None,
    ledger: InlineLedger | None = None,
    **sections: dict[str, object],
) -> AsyncIterator[Gateway]:
    settings = local_settings(**sections)
    registry, clock, metrics, ids = Registry(), ManualClock(now), Metrics(), SeededIds(1)
    instants = ClockInstants(clock)
    ledger = ledger or open_inline()
    facilitator, stats, feed = ScriptedFacilitator(), KnownStats(), EventFeed(ledger)
    hints = ShownHints(feed)
    subnets = Subnets(clock, settings.chain.netuids, 60.0)
    selling = Selling(ledger, default=settings.gateway.selling)
    tree: list[NodeInfo] = []
    backends = Backends([InMemoryProvisioner(places, name="local", not_enforced=("cpu",))])
    await backends.look()
    urls: list[str] = []
    shop = Shop(
        settings,
        lambda: urls[0],
        ledger,
        selling,
        registry.ref(PaymentVerifier, PAYMENT_VERIFIER),
        lambda wanted: places,
        conditions,
    )
    services = Services(
        settings=settings,
        public_url=lambda: urls[0],
        ledger=ledger,
        keypair=GATEWAY,
        clock=clock,
        instants=instants,
        ids=ids,
        shop=shop,
        stats=stats,
        subnets=subnets,
        feed=feed,
        metrics=metrics,
        probes={"ledger": probes.ledger_probe(ledger), "chain": probes.chain_probe(subnets)},
        backends=backends,
        countersigner=Countersigner(ledger, instants, HotkeyRing(Path("hotkeys"), lambda _: None)),
        hints=hints,
        node_http=HttpClient(),
        balances=balances_of(settings, ledger, HttpClient()),
    )

    async def nothing_else() -> dict[str, dict[str, object]]:
        return {}

    status = status_of(
        "local", ledger, clock, subnets, lambda: tree, selling.is_on, lambda: feed.open_streams, nothing_else
    )
    public = gateway_app(services)

    async def relay() -> RelayStatus:
        return await registry.ref(RelayEmitter, RELAY_EMITTER).call(GetRelayStatus())

    emitter = EmitterPorts(
        ledger=ledger,
        receiver=None,
        keyring=Keyring(PayloadSigner.of(GATEWAY)),
        policy=RetryPolicy(),
        clock=clock,
        rng=Random(1),
        metrics=metrics,
        losses=RoundLosses(metrics),
    )
    ops = ops_app(services, status, gauges(metrics, ledger, subnets, feed, backends, lambda: tree, clock), relay)

    ports = PaymentPorts(
        registry=registry,
        settings=settings,
        ledger=ledger,
        facilitator=facilitator,
        instants=instants,
        ids=ids,
        metrics=metrics,
        hints=hints,
        places=lambda wanted: places,
    )
    listening = {name: Listener("127.0.0.1", 0, settings.http, 2.0) for name in ("http", "ops")}
    root = SupervisorSpec(
        "root",
        (
            msgspec.structs.replace(payments_branch(ports), name="payments"),
            ChildSpec("feed", start=lambda: Job(feed.run)),
            ChildSpec(RELAY_EMITTER, start=lambda: RelayEmitter(emitter), name=RELAY_EMITTER),
            ChildSpec("http", start=lambda: listening["http"].job(lambda: public)),
            ChildSpec("ops", start=lambda: listening["ops"].job(lambda: ops)),
        ),
    )
    async with open_system(root, registry=registry) as system:
        tree.extend(system.tree())
        bound = {node.path: node.info for node in tree if isinstance(node.info, Address)}
        urls.append(bound["root/http"].url)
        async with httpx2.AsyncClient(timeout=10, trust_env=False, verify=False) as client:
            yield Gateway(
                url=urls[0],
                ops_url=bound["root/ops"].url,
                services=services,
                ledger=ledger,
                clock=clock,
                instants=instants,
                facilitator=facilitator,
                stats=stats,
                selling=selling,
                feed=feed,
                hinted=hints.changed,
                client=client,
                public=public,
                system=system,
            )
    ledger.close()
