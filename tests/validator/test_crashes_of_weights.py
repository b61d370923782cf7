"""A validator that dies anywhere, from its first round to weights that are revealed, goes on as if it had not.

Rounds over miners and weights on the chain's double, in virtual time: killed around each commit, each request and each
extrinsic, in the open and by commit and reveal. A killed process does nothing more, so from then on neither its ledger
nor the chain takes anything of it. Afterwards the weights of each round are those of a life without a kill, and no
epoch of the chain has had two.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engram import kill_points
from engram.chain.model import Axon, Metagraph
from engram.ledger import open_inline
from engram.ledger.inline import InlineLedger
from engram.validator import gardening, scoring, standing
from engram.validator.model import RoundState, Sent, SentState
from engram.validator.records import rounds as round_records
from engram.validator.records import standings as miner_records
from tests.chain.test_sender import VALIDATOR
from tests.fakes.hashing_chain import HashingChain
from tests.fakes.living_chain import NETUID, LivingChain
from tests.sampling import sample
from tests.validator.benches import Bench
from tests.validator.networks import Network
from tests.validator.setters import SUBTENSOR, RuledChain, Setter
from tests.validator.subnets import miner_key
from tests.validator.toy_miners import Keeps

ROUNDS = 2
TEMPO = 10
STEADY, VARYING = 7, 9
LOOKS = 90
"""More than the 64 blocks for which an extrinsic may still be included."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class Varies(Keeps):
    """Proves by the legacy form in every other round, so that an average shows each round that it is made of."""

    legacy = False

    def proof(self, cid: str, vector: bytes, body: dict[str, Any]) -> Any:
        if self.legacy:
            return {"embedding_hash": "00" * 32, "proof": "00" * 32}
        return super().proof(cid, vector, body)


class Reaper:
    """Kills at one moment, `(what, number, moment)`, and keeps the dead from doing anything."""

    def __init__(self, at: tuple[str, int, str] | None) -> None:
        self.at = at
        self.passed: Counter[str] = Counter()
        self.dead = False
        self.weighing = False
        """Within a look at the weights."""

    def around(self, what: str, work: Callable[[], Any]) -> Any:
        self._alive()
        self.passed[what] += 1
        self._strike(what, "before")
        done = work()
        self._strike(what, "after")
        return done

    def point(self, name: str) -> None:
        if not name.startswith(("begin:", "commit:")):
            self.around(name, lambda: None)

    def _alive(self) -> None:
        if self.dead:
            raise Killed

    def _strike(self, what: str, moment: str) -> None:
        if self.at == (what, self.passed[what], moment):
            self.dead = True
            raise Killed


