"""Weights as the chain takes them, plain and committed."""

from typing import Any

import bittensor_core
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.chain.errors import RefusedInBlock
from engram.chain.model import Metagraph
from engram.chain.read.runtime import RuntimeTypes
from engram.chain.read.view import open_view, view_at
from engram.chain.submit.submit_extrinsic import InclusionWait, submit
from engram.chain.submit.weights import (
    DRAND_GENESIS_S,
    Weights,
    WeightsInvalid,
    crv3_payload,
    holds,
    objections,
    plan,
    reveal_round,
    upscale,
)
from engram.hotkeys import Keypair
from tests.chain.samples import key, metagraph, neuron
from tests.fakes.living_chain import LivingChain

NOW_S = 1_763_000_000.0
ALICE = Keypair.from_uri("//Alice")


def subnet(**changed: object) -> Metagraph:
    made = metagraph(*(neuron(uid, 10 + uid, permit=uid == 0) for uid in range(10)))
    return msgspec.structs.replace(made, parameters=msgspec.structs.replace(made.parameters, **changed))


@given(st.dictionaries(st.integers(0, 9), st.floats(0.01, 1_000.0), min_size=1))
def test_the_largest_weight_is_the_largest_number(given_weights: dict[int, float]) -> None:
    weights = upscale(given_weights, subnet())
    assert max(weights.values) == 65_535
    assert list(weights.uids) == sorted(weights.uids)
    assert all(0 < value <= 65_535 for value in weights.values)


def test_weights_that_scale_to_nothing_are_left_out() -> None:
    assert upscale({1: 1.0, 2: 0.0, 3: 1e-9}, subnet()).uids == (1,)


@pytest.mark.parametrize(
    ("given_weights", "changed", "told"),
    [
        ({}, {}, "no weight is above 0"),
        ({10: 1.0}, {}, "no uid 10"),
        ({1: float("inf")}, {}, "the weight of uid 1 is inf"),
        ({1: 1.0}, {"min_allowed_weights": 2}, "at least 2 weights, not 1"),
        ({1: 3.0, 2: 1.0}, {"max_weights_limit": 32_768}, "0.7500 of all weight, the subnet allows 0.5000"),
    ],
)
def test_what_the_subnet_does_not_allow_is_told(
    given_weights: dict[int, float], changed: dict[str, object], told: str
) -> None:
    with pytest.raises(WeightsInvalid, match=told):
        upscale(given_weights, subnet(**changed))


def test_objections_name_the_chains_own_errors() -> None:
    assert objections(subnet(), key(10), 0) == []
    assert objections(subnet(), key(99), 0)[0].startswith("HotKeyNotRegisteredInSubNet")
    assert objections(subnet(), key(11), 0)[0].startswith("NeuronNoValidatorPermit")
    (told,) = objections(subnet(weights_rate_limit_blocks=1_200), key(10), 0)
    assert told == "SettingWeightsTooFast: wait 101 blocks (20 min)"
    assert objections(subnet(weights_version=3), key(10), 2)[0].startswith("IncorrectWeightVersionKey")


def test_a_single_weight_on_oneself_is_bound_by_no_limit() -> None:
    strict = subnet(min_allowed_weights=2, max_weights_limit=30_000)
    weights = upscale({1: 0.3}, strict, own_uid=1)
    assert weights == Weights((1,), (65_535,))
    assert objections(strict, key(11), 0, weights) == []
    with pytest.raises(WeightsInvalid):
        upscale({1: 0.3}, strict, own_uid=0)
    assert objections(strict, key(11), 0, upscale({0: 1.0}, strict, own_uid=0))[0].startswith("NeuronNoValidatorPermit")


def test_a_subnet_wants_no_more_weights_than_it_has_uids() -> None:
    crowded = subnet(min_allowed_weights=80)
    assert len(upscale(dict.fromkeys(range(len(crowded.neurons)), 1.0), crowded).uids) == len(crowded.neurons)
    with pytest.raises(WeightsInvalid, match=f"at least {len(crowded.neurons)} weights"):
        upscale({0: 1.0}, crowded)


def test_the_round_is_that_of_the_block_where_the_next_epoch_begins() -> None:
    # netuid 450, tempo 360: block + 451 counts epochs of 361 blocks; from block 1,000 the next begins at 1,354.
    expected = (NOW_S + (1_354 - 1_000) * 12 - DRAND_GENESIS_S) / 3 - 24
    assert 0 <= reveal_round(1_000, 450, 360, 1, NOW_S) - expected < 1


@given(st.integers(1, 10**8), st.integers(0, 65_535), st.integers(1, 10_000), st.integers(1, 10))
def test_a_round_is_always_ahead_of_now(block: int, netuid: int, tempo: int, period: int) -> None:
    now_round = (NOW_S - DRAND_GENESIS_S) / 3
    assert reveal_round(block, netuid, tempo, period, NOW_S) >= now_round
    assert reveal_round(block, netuid, tempo, period, NOW_S) <= now_round + (period + 25) * (tempo + 1) * 4


