"""A fleet in a bad world: random sales, stops, deaths, backend faults, crashes and kills of the gateway.

Whatever happens, once the world behaves again every session is where it should be, every node that runs belongs to a
running session, and a session that failed is refunded once.
"""

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from engram.ledger.inline import open_inline
from engram.provisioning import NoCapacity, ProvisioningError, Rejected, Unavailable, Unknown, records
from engram.provisioning.actor import CHECK_NODES_S
from engram.sessions import SessionEvent
from tests.fakes.nodes import InMemoryProvisioner
from tests.provisioning.fleets import World
from tests.provisioning.test_actor import running
from tests.sampling import NIGHTLY

FAULTS: dict[str, tuple[ProvisioningError, ...]] = {
    "launch": (NoCapacity("x"), Rejected("x"), Unavailable("x"), Unknown("x")),
    "destroy": (Unavailable("x"), Unknown("x")),
    "stop": (Unavailable("x"), Unknown("x")),
    "list": (Unavailable("x"),),
    "inspect": (Unavailable("x"), Unknown("x")),
    "extend": (Unavailable("x"),),
}

ACTIONS = st.one_of(
    st.just(("sell",)),
    st.tuples(st.just("stop"), st.integers(0, 5)),
    st.tuples(st.just("die"), st.integers(0, 5)),
    st.tuples(st.just("sick"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.3, 2.0, 7.0, 40.0])),
    st.tuples(st.just("kill"), st.integers(0, 6)),
    st.sampled_from(sorted(FAULTS)).flatmap(
        lambda call: st.tuples(st.just("fault"), st.just(call), st.integers(0, len(FAULTS[call]) - 1))
    ),
)


SETTLES_S = 400.0
"""Nothing that was begun takes longer. What costs are the fleet's looks: by night this time is always waited."""
LASTS_S = 2.5 * CHECK_NODES_S
AT_REST = {"active", "stopped", "failed"}


class Chaos:
    """Plays the actions; `kill` ends the gateway some commits or effects later, wherever it is then."""

    def __init__(self, actions: list[tuple[object, ...]]) -> None:
        self.ledger = open_inline()
        self.world = World(self.ledger, InMemoryProvisioner(startup_s=2.0))
        self.actions = iter(actions)
        self.stopped: set[str] = set()
        self.sold = 0
        self.gateway = trio.CancelScope()
        self.countdown = -1
        self.problems: list[str] = []
        self.ledger.after_commit = self.tick
        self.world.double.after_effect = self.tick

    def tick(self) -> None:
        double = self.world.double
        running = [double.specs[token].session_id for token in double.alive]
        if len(running) != len(set(running)):
            self.problems.append("a second node of a session was started")
        self.countdown -= 1
        if self.countdown == 0:
            self.gateway.cancel()

    async def run(self) -> None:
        while True:
            with trio.CancelScope() as self.gateway:
                async with running(self.world.fleet):
                    for action in self.actions:
                        await self.act(action)
                    self.countdown = -1
                    self.world.double.faults.clear()
                    self.world.double.sick.clear()
                    await self.come_to_rest()
                break
        self.check()
        self.ledger.close()

    async def come_to_rest(self) -> None:
        """Wait until no session has work left, SETTLES_S at most, and whether that lasts."""
        with trio.move_on_after(SETTLES_S):
            while NIGHTLY or not self.rests():  # noqa: ASYNC110  # virtual time
                await trio.sleep(2.0)
        await trio.sleep(LASTS_S)

    def rests(self) -> bool:
        states = {self.world.state(f"s{number}") for number in range(self.sold)}
        return states <= AT_REST and not self.ledger.write_now(records.open_work)

    async def act(self, action: tuple[object, ...]) -> None:
        world, double = self.world, self.world.double
        match action:
            case ("sell",):
                world.sell(f"s{self.sold}", paid_s=1e6)
                self.sold += 1
            case ("stop", int(number)) if number < self.sold:
                if world.happens(SessionEvent.END, f"s{number}") is not None:
                    self.stopped.add(f"s{number}")
            case ("die", int(number)) if number < self.sold:
                double.kill(world.session(f"s{number}").node_token or "")
            case ("sick", int(number)) if number < self.sold:
                double.sick.add(world.session(f"s{number}").node_token or "")
            case ("wait", float(seconds)):
                await trio.sleep(seconds)
            case ("kill", int(steps)):
                self.countdown = steps + 1
            case ("fault", str(call), int(which)):
                double.faults.setdefault(call, []).append(FAULTS[call][which])
            case _:
                pass

    def check(self) -> None:
        assert not self.problems
        world, double = self.world, self.world.double
        ids = [f"s{number}" for number in range(self.sold)]
        states = {one: world.state(one) for one in ids}
        assert set(states.values()) <= AT_REST
        active = {world.session(one).node_token for one in ids if states[one] == "active"}
        assert set(double.specs) == active
        assert set(double.alive) == active
        assert set(self.ledger.write_now(records.live_backends)) == active
        assert sorted(world.failed) == sorted(one for one in ids if states[one] == "failed")
        for one in ids:
            history = world.states(one)
            assert (one in self.stopped) == (states[one] == "stopped")
            if "stopping" in history:
                assert history[history.index("stopping") :] == ["stopping", "stopped"]
            assert world.session(one).crashes == 0


@settings(max_examples=400 if NIGHTLY else 25)
@given(st.lists(ACTIONS, max_size=25))
@example([("sell",), ("kill", 1), ("wait", 0.0), ("wait", 7.0)])
@example([("sell",), ("fault", "launch", 3), ("kill", 2), ("wait", 7.0), ("stop", 0), ("kill", 0), ("wait", 7.0)])
@example([("fault", "launch", 1), ("sell",), ("wait", 7.0)])
@example([("fault", "launch", 1), ("sell",), ("kill", 3), ("wait", 7.0)])
@example([("fault", "launch", 0)] * 3 + [("sell",), ("wait", 40.0), ("kill", 0), ("sell",), ("wait", 7.0)])
@example([("sell",), ("wait", 7.0), ("fault", "launch", 1), ("die", 0), ("wait", 2.0), ("kill", 0), ("wait", 7.0)])
@example([("sell",), ("wait", 7.0), ("die", 0), ("stop", 0), ("wait", 0.3), ("kill", 1), ("wait", 7.0)])
def test_whatever_happens_every_session_ends_where_it_should(actions: list[tuple[object, ...]]) -> None:
    async def main() -> None:
        with trio.fail_after(1e5):
            await Chaos(actions).run()

    trio.run(main, clock=MockClock(autojump_threshold=0))
