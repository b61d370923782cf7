"""The gateway's hints: to whom each goes, and that one that is lost is counted and raised nowhere."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import ChildSpec, EventStream, Registry, SupervisorSpec, open_system
from actors.testing import Journal, Probe
from engram.clock import TrioClock
from engram.gateway.feed import EventFeed
from engram.ledger import open_inline
from engram.payments.protocol import Reread
from engram.provisioning.protocol import SessionChanged
from engram.relay.protocol import OutboxGrew
from engram.roles.hints import GatewayHints
from engram.stats import StatsView
from engram.telemetry.actor_events import observer
from engram.telemetry.metrics import Metrics

NAMES = ("payment_verifier", "provisioner", "relay_emitter")


class House:
    """Probes under the names of the actors that take hints."""

    def __init__(self) -> None:
        self.registry, self.events, self.metrics = Registry(), EventStream(), Metrics()
        self.ledger = open_inline()
        self.feed, self.samples = EventFeed(self.ledger), StatsView(TrioClock())
        self.hints = GatewayHints(self.registry, self.feed, self.samples)
        self.journals: dict[str, Journal[Any]] = {name: Journal() for name in NAMES}
        self.events.add_listener(observer(self.metrics))

    def tree(self, *names: str) -> SupervisorSpec:
        def child(name: str) -> ChildSpec:
            return ChildSpec(name, lambda: Probe(self.journals[name]), name=name)

        return SupervisorSpec("root", [child(name) for name in names])

    def lost(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value("engram_hints_lost_total", {"to": name})


def give_all(hints: GatewayHints) -> None:
    hints.session_changed("s")
    hints.payments_changed()
    hints.outbox_changed()


async def test_each_hint_goes_to_the_owner_of_the_facts(autojump_clock: MockClock) -> None:
    house = House()
    async with open_system(house.tree(*NAMES), registry=house.registry, events=house.events):
        give_all(house.hints)
        taken = {name: await journal.next() for name, journal in house.journals.items()}
    assert taken == {
        "payment_verifier": Reread(),
        "provisioner": SessionChanged("s"),
        "relay_emitter": OutboxGrew(),
    }
    house.ledger.close()


async def test_hints_to_actors_that_are_down_are_counted_each_under_its_name(autojump_clock: MockClock) -> None:
    house = House()
    async with open_system(house.tree(), registry=house.registry, events=house.events):
        give_all(house.hints)
        give_all(house.hints)
    assert {name: house.lost(name) for name in NAMES} == dict.fromkeys(NAMES, 2)
    house.ledger.close()


@pytest.mark.parametrize("hint", ["session_changed", "session_moved", "node_observed", "node_turned"])
async def test_what_happens_to_a_session_wakes_its_open_streams(autojump_clock: MockClock, hint: str) -> None:
    house = House()
    with house.feed.subscribe(b"\1" * 32, "s") as stream, house.feed.subscribe(b"\1" * 32, "other") as other:
        getattr(house.hints, hint)("s")
        with trio.move_on_after(1.0) as woken:
            await stream.changed()
        with trio.move_on_after(1.0) as untouched:
            await other.changed()
        assert (woken.cancelled_caught, untouched.cancelled_caught) == (False, True)
    house.ledger.close()


async def test_a_moved_session_is_polled_or_dropped_at_the_next_tick(autojump_clock: MockClock) -> None:
    house = House()
    house.hints.node_observed("s")
    house.hints.node_turned("s")
    assert house.samples.take_outdated() is False
    house.hints.session_moved("s")
    assert house.samples.take_outdated() is True
    house.ledger.close()


async def test_the_number_of_keys_is_unknown_until_it_was_counted() -> None:
    house = House()
    before = house.hints.usable_keys
    house.hints.keys_counted(7)
    assert (before, house.hints.usable_keys) == (None, 7)
    house.ledger.close()
