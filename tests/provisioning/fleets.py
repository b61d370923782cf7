"""A fleet on an in-memory ledger and backend, in virtual time."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from actors import ChildSpec, Registry, SupervisorSpec
from config.model import ProvisioningSettings
from engram.clock import Clock, SeededIds, TrioClock
from engram.ledger.inline import InlineLedger
from engram.provisioning import NodeBackend as Backend
from engram.provisioning import node_keys
from engram.provisioning.actor import PROVISIONER, SAGAS, SAGAS_AT_ONCE, Provisioner, node_watches
from engram.provisioning.backends import Backends
from engram.provisioning.fleet import Fleet
from engram.sessions import ClockInstants, Session, SessionEvent, SessionState, TierName, history, records, rules
from engram.telemetry.metrics import Metrics
from tests.fakes.hints import RecordedHints
from tests.fakes.nodes import InMemoryProvisioner

CONTROLLER = b"\1" * 32


class World:
    """One ledger, one backend, and what a gateway would do to them."""

    def __init__(
        self, ledger: InlineLedger, double: InMemoryProvisioner | None = None, clock: Clock | None = None
    ) -> None:
        self.ledger = ledger
        self.double = double or InMemoryProvisioner(startup_s=2.0)
        self.instants = ClockInstants(clock or TrioClock())
        self.failed: list[str] = []
        self.ended: list[str] = []
        self.hints = RecordedHints()
        self.metrics = Metrics()
        self.registry = Registry()
        self.keys = 0
        self.fleet = self.make_fleet(self.double)

    def make_fleet(self, *backends: Backend) -> Fleet:
        return Fleet(
            registry=self.registry,
            ledger=self.ledger,
            backends=Backends(backends),
            instants=self.instants,
            ids=SeededIds(self.keys),
            settings=ProvisioningSettings(attempts=3, launch_timeout_s=30.0),
            tiers=rules.tiers(0.10),
            keys_folder=Path("hotkeys"),
            is_healthy=self.double.is_healthy,
            settle_up=self._settle_up,
            metrics=self.metrics,
            hints=self.hints,
            expiry_interval_s=5.0,
            new_key=self.new_key,
        )

    def _settle_up(self, connection: Connection, session_id: str) -> None:
        session = records.get(connection, session_id)
        assert session is not None
        (self.failed if session.state is SessionState.FAILED else self.ended).append(session_id)

    async def new_key(self) -> None:
        self.keys += 1
        public_key = self.keys.to_bytes(32, "big")

        def add(connection: Connection) -> None:
            node_keys.add(connection, public_key, Path("elsewhere/x"), "generated", 0.0)

        await self.ledger.write(add)

    def sell(
        self, session_id: str = "s", paid_s: float = 3600.0, state: SessionState = SessionState.PROVISIONING
    ) -> None:
        session = Session(
            id=session_id,
            controller=CONTROLLER,
            state=state,
            tier=TierName.LITE,
            paid_s=paid_s,
            amount_usd_micros=100_000,
            network="eip155:31337",
            payment_id="p",
            created_at=self.instants.now().wall,
        )
        self.ledger.write_now(partial(_insert, session=session))

    def session(self, session_id: str = "s") -> Session:
        found = self.ledger.write_now(lambda c: records.get(c, session_id))
        assert found is not None
        return found

    def state(self, session_id: str = "s") -> str:
        return str(self.session(session_id).state)

    def happens(self, event: SessionEvent, session_id: str = "s") -> Session | None:
        return self.ledger.write_now(lambda c: records.transition(c, session_id, event, self.instants.now()))

    def states(self, session_id: str = "s") -> list[str]:
        return [
            e.event
            for e in self.ledger.write_now(lambda c: history.events_since(c, session_id))
            if e.event != history.PLANNED
        ]


def _insert(connection: Connection, session: Session) -> None:
    records.insert_session(connection, session)


def fleet_branch(fleet: Fleet) -> SupervisorSpec:
    """That branch of the gateway's tree."""
    return SupervisorSpec(
        "fleet",
        [
            SupervisorSpec(SAGAS, strategy="dynamic", max_children=SAGAS_AT_ONCE, name=SAGAS),
            node_watches(fleet),
            ChildSpec(PROVISIONER, lambda: Provisioner(fleet), name=PROVISIONER),
        ],
        strategy="rest_for_one",
    )


def replaced(fleet: Fleet, **changes: object) -> Fleet:
    return msgspec.structs.replace(fleet, **changes)


Transaction = Callable[[Connection], object]
