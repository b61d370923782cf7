"""Each rule by which a chain takes weights, on its double: what is sent, what is not, what the operator is shown."""

from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from structlog.testing import capture_logs

from engram import kill_points
from engram.chain.errors import EndpointUnreachable
from engram.chain.read.runtime import ERA_BLOCKS
from engram.chain.submit import commit_marks
from engram.chain.submit.hashed_weights import HashedCommit
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import InclusionWait
from engram.chain.sync.subnets import Subnets
from engram.validator import relaying
from engram.validator.due import Due
from engram.validator.model import SentState
from tests.chain.test_sender import VALIDATOR
from tests.fakes.hashing_chain import HashingChain
from tests.fakes.living_chain import NETUID
from tests.validator.benches import key
from tests.validator.setters import SUBTENSOR, RuledChain, Setter, setting

pytestmark = pytest.mark.rules

TEMPO = 10
TIMELOCKED_BLOCKS = 450
"""More than two epochs of 200 blocks: whatever was committed has been revealed, or dropped."""


def ruled(at: Setter) -> RuledChain:
    assert isinstance(at.chain, RuledChain)
    return at.chain


def seal(at: Setter, blocks: int) -> None:
    for _ in range(blocks):
        at.chain.seal()


def submissions(at: Setter) -> int:
    return at.chain.asked.count("author_submitExtrinsic")


