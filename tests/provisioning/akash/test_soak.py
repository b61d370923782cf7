"""Sessions come and go while nodes, providers and the chain fail at random and the gateway is restarted.

At no block is a session paid for twice. When all is whole again and the sessions are over, nothing is left on chain,
every coin that was not paid as rent is back, and the ledger knows what each deployment cost.
"""

import random
from typing import Any, Final

import msgspec
import pytest
import trio

from engram.provisioning import NoCapacity, NodeSpec, Rejected, Unavailable, Unknown
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.model import Deployment, DeploymentState
from tests.doubles.akash import addresses, bank
from tests.doubles.akash.store import ONE, UACT
from tests.provisioning.akash.worlds import KEY, World, world
from tests.sampling import NIGHTLY, SEED

SESSIONS: Final = 6
LIVES: Final = 4
LIFE_S: Final = 2.0
"""Real seconds; the chain's clock runs sixty times as fast."""
BEGINNING: Final = 10**9
NODE_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"stale": True},
    {"syncing": True},
    {"down": True},
    {"error_500": 5},
    {"broadcast_then_500": 2},
    {"broadcast_lost": 1},
    {"garbage": 3},
    {"huge": 1},
)
PROVIDER_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"no_bids": True},
    {"dead": True},
    {"impostor": True},
    {"never_ready": True},
    {"ignores_manifest": True},
    {"loses_workloads": True},
    {"error_500": 5},
    {"status_404": 5},
    {"slow_s": 0.5},
    {"redirects": "http://127.0.0.1:1/"},
    {"keeps_running": True},
)
VAULT: Final = addresses.of_name("vault")
CHAIN_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"drop_waiting": True},
    {"no_blocks": True},
    {"out_of_gas": 1},
)


class Soak:
    def __init__(self, made: World, rng: random.Random) -> None:
        self.world = made
        self.rng = rng
        self.backend = made.backend
        self.breaking = trio.CancelScope()
        self.wrong: list[str] = []
        self.served = 0
        made.double.chain.after_block.append(self.look)

    # What must hold at every block.

    def look(self) -> None:
        """After each block: no session has two leases that are paid."""
        tokens = {row.dseq: row.token for row in self.world.rows()}
        leases = [
            tokens.get(lease.dseq, f"unknown {lease.dseq}")
            for lease in self.world.double.chain.state.leases.values()
            if lease.owner == KEY.address and lease.serves
        ]
        if len(leases) > len(set(leases)):
            self.wrong.append(f"paid twice: {sorted(leases)}")

    def made(self) -> list[Deployment]:
        """The rows of deployments that were on chain."""
        known = {row.dseq for row in self.world.double.chain.state.deployments.values()}
        return [row for row in self.world.rows() if row.dseq in known]

    # What goes on.

    async def session(self, number: int) -> None:
        """What the outer saga does with a node, again and again."""
        spec = self.world.spec(f"s{number}", f"t{number}")
        if await self.launched(spec):
            self.served += 1
            await trio.sleep(self.rng.uniform(0, 2))
            if self.rng.random() < 0.4:
                await self.insist(spec, "stop")
                await self.launched(spec)
            if self.rng.random() < 0.4:
                await self.backend.extend(spec.token, spec.ends_at + 3_600)
            await trio.sleep(self.rng.uniform(0, 2))
        await self.insist(spec, "destroy")

    async def launched(self, spec: NodeSpec) -> bool:
        for _ in range(6):
            try:
                await self.backend.launch(spec)
                return True
            except (Unavailable, Unknown, NoCapacity):
                await trio.sleep(self.rng.uniform(0.1, 0.5))
            except Rejected:
                return False
        return False

    async def insist(self, spec: NodeSpec, what: str) -> None:
        while True:
            try:
                await getattr(self.backend, what)(spec.token)
                return
            except (Unavailable, Unknown):
                await trio.sleep(0.2)

    async def break_things(self) -> None:
        """A few faults at a time, each for a short while; of two nodes one always works."""
        double, rng = self.world.double, self.rng
        with self.breaking:
            while True:
                self.mend()
                if rng.random() < 0.7:
                    put(rng.choice(double.faults.nodes), rng.choice(NODE_FAULTS))
                for name in rng.sample(sorted(double.providers), 2):
                    put(double.faults.providers[name], rng.choice(PROVIDER_FAULTS))
                if rng.random() < 0.4:
                    put(double.faults.chain, rng.choice(CHAIN_FAULTS))
                unlucky = double.providers[rng.choice(sorted(double.providers))]
                if rng.random() < 0.3:
                    for tenancy in unlucky.tenancies.values():
                        unlucky.leave(tenancy, "lease_closed_reason_unstable")
                if rng.random() < 0.3:
                    await unlucky.kill_workloads()
                poor = self.served > 0 and rng.random() < 0.15
                if poor:
                    self.lend(KEY.address, VAULT)
                with trio.CancelScope(shield=poor):
                    await trio.sleep(rng.uniform(0.2, 1.0))
                if poor:
                    self.lend(VAULT, KEY.address)
        self.mend()

    def lend(self, source: str, target: str) -> None:
        """Move all uact: an account that is empty for a while."""
        state = self.world.double.chain.state
        bank.send(state, source, target, UACT, bank.balance(state, source, UACT))

    def mend(self) -> None:
        """Take all faults back."""
        faults = self.world.double.faults
        for holder in (*faults.nodes, *faults.providers.values(), faults.chain):
            whole = type(holder)()
            put(holder, {name: getattr(whole, name) for name in holder.__struct_fields__})

    async def life(self, left: set[int]) -> None:
        """The gateway from its start: its sessions go on from the ledger. Ends when all are over and closed."""
        self.backend = AkashBackend(self.world.make_parts())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.backend.watch, lambda token: None)
            async with trio.open_nursery() as sessions:
                for number in sorted(left):
                    sessions.start_soon(self.to_the_end, number, left)
            while self.world.active() or any(row.cost_uact is None for row in self.made()):  # noqa: ASYNC110
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()

    async def to_the_end(self, number: int, left: set[int]) -> None:
        await self.session(number)
        left.discard(number)

    async def run(self) -> None:
        """Several lives that end in the middle of things, then one in which nothing fails any more."""
        left = set(range(SESSIONS))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.break_things)
            for _ in range(LIVES):
                with trio.move_on_after(LIFE_S):
                    await self.life(left)
            self.breaking.cancel()
            with trio.fail_after(90):
                await self.life(left)


def put(holder: msgspec.Struct, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(holder, name, value)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(SEED, SEED + (50 if NIGHTLY else 1)))
async def test_nothing_is_paid_twice_and_nothing_is_left_whatever_fails(seed: int) -> None:
    async with world() as made:
        soak = Soak(made, random.Random(seed))
        await soak.run()
        state = made.double.chain.state
        assert soak.wrong == []
        assert made.double.control.state()["chain"]["problems"] == []
        assert made.active() == []
        rent = sum(each.withdrawn for each in state.payments.values() if each.aid.startswith(KEY.address)) // ONE
        assert bank.balance(state, KEY.address, UACT) == BEGINNING - rent
        rows = made.rows()
        assert {row.state for row in rows} <= {DeploymentState.CLOSED}
        assert sum(row.cost_uact or 0 for row in rows) == rent
        assert soak.served