def test_the_payload_is_scale() -> None:
    octets = crv3_payload(upscale({1: 1.0, 2: 0.5}, subnet()), 7)
    assert octets.hex() == "0801000200" + "08ffff0080" + "0700000000000000"
    many = crv3_payload(type(upscale({1: 1.0}, subnet()))(tuple(range(64)), tuple([1] * 64)), 0)
    assert many[:2].hex() == "0101"


async def planned(chain: LivingChain) -> tuple[Any, Any, Any]:
    view = await open_view([chain])
    metagraph_ = await view.metagraph(450, 0.0)
    if chain.get("SubtensorModule", "CommitRevealWeightsEnabled", 450):
        parameters = msgspec.structs.replace(metagraph_.parameters, commit_reveal_weights_enabled=True)
        metagraph_ = msgspec.structs.replace(metagraph_, parameters=parameters)
    made = await plan(view, metagraph_, upscale({3: 0.5, 9: 1.0}, metagraph_), ALICE.public_key, 0, NOW_S)
    return view, metagraph_, made


@pytest.mark.parametrize("commit_reveal", [False, True])
async def test_weights_are_sent_as_the_subnet_demands_and_read_back(commit_reveal: bool) -> None:
    chain = LivingChain()
    chain.put(0, "SubtensorModule", "WeightsSetRateLimit", 450)
    chain.put(commit_reveal, "SubtensorModule", "CommitRevealWeightsEnabled", 450)
    view, _, made = await planned(chain)
    assert made.call.function == ("commit_crv3_weights" if commit_reveal else "set_weights")
    assert (made.commit is not None) is commit_reveal
    done = await submit(view, [chain], made.call, ALICE, InclusionWait(0.01, 5.0))
    assert await holds(await view_at(chain, done.block.hash, view), made, 450, 0)
    before = await view_at(chain, bytes.fromhex(chain.hash(done.block.number - 1)[2:]), view)
    assert not await holds(before, made, 450, 0)


async def test_open_weights_where_commits_are_demanded_are_refused_by_name() -> None:
    chain = LivingChain()
    view, _, made = await planned(chain)
    chain.put(True, "SubtensorModule", "CommitRevealWeightsEnabled", 450)
    with pytest.raises(RefusedInBlock, match="CommitRevealEnabled"):
        await submit(view, [chain], made.call, ALICE, InclusionWait(0.01, 5.0))


@pytest.mark.parametrize("scheduled", [True, False])
async def test_a_newer_runtime_gets_its_own_call(scheduled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = LivingChain()
    chain.put(True, "SubtensorModule", "CommitRevealWeightsEnabled", 450)
    monkeypatch.setattr(RuntimeTypes, "has_call", lambda types, pallet, name: name == "commit_timelocked_weights")
    if scheduled:
        known = {"LastEpochBlock", "PendingEpochAt", "SubnetEpochIndex", "BlocksSinceLastStep"}
        monkeypatch.setattr(RuntimeTypes, "has_storage", lambda types, pallet, item: item in known)

        async def many(view: object, items: list[Any]) -> list[int]:
            return [1_000, 0, 3, 5]

        monkeypatch.setattr("engram.chain.read.view.View.many", many)
    _, metagraph_, made = await planned(chain)
    assert made.call.function == "commit_timelocked_weights"
    assert made.call.arguments["commit_reveal_version"] == 4
    assert made.call.arguments["commit"] == made.commit
    assert made.reveal_round is not None
    assert metagraph_.netuid == 450


async def test_a_runtime_that_knows_no_commit_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from engram.chain.errors import RuntimeApiMissing

    chain = LivingChain()
    chain.put(True, "SubtensorModule", "CommitRevealWeightsEnabled", 450)
    monkeypatch.setattr(RuntimeTypes, "has_call", lambda types, pallet, name: False)
    with pytest.raises(RuntimeApiMissing, match="no way to commit weights"):
        await planned(chain)


QUICKNET_ROUND_1000 = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
"""drand's published signature of that round; its SHA-256 is the round's randomness, fe290bec…0fdd."""


async def test_committed_weights_open_with_the_rounds_signature_and_with_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain = LivingChain()
    chain.put(True, "SubtensorModule", "CommitRevealWeightsEnabled", 450)
    monkeypatch.setattr("engram.chain.submit.weights.reveal_round", lambda *given: 1_000)
    _, _, made = await planned(chain)
    size = (len(made.commit) << 2 | 1).to_bytes(2, "little")
    envelope = size + made.commit + (1_000).to_bytes(8, "little")
    opened = bittensor_core.decrypt_with_signature(envelope, QUICKNET_ROUND_1000)
    assert opened == crv3_payload(made.weights, made.version_key)
    other = "8" + QUICKNET_ROUND_1000[1:]
    with pytest.raises(ValueError):
        bittensor_core.decrypt_with_signature(envelope, other)