async def test_weights_are_committed_under_a_timelock_once_an_epoch(tmp_path: Path) -> None:
    async with setting(tmp_path, RuledChain) as at:
        ruled(at).timelocked()
        await at.score({1: 1.0, 2: 0.5})
        before = at.weights()
        for _ in range(3 * (TEMPO + 1) // 5 + 1):
            assert await at.look() is Due.SET
            seal(at, 3)
        assert at.weights() == before, "nothing is set in the open"
        sent = await at.sent()
        assert {each.state for each in sent} == {SentState.SET}
        epochs = [(each.block + NETUID + 1) // (TEMPO + 1) for each in sent]
        assert len(epochs) == len(set(epochs)) >= 3
        assert len(ruled(at).commits()) == len(sent) == submissions(at)


async def test_weights_are_committed_by_hash_and_revealed_in_their_window(tmp_path: Path) -> None:
    async with setting(tmp_path, HashingChain) as at:
        await at.score({1: 1.0, 2: 0.5})
        verdict = await at.look()
        while verdict is not Due.SET:
            verdict = await at.look()
        commits = at.chain.get(SUBTENSOR, "WeightCommits", NETUID, VALIDATOR.public_key)
        assert len(commits) == 1
        assert at.weights() != {1: 65_535, 2: 32_768}
        for _ in range(3 * (TEMPO + 1)):
            await at.look()
            if at.weights() == {1: 65_535, 2: 32_768}:
                break
        assert at.weights() == {1: 65_535, 2: 32_768}
        epochs = [(each.block + NETUID + 1) // (TEMPO + 1) for each in await at.sent() if each.state is SentState.SET]
        assert len(epochs) == len(set(epochs))


async def test_files_of_others_and_damaged_ones_keep_no_commit_from_being_revealed(tmp_path: Path) -> None:
    async with setting(tmp_path, HashingChain) as at:
        kept = at.setter._ports.kept
        elsewhere = HashedCommit(
            genesis=bytes(32),
            netuid=NETUID,
            hotkey=VALIDATOR.public_key,
            uids=(1,),
            values=(65_535,),
            version_key=0,
            salt=(1,) * 8,
            signed_at_block=1,
        )
        kept.keep(elsewhere)
        kept.keep(msgspec.structs.replace(elsewhere, hotkey=key(1).public_key))
        damaged = tmp_path / "commits" / f"{NETUID}-half.json"
        damaged.touch(0o600)
        damaged.write_text("{")
        await at.score({1: 1.0, 2: 0.5})
        with capture_logs() as logs:
            for _ in range(3 * (TEMPO + 1)):
                await at.look()
                if at.weights() == {1: 65_535, 2: 32_768}:
                    break
        assert at.weights() == {1: 65_535, 2: 32_768}
        assert "weights_not_revealed" not in {each["event"] for each in logs}
        (warning,) = (await at.noted()).warnings
        assert warning.startswith("files of kept commits that cannot be used (1): ")
        assert "half.json" in warning


async def test_weights_wait_for_the_subnets_rate_limit(tmp_path: Path) -> None:
    async with setting(tmp_path, lambda: RuledChain(weights_rate_limit=0)) as at:
        await at.score({1: 1.0})
        assert await at.look() is Due.SET
        ruled(at).rules["weights_rate_limit"] = 30
        set_at = (await at.sent())[0].block
        seal(at, TEMPO + 1)
        assert await at.look() is Due.RATE_LIMITED
        assert (await at.noted()).verdict == "rate_limited"
        assert submissions(at) == 1
        seal(at, set_at + 30 - at.chain.head)
        assert await at.look() is Due.SET
        assert submissions(at) == 2


async def test_the_operator_is_warned_before_the_activity_cutoff(tmp_path: Path) -> None:
    async with setting(tmp_path, RuledChain, dry_run=True) as at:
        await at.score({1: 1.0})
        metagraph = at.subnets.get(NETUID)
        assert metagraph is not None
        silent = metagraph.block - metagraph.neurons[0].last_update_block
        ruled(at).rules["activity_cutoff"] = silent * 2
        await at.look()
        assert (await at.noted()).warnings == []
        ruled(at).rules["activity_cutoff"] = silent + 5
        await at.look()
        (warning,) = (await at.noted()).warnings
        assert "activity_cutoff" in warning
        assert f"after {silent + 5} the chain counts" in warning


async def test_weights_bear_the_version_that_the_subnet_wants(tmp_path: Path) -> None:
    async with setting(tmp_path, lambda: RuledChain(weights_version=7)) as at:
        at.chain.put(7, SUBTENSOR, "WeightsVersionKey", NETUID)
        await at.score({1: 1.0})
        assert await at.look() is Due.SET


async def test_a_newer_version_than_ours_stops_the_weights_and_says_so(tmp_path: Path) -> None:
    async with setting(tmp_path, lambda: RuledChain(weights_version=8), version=7) as at:
        await at.score({1: 1.0})
        assert await at.look() is Due.OUTDATED
        assert submissions(at) == 0
        assert (await at.noted()).verdict == "outdated"


async def test_fewer_weights_than_the_subnet_wants_are_not_sent(tmp_path: Path) -> None:
    async with setting(tmp_path, lambda: RuledChain(min_allowed_weights=3)) as at:
        await at.score({1: 1.0, 2: 0.5, 3: 0.0})
        assert await at.look() is Due.TOO_FEW
        assert submissions(at) == 0
        assert (await at.noted()).detail == "the subnet wants at least 3 weights, not 2"
        await at.score({1: 1.0, 2: 0.5, 3: 0.2})
        assert await at.look() is Due.SET


async def test_a_weight_over_the_subnet_s_limit_is_clipped_and_the_others_get_the_rest(tmp_path: Path) -> None:
    async with setting(tmp_path, lambda: RuledChain(max_weights_limit=26_214)) as at:
        await at.score({1: 1.0, 2: 0.1})
        assert await at.look() is Due.TOO_FEW
        detail = (await at.noted()).detail
        assert detail == "the subnet allows 0.4000 of all weight for one uid: 3 weights at least, not 2"
        await at.score({1: 1.0, 2: 0.2, 3: 0.1, 4: 0.0})
        assert await at.look() is Due.SET
        held = at.weights()
        assert set(held) == {1, 2, 3}
        assert max(held.values()) / sum(held.values()) <= 26_214 / 65_535
        (sent,) = await at.sent()
        assert sent.weights == pytest.approx({1: 0.4, 2: 0.4, 3: 0.2}, abs=1e-4)


async def test_a_delay_of_reveals_over_the_immunity_period_warns(tmp_path: Path) -> None:
    chain = RuledChain(commit_reveal_weights_enabled=True, commit_reveal_period=3, immunity_period=29)
    async with setting(tmp_path, lambda: chain, dry_run=True) as at:
        await at.score({1: 1.0})
        await at.look()
        (warning,) = (await at.noted()).warnings
        assert "revealed after 30 blocks" in warning
        assert "immune for 29" in warning


@pytest.mark.parametrize("lost", ["permit", "registration"])
async def test_no_permit_and_no_registration_are_states_and_it_goes_on_looking(tmp_path: Path, lost: str) -> None:
    async with setting(tmp_path, RuledChain) as at:
        await at.score({1: 1.0})
        metagraph = at.subnets.get(NETUID)
        assert metagraph is not None
        recorded, own = at.chain.metagraphs["0xc201"], VALIDATOR.public_key
        permits = [each.validator_permit for each in metagraph.neurons]
        if lost == "permit":
            ruled(at).rules["validator_permit"] = [False, *permits[1:]]
        else:
            at.chain.metagraphs["0xc201"] = lambda scale: scale.replace(own, bytes(range(32)))
        expected = Due.NO_PERMIT if lost == "permit" else Due.NOT_REGISTERED
        new, gone = ("not yet permitted", "permit lost") if lost == "permit" else ("never registered", "deregistered")
        for detail in (new, new):
            assert await at.look() is expected
            assert (await at.noted()).verdict == str(expected)
            assert (await at.noted()).detail == detail
        assert submissions(at) == 0
        ruled(at).rules.pop("validator_permit", None)
        at.chain.metagraphs["0xc201"] = recorded
        assert await at.look() is Due.SET
        at.setter._ports = msgspec.structs.replace(at.setter._ports, subnets=Subnets(at.clock, (NETUID,), 60.0))
        assert await at.setter.look() is Due.CHAIN_STALE, "as at each start"
        assert (await at.noted()).detail == "last known: permitted"
        at.setter._ports = msgspec.structs.replace(at.setter._ports, subnets=at.subnets)
        if lost == "permit":
            ruled(at).rules["validator_permit"] = [False, *permits[1:]]
        else:
            at.chain.metagraphs["0xc201"] = lambda scale: scale.replace(own, bytes(range(32)))
        for _ in range(2):
            assert await at.look() is expected
            assert (await at.noted()).detail == gone


async def test_weights_that_the_chain_refuses_are_tried_again_after_ten_blocks_and_say_why(tmp_path: Path) -> None:
    async with setting(tmp_path, RuledChain) as at:
        at.chain.put(True, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)  # which the metagraph does not say
        await at.score({1: 1.0})
        assert await at.look() is Due.REFUSED
        assert "CommitRevealEnabled" in (await at.noted()).detail
        tried = (await at.sent())[0].block
        (refused,) = at.settled
        assert refused.state is SentState.REFUSED
        noted = relaying.audit(refused)
        assert noted is not None
        assert noted.startswith(f"the chain has refused the weights of epoch {refused.epoch}: CommitRevealEnabled")
        seal(at, tried + 7 - at.chain.head)
        assert await at.look() is Due.REFUSED
        assert "CommitRevealEnabled" in (await at.noted()).detail
        assert submissions(at) == 1
        at.chain.put(False, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)
        seal(at, 10)
        assert await at.look() is Due.SET
        assert [each.state for each in await at.sent()] == [SentState.SET, SentState.REFUSED]
        assert relaying.audit(at.settled[-1]) is None


async def test_an_epoch_is_the_chains_own_whatever_the_tempo_says(tmp_path: Path) -> None:
    async with setting(tmp_path, lambda: RuledChain(tempo=100, last_step=1_099)) as at:
        await at.score({1: 1.0})
        assert await at.look() is Due.SET
        ruled(at).rules["tempo"] = 20  # as its owner may; by blocks alone another epoch would have begun
        seal(at, 25)
        assert await at.look() is Due.SET
        assert submissions(at) == 1
        ruled(at).rules["tempo"] = 200  # and by its index none would begin for long
        seal(at, 5)
        ruled(at).rules["last_step"] = at.chain.head
        assert await at.look() is Due.SET
        assert submissions(at) == 2


@pytest.mark.parametrize("moves_at_commit", [True, False])
async def test_a_commit_that_is_included_in_the_next_epoch_is_that_epochs(
    tmp_path: Path, moves_at_commit: bool
) -> None:
    """LastUpdate moves at the commit on some runtimes, at the reveal on others."""
    async with setting(tmp_path, lambda: RuledChain(tempo=50, last_step=1_099)) as at:
        chain = ruled(at)
        chain.timelocked()
        await at.score({1: 1.0})
        submit = chain._submit

        def epoch_ends(octets: bytes) -> object:
            chain.rules["last_step"] = chain.head + 1
            if moves_at_commit:
                updates = chain.get(SUBTENSOR, "LastUpdate", NETUID)
                updates[0] = chain.head + 1
                chain.put(updates, SUBTENSOR, "LastUpdate", NETUID)
            return submit(octets)

        chain._submit = epoch_ends  # type: ignore[method-assign]
        for _ in range(10):
            await at.look()
        assert submissions(at) == len(chain.commits()) == 1


def reveals_an_earlier_commit(at: Setter) -> None:
    """As the chain does in each epoch: the weights of the commit before are set, and LastUpdate moves."""
    updates = at.chain.get(SUBTENSOR, "LastUpdate", NETUID)
    updates[0] = at.chain.head
    at.chain.put(updates, SUBTENSOR, "LastUpdate", NETUID)


async def test_the_reveal_of_the_commit_before_does_not_make_a_lost_one_set(tmp_path: Path) -> None:
    async with setting(tmp_path, RuledChain) as at:
        ruled(at).timelocked()
        await at.score({1: 1.0})
        impatient = Sender([at.chain], waiting=InclusionWait(0.001, 0.05))
        at.setter._ports = msgspec.structs.replace(at.setter._ports, sender=impatient)
        at.chain.drop_submissions = True
        assert await at.look() is Due.UNSETTLED
        (sent,) = await at.sent()
        seal(at, 3)
        reveals_an_earlier_commit(at)
        for _ in range(3):
            seal(at, 1)
            await at.look()
        assert at.chain.get(SUBTENSOR, "LastUpdate", NETUID)[0] > sent.block
        found = await at.sent()
        assert found[-1].state is SentState.UNKNOWN
        assert at.settled == [], "nothing is relayed of what may not be on the chain"


@pytest.mark.parametrize("timelocked", [True, False])
async def test_weights_that_can_no_longer_be_included_are_lost_and_the_epoch_s_are_set_anew(
    tmp_path: Path, timelocked: bool
) -> None:
    async with setting(tmp_path, lambda: RuledChain(tempo=200, last_step=1_100)) as at:
        if timelocked:
            ruled(at).timelocked()
        await at.score({1: 1.0})
        assert await at.look() is Due.SET
        ruled(at).rules["last_step"] = at.chain.head + 1
        patient = at.setter._ports.sender
        impatient = Sender([at.chain], waiting=InclusionWait(0.001, 0.05))
        at.setter._ports = msgspec.structs.replace(at.setter._ports, sender=impatient)
        at.chain.drop_submissions = True
        assert await at.look() is Due.UNSETTLED
        sent = (await at.sent())[0]
        at.chain.drop_submissions = False
        at.setter._ports = msgspec.structs.replace(at.setter._ports, sender=patient)
        reveals_an_earlier_commit(at) if timelocked else None
        seal(at, sent.block + ERA_BLOCKS - 3 - at.chain.head)
        assert await at.look() in (Due.SET, Due.UNSETTLED)
        assert (await at.sent())[0].state is SentState.UNKNOWN, "it may still be included"
        seal(at, 5)
        assert await at.look() is Due.SET
        newest, lost, _ = await at.sent()
        assert (newest.state, lost.state) == (SentState.SET, SentState.LOST)
        assert newest.epoch == lost.epoch == sent.epoch
        noted = relaying.audit(at.settled[1])
        assert noted is not None
        assert noted.startswith(f"the weights of epoch {sent.epoch} were never included: ")
        assert submissions(at) == 3


async def test_a_commit_that_an_epoch_s_end_may_have_revealed_stays_unknown(tmp_path: Path) -> None:
    async with setting(tmp_path, lambda: RuledChain(tempo=200, last_step=1_100)) as at:
        ruled(at).timelocked()
        await at.score({1: 1.0})
        impatient = Sender([at.chain], waiting=InclusionWait(0.001, 0.05))
        at.setter._ports = msgspec.structs.replace(at.setter._ports, sender=impatient)
        at.chain.drop_submissions = True
        assert await at.look() is Due.UNSETTLED
        (sent,) = await at.sent()
        seal(at, 20)
        ruled(at).rules["last_step"] = at.chain.head
        seal(at, ERA_BLOCKS)
        await at.look()
        assert (await at.sent())[-1].state is SentState.UNKNOWN
        relayed = [each for each in at.settled if each.epoch == sent.epoch]
        assert [each.state for each in relayed] == [SentState.UNKNOWN], "its scores are relayed"
        noted = relaying.audit(relayed[0])
        assert noted is not None
        assert noted.startswith(f"it is not known whether the chain took the weights of epoch {sent.epoch}: ")
        for blocks in (1, TIMELOCKED_BLOCKS):
            seal(at, blocks)
            await at.look()
        assert [each.id for each in at.settled].count(sent.id) == 1, "once"
        assert (await at.sent())[-1].state is SentState.UNKNOWN


async def test_a_commit_whose_reveal_is_long_over_when_the_validator_comes_back_is_relayed_as_unknown(
    tmp_path: Path,
) -> None:
    async with setting(tmp_path, lambda: RuledChain(tempo=200, last_step=1_100)) as at:
        ruled(at).timelocked()
        await at.score({1: 1.0})
        impatient = Sender([at.chain], waiting=InclusionWait(0.001, 0.05))
        at.setter._ports = msgspec.structs.replace(at.setter._ports, sender=impatient)
        at.chain.drop_submissions = True
        assert await at.look() is Due.UNSETTLED
        (sent,) = await at.sent()
        seal(at, ERA_BLOCKS + TIMELOCKED_BLOCKS)
        for _ in range(2):
            await at.look()
        relayed = [each.state for each in at.settled if each.epoch == sent.epoch]
        assert relayed == [SentState.UNKNOWN]


async def test_all_weights_whose_outcome_is_open_are_looked_for_not_the_newest_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with setting(tmp_path, lambda: RuledChain(tempo=80, last_step=1_100)) as at:
        ruled(at).timelocked()
        await at.score({1: 1.0})
        outcome = at.setter._outcome

        async def not_seen(*given: Any) -> tuple[SentState, str, int | None]:
            await outcome(*given)
            return SentState.UNKNOWN, "no answer", None

        async def not_told(*_: object) -> NoReturn:
            raise EndpointUnreachable("node: no answer within 10 s")

        with monkeypatch.context() as silent:
            silent.setattr(at.setter, "_outcome", not_seen)
            silent.setattr(commit_marks, "find_commit", not_told)
            assert await at.look() is Due.UNSETTLED
            seal(at, 1_100 + 81 - at.chain.head)
            ruled(at).rules["last_step"] = at.chain.head
            assert await at.look() is Due.UNSETTLED
        assert [each.state for each in await at.sent()] == [SentState.UNKNOWN] * 2
        assert await at.look() is Due.SET
        assert [each.state for each in await at.sent()] == [SentState.SET] * 2
        assert len(ruled(at).commits()) == 2


class Dead(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("arrived", [True, False])
async def test_after_a_crash_a_commit_is_set_when_the_chain_holds_it_and_open_when_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    def crash(name: str) -> None:
        if name == ("weights:after" if arrived else "weights:before"):
            raise Dead

    async with setting(tmp_path, RuledChain) as at:
        ruled(at).timelocked()
        await at.score({1: 1.0})
        with monkeypatch.context() as patch, pytest.raises(Dead):
            patch.setattr(kill_points, "point", crash)
            await at.look()
        assert len(ruled(at).commits()) == int(arrived)
        reveals_an_earlier_commit(at)
        again = Setter(at.ledger, at.chain, tmp_path, boot="second")
        await again.look()
        (sent,) = await again.sent()
        assert sent.state is (SentState.SET if arrived else SentState.INTENT)
        assert [each.state for each in again.settled] == [SentState.SET] * int(arrived)