class World:
    """What outlives a process: the chain, the miners, the ledger and the folder."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.folder = folder
        self.ledger: InlineLedger = open_inline()
        self.chain: LivingChain = HashingChain() if mode == "hash" else RuledChain()
        self.moves_at_commit = mode == "timelocked"
        self.by_hash = mode == "hash"
        if mode.startswith("timelocked"):
            assert isinstance(self.chain, RuledChain)
            self.chain.timelocked()
        self.steady = Keeps(miner_key(STEADY), url="http://127.0.0.1:7")
        self.varying = Varies(miner_key(VARYING), url="http://127.0.0.1:9")
        self.included: list[tuple[str, int]] = []
        """Calls about weights, and their blocks."""
        self.held: list[dict[int, int]] = []
        """The weights on the chain after each of those that set them."""
        for name in ("set_weights", "commit_crv3_weights", "commit_weights", "reveal_weights"):
            if name in self.chain._calls:
                self.chain._calls[name] = self._noting(name, self.chain._calls[name])

    def _noting(self, name: str, call: Callable[[bytes, dict[str, Any]], None]) -> Callable[[bytes, Any], None]:
        def noted(who: bytes, arguments: dict[str, Any]) -> None:
            call(who, arguments)
            self.included.append((name, self.chain.head))
            if name in ("set_weights", "reveal_weights"):
                self.held.append(dict(self.chain.get(SUBTENSOR, "Weights", NETUID, 0)))
            if self.moves_at_commit:
                updates = self.chain.get(SUBTENSOR, "LastUpdate", NETUID)
                updates[0] = self.chain.head
                self.chain.put(updates, SUBTENSOR, "LastUpdate", NETUID)

        return noted


class Life:
    """One process, from its start to its end."""

    def __init__(self, world: World, reaper: Reaper, boot: str, seed: int = 1) -> None:
        self.world, self.reaper, self.boot = world, reaper, boot
        miners = [world.steady, world.varying]
        self.bench = Bench(
            world.ledger, miners, own=VALIDATOR, boot=boot, planted=10, challenges=1, queries=2, seed=seed
        )
        self.bench.client._http = Network(miners)  # type: ignore[assignment]
        self.setter = Setter(world.ledger, world.chain, world.folder, boot=boot)
        self.expected: dict[int, dict[int, float]] = {}
        """Weights by the averages after each round."""
        submit = type(world.chain)._submit

        def submitted(octets: bytes) -> Any:
            return reaper.around("extrinsic", lambda: submit(world.chain, octets))

        world.chain._submit = submitted  # type: ignore[method-assign]
        kept = self.setter.setter._ports.kept
        for name in ("keep", "forget"):
            work = getattr(kept, name)
            object.__setattr__(kept, name, lambda commit, work=work: reaper.around("file", lambda: work(commit)))
        world.ledger.before_commit = self._before
        world.ledger.after_commit = self._after

    def _before(self) -> None:
        self.reaper._alive()
        self.what = "weights commit" if self.reaper.weighing else "round commit"
        self.reaper.passed[self.what] += 1
        self.reaper._strike(self.what, "before")

    def _after(self) -> None:
        self.reaper._strike(self.what, "after")

    async def last(self, state: RoundState) -> int:
        found = await self.world.ledger.read(lambda c: round_records.last_round(c, NETUID, state))
        return 0 if found is None else found.id

    async def graph(self) -> Metagraph:
        await self.setter.sync()
        found = self.setter.subnets.get(NETUID)
        assert found is not None
        ports = {STEADY: 7, VARYING: 9}
        neurons = [
            msgspec.structs.replace(
                each,
                axon=Axon(ip="127.0.0.1", port=ports[each.uid], version=1, protocol=4, block=1)
                if each.uid in ports
                else None,
            )
            for each in found.neurons
        ]
        return msgspec.structs.replace(found, neurons=tuple(neurons))

    async def look(self) -> None:
        self.reaper.weighing = True
        await self.setter.look()
        self.reaper.weighing = False

    async def live(self, rounds: int) -> None:
        """Until so many rounds are closed, one of them by this process, and the weights of the last have been set."""
        world = self.world
        world.varying.legacy = await self.last(RoundState.OPEN) % 2 == 0
        await self.bench.rounds.recover()
        held = False
        while not held or await self.last(RoundState.CLOSED) < rounds:
            last = await self.last(RoundState.CLOSED)
            world.varying.legacy = (last + 1) % 2 == 0
            await self.bench.rounds.prepare(await self.graph())
            self.bench.clock.advance(601.0)
            await self.bench.gardener.tend_once()
            await self.bench.rounds.hold(await self.graph())
            held = True
            await self._expect(last + 1)
            for _ in range(3):
                await self.look()
        for _ in range(LOOKS):
            if await self._is_done():
                return
            await self.look()
            world.chain.seal()
        pytest.fail("the weights of the last round were not set")

    async def _expect(self, round_id: int) -> None:
        known = await self.world.ledger.read(miner_records.all_known)
        self.expected[round_id] = scoring.normalized(
            {each.uid: standing.weight_of(each.standing, self.world.chain.head) for each in known.values()}
        )

    async def _is_done(self) -> bool:
        sent = (await self.setter.sent())[:1]
        over = bool(sent) and sent[0].state is SentState.SET
        over = over and sent[0].round_id == await self.last(RoundState.CLOSED)
        return over and not self.setter.setter._ports.kept.holds(NETUID, VALIDATOR.public_key)


POINTS = ("round:opened", "round:answered", "round:asked", "plant:before", "plant:after")
ROUND_COMMITS, WEIGHTS_COMMITS = 66, 10
"""Of a life without a kill."""
MODES = ("plain", "timelocked", "timelocked, LastUpdate at the reveal", "hash")
OF_ROUNDS = [
    *((("round commit", number, moment)) for number in range(1, ROUND_COMMITS + 1) for moment in ("before", "after")),
    *((name, number, "before") for name in POINTS for number in (1, 2)),
]
OF_WEIGHTS = [
    (mode, (what, number, moment))
    for mode in MODES
    for what, most in (
        ("weights commit", WEIGHTS_COMMITS),
        ("weights:before", 2),
        ("weights:after", 2),
        ("extrinsic", 4 if mode == "hash" else 2),
        *([("file", 4)] if mode == "hash" else []),
    )
    for number in range(1, most + 1)
    for moment in ("before", "after")
]
CASES = [
    *(("plain", at) for at in sample("validator-round-kills", OF_ROUNDS, 1)),
    *sample("validator-weight-kills", OF_WEIGHTS, 2),
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[int, float]]:
    """The weights after each round of a life without a kill."""
    world = World("plain", tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gardening, "FAMILIES", 1)
        life = Life(world, Reaper(None), "whole")
        trio.run(life.live, ROUNDS + 1, clock=MockClock(autojump_threshold=0))
    world.ledger.close()
    assert len({tuple(each.values()) for each in life.expected.values()}) == ROUNDS + 1
    return life.expected


@pytest.mark.parametrize("mode", MODES)
async def test_a_life_without_a_kill_has_as_many_moments_as_there_are_kills(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(gardening, "FAMILIES", 1)
    world, reaper = World(mode, tmp_path), Reaper(None)
    monkeypatch.setattr(kill_points, "point", reaper.point)
    await Life(world, reaper, "whole").live(ROUNDS)
    assert reaper.passed["round commit"] == ROUND_COMMITS
    of_weights = {what: number for at_mode, (what, number, _) in OF_WEIGHTS if at_mode == mode}  # the last of each
    assert {what: reaper.passed[what] for what in of_weights} == of_weights
    assert all(reaper.passed[name] >= 2 for name in POINTS)
    world.ledger.close()


@pytest.mark.parametrize(("mode", "at"), CASES)
async def test_a_kill_changes_no_weights_and_no_epoch_has_two(
    tmp_path: Path,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expected: dict[int, dict[int, float]],
    mode: str,
    at: tuple[str, int, str],
) -> None:
    monkeypatch.setattr(gardening, "FAMILIES", 1)
    world, reaper = World(mode, tmp_path), Reaper(at)
    monkeypatch.setattr(kill_points, "point", reaper.point)
    first = Life(world, reaper, "first")
    try:
        await first.live(ROUNDS)
    except* Killed:
        pass
    assert reaper.dead, f"{at} never came"
    monkeypatch.setattr(kill_points, "point", lambda name: None)
    second = Life(world, Reaper(None), "second", seed=2)  # no key of a signer comes twice
    second.bench.clock.advance(first.bench.clock.now() - second.bench.clock.now())
    await second.live(ROUNDS)
    assert_as_without_a_kill(world, await second.setter.sent(), expected)
    rounds = await world.ledger.read(lambda c: round_records.some_rounds(c, NETUID, 20))
    assert {each.state for each in rounds} == {RoundState.CLOSED}
    known = await world.ledger.read(miner_records.all_known)
    assert {each.standing.rounds for each in known.values()} == {len(rounds)}, "each round was scored, and once"
    world.ledger.close()


def assert_as_without_a_kill(world: World, sent: list[Sent], expected: dict[int, dict[int, float]]) -> None:
    assert sent[0].state is SentState.SET
    for each in sent:
        assert each.weights == expected[each.round_id]
    commits = [block for name, block in world.included if name != "reveal_weights"]
    epochs = [(block + NETUID + 1) // (TEMPO + 1) for block in commits]
    assert len(epochs) == len(set(epochs)), "weights twice in an epoch"
    done = [each for each in reversed(sent) if each.state is SentState.SET]
    assert len(done) == len(commits), "each of them is known"
    held = [scoring.normalized(dict(each)) for each in world.held]
    wanted = [pytest.approx(each.weights, abs=1e-4) for each in done]
    if world.by_hash:
        assert held[-1] == wanted[-1]
        assert all(each in wanted for each in held)
    elif held:
        assert held == wanted
