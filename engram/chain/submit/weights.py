"""Plans weights for a subnet: its own rules decide the call, and objections are known before anything is sent.

| the subnet says            | the runtime has               | what is sent                                        |
|----------------------------|-------------------------------|-----------------------------------------------------|
| no commit-reveal           |                               | set_weights                                         |
| commit-reveal              | commit_timelocked_weights     | that; its round by the chain's epoch schedule       |
| commit-reveal              | only commit_crv3_weights      | that; its round by tempo and netuid                 |
| commit-reveal              | only commit_weights           | that: a hash, to be revealed (hashed_weights.py)    |
| commit-reveal              | none of them                  | nothing: RuntimeApiMissing                          |

Timelocked weights are encrypted to a round of drand's quicknet; the chain reveals them in the epoch that follows.
"""

import enum
import math
from collections.abc import Callable, Mapping
from typing import Final

import bittensor_core
import msgspec

from engram import wire
from engram.chain.errors import ChainError, RuntimeApiMissing
from engram.chain.model import Metagraph
from engram.chain.read.runtime import SUBTENSOR, RuntimeCall
from engram.chain.read.view import View
from engram.chain.submit import calls, hashed_weights
from engram.chain.submit.hashed_weights import HashedCommit, read_genesis
from engram.chain.submit.scale import octets, u16s
from engram.hotkeys import PublicKey

WEIGHT_MAX: Final = 65_535
BLOCK_S: Final = 12.0
DRAND_GENESIS_S: Final = 1_692_803_367
DRAND_PERIOD_S: Final = 3
PULSE_DELAY_ROUNDS: Final = 24
"""Longest delay until the chain knows a pulse (source: bittensor-drand)."""
_TIMELOCKED: Final = "commit_timelocked_weights"
_CRV3: Final = "commit_crv3_weights"
_SCHEDULE: Final = ("LastEpochBlock", "PendingEpochAt", "SubnetEpochIndex", "BlocksSinceLastStep")
TIMELOCKED_COMMITS: Final = ("TimelockedWeightCommits", "CRV3WeightCommits")


class WeightsInvalid(ChainError):
    """These weights cannot be set on this subnet. Nothing was sent."""


class Weights(msgspec.Struct, frozen=True):
    """Weights as the chain takes them: ascending uids, the largest weight 65,535, none 0."""

    uids: tuple[int, ...]
    values: tuple[int, ...]


class WeightsPlan(msgspec.Struct, frozen=True):
    """The call that sets or commits weights."""

    call: RuntimeCall
    weights: Weights
    version_key: int
    commit: bytes | None = None
    """The encrypted weights, where the subnet requires them."""
    reveal_round: int | None = None
    hashed: HashedCommit | None = None
    """What the reveal needs, where only a hash is sent; kept on disk before sending."""


def upscale(given: Mapping[int, float], metagraph: Metagraph, own_uid: int | None = None) -> Weights:
    """Return the weights scaled so that the largest is 65,535. Raises WeightsInvalid, naming what is wrong.

    A single weight on `own_uid`, the signer's, is bound by no limit of the subnet (source: subtensor, weights.rs).
    """
    for uid, weight in given.items():
        if not 0 <= uid < len(metagraph.neurons):
            raise WeightsInvalid(f"subnet {metagraph.netuid} has no uid {uid}")
        if not math.isfinite(weight) or weight < 0:
            raise WeightsInvalid(f"the weight of uid {uid} is {weight}")
    largest = max(given.values(), default=0.0)
    if largest <= 0:
        raise WeightsInvalid("no weight is above 0")
    scaled = {uid: round(given[uid] / largest * WEIGHT_MAX) for uid in sorted(given)}
    kept = {uid: value for uid, value in scaled.items() if value > 0}
    if tuple(kept) == (own_uid,):
        return Weights(tuple(kept), tuple(kept.values()))
    parameters = metagraph.parameters
    fewest = min(parameters.min_allowed_weights, len(metagraph.neurons))
    if len(kept) < fewest:
        raise WeightsInvalid(f"the subnet wants at least {fewest} weights, not {len(kept)}")
    share = max(kept.values()) / sum(kept.values())
    if parameters.max_weights_limit < WEIGHT_MAX and share > parameters.max_weights_limit / WEIGHT_MAX:
        limit = parameters.max_weights_limit / WEIGHT_MAX
        raise WeightsInvalid(f"one uid gets {share:.4f} of all weight, the subnet allows {limit:.4f}")
    return Weights(tuple(kept), tuple(kept.values()))


def objections(metagraph: Metagraph, hotkey: PublicKey, version_key: int, weights: Weights | None = None) -> list[str]:
    """Return why the chain would refuse weights of this hotkey now; empty when it would accept them.

    A hotkey whose only weight is on itself needs no permit.
    """
    neuron, parameters = metagraph.neuron(hotkey), metagraph.parameters
    if neuron is None:
        return [f"HotKeyNotRegisteredInSubNet: the hotkey is not registered on subnet {metagraph.netuid}"]
    found = []
    if not neuron.validator_permit and (weights is None or weights.uids != (neuron.uid,)):
        found.append("NeuronNoValidatorPermit: the hotkey has no validator permit")
    wait = neuron.last_update_block + parameters.weights_rate_limit_blocks - metagraph.block
    if wait > 0:
        name = "CommittingWeightsTooFast" if parameters.commit_reveal_weights_enabled else "SettingWeightsTooFast"
        found.append(f"{name}: wait {wait} blocks ({wait * BLOCK_S / 60:.0f} min)")
    if version_key < parameters.weights_version:
        found.append(f"IncorrectWeightVersionKey: the subnet wants {parameters.weights_version}, not {version_key}")
    return found


def reveal_round(block: int, netuid: int, tempo: int, period_epochs: int, now_s: float) -> int:
    """Return the drand round at which weights committed now may be read: when their reveal epoch begins.

    `now_s` is Unix time. Epochs of runtimes before the stateful schedule: (block + netuid + 1) // (tempo + 1).
    """
    epoch = (block + netuid + 1) // (tempo + 1) + period_epochs
    while (until_s := (epoch * (tempo + 1) - netuid - 1 - block) * BLOCK_S) < PULSE_DELAY_ROUNDS * DRAND_PERIOD_S:
        epoch += 1
    return math.ceil((now_s + until_s - DRAND_GENESIS_S) / DRAND_PERIOD_S) - PULSE_DELAY_ROUNDS


def reveal_about_s(reveal_round: int) -> float:
    """Return the Unix time at which the chain reveals weights encrypted to this drand round, to a minute or two.

    The chain learns of a round by PULSE_DELAY_ROUNDS after it.
    """
    return DRAND_GENESIS_S + (reveal_round - 1 + PULSE_DELAY_ROUNDS) * DRAND_PERIOD_S


class Revealing(enum.Enum):
    """The state of weights that were committed under a timelock; see `revealing`."""

    COMMITTED = "committed"
    REVEALED = "revealed"
    DROPPED = "dropped"


def revealing(*, is_held: bool, weights_stand: bool) -> Revealing:
    """Return the state of a commit that the chain once held.

    | the chain holds the commit | the weights are these | it is     |
    |----------------------------|-----------------------|-----------|
    | yes                        | any                   | COMMITTED |
    | no                         | yes                   | REVEALED  |
    | no                         | no                    | DROPPED   |
    """
    if is_held:
        return Revealing.COMMITTED
    return Revealing.REVEALED if weights_stand else Revealing.DROPPED


async def read_revealing(view: View, plan: WeightsPlan, netuid: int, uid: int) -> Revealing:
    """Return the state of the plan's commit, at a block after the one that included it."""
    is_held = await holds(view, plan, netuid, uid)
    opened = msgspec.structs.replace(plan, commit=None)
    return revealing(is_held=is_held, weights_stand=not is_held and await holds(view, opened, netuid, uid))


def crv3_payload(weights: Weights, version_key: int) -> bytes:
    """Return the payload to encrypt: SCALE of (Vec<u16> uids, Vec<u16> values, u64 version key)."""
    return u16s(weights.uids) + u16s(weights.values) + version_key.to_bytes(8, "little")


async def plan(
    view: View,
    metagraph: Metagraph,
    weights: Weights,
    hotkey: PublicKey,
    version_key: int,
    now_s: float,
    salt: Callable[[], tuple[int, ...]] = hashed_weights.fresh_salt,
) -> WeightsPlan:
    """Return the call that the subnet requires. Encrypting takes 4 ms. Raises RuntimeApiMissing, WeightsInvalid."""
    netuid, parameters = metagraph.netuid, metagraph.parameters
    if not 0 <= version_key < 2**64:
        raise WeightsInvalid(f"a version key is from 0 to 2**64 - 1, not {version_key}")
    if not parameters.commit_reveal_weights_enabled:
        call = calls.set_weights(netuid, weights.uids, weights.values, version_key)
        return WeightsPlan(call, weights, version_key)
    if view.types.has_call(SUBTENSOR, _TIMELOCKED):
        return await _timelocked(view, metagraph, weights, hotkey, version_key, now_s)
    if view.types.has_call(SUBTENSOR, _CRV3):
        at = reveal_round(metagraph.block, netuid, parameters.tempo, parameters.commit_reveal_period_tempos, now_s)
        commit = _encrypted(crv3_payload(weights, version_key), at)
        arguments: dict[str, object] = {"netuid": netuid, "commit": commit, "reveal_round": at}
        return WeightsPlan(RuntimeCall(SUBTENSOR, _CRV3, arguments), weights, version_key, commit, at)
    if all(view.types.has_call(SUBTENSOR, name) for name in (hashed_weights.COMMIT, hashed_weights.REVEAL)):
        hashed = await _hashed(view, metagraph, weights, hotkey, version_key, salt)
        return WeightsPlan(hashed.commit_call, weights, version_key, hashed=hashed)
    raise RuntimeApiMissing(f"runtime {view.types.spec_version} has no way to commit weights that Engram supports")


async def holds(view: View, plan: WeightsPlan, netuid: int, uid: int) -> bool:
    """Return whether the view's block holds the weights, or the commit, of the plan."""
    if plan.hashed is not None:
        return await hashed_weights.committed_at(view, plan.hashed) is not None
    if plan.commit is None:
        held = await view.storage(SUBTENSOR, "Weights", netuid, uid)
        pairs = list(zip(plan.weights.uids, plan.weights.values, strict=True))
        return isinstance(held, list) and [tuple(pair) for pair in held] == pairs
    items = [item for item in TIMELOCKED_COMMITS if view.types.has_storage(SUBTENSOR, item)]
    sought = plan.commit.hex()
    for item in items:
        if any(sought in value for _, value in await view.entries(SUBTENSOR, item, netuid)):
            return True
    return False


async def _hashed(
    view: View,
    metagraph: Metagraph,
    weights: Weights,
    hotkey: PublicKey,
    version_key: int,
    salt: Callable[[], tuple[int, ...]],
) -> HashedCommit:
    return HashedCommit(
        genesis=await read_genesis(view.node),
        netuid=metagraph.netuid,
        hotkey=hotkey,
        uids=weights.uids,
        values=weights.values,
        version_key=version_key,
        salt=salt(),
        signed_at_block=view.head.number,
    )


async def _timelocked(
    view: View, metagraph: Metagraph, weights: Weights, hotkey: PublicKey, version_key: int, now_s: float
) -> WeightsPlan:
    netuid, parameters = metagraph.netuid, metagraph.parameters
    if all(view.types.has_storage(SUBTENSOR, item) for item in _SCHEDULE):
        held = await view.many([(SUBTENSOR, item, (netuid,)) for item in _SCHEDULE])
        last, pending, index, since = (wire.convert(value or 0, int) for value in held)
        commit, at = bittensor_core.get_encrypted_commit_v2(
            uids=list(weights.uids),
            weights=list(weights.values),
            version_key=version_key,
            last_epoch_block=last,
            pending_epoch_at=pending,
            subnet_epoch_index=index,
            tempo=parameters.tempo,
            blocks_since_last_step=since,
            current_block=metagraph.block,
            subnet_reveal_period_epochs=parameters.commit_reveal_period_tempos,
            block_time=BLOCK_S,
            hotkey=hotkey,
        )
    else:
        at = reveal_round(metagraph.block, netuid, parameters.tempo, parameters.commit_reveal_period_tempos, now_s)
        commit = _encrypted(octets(hotkey) + crv3_payload(weights, version_key), at)
    version = 4
    if view.types.has_storage(SUBTENSOR, "CommitRevealWeightsVersion"):
        version = wire.convert(await view.storage(SUBTENSOR, "CommitRevealWeightsVersion"), int)
    arguments: dict[str, object] = {
        "netuid": netuid,
        "commit": bytes(commit),
        "reveal_round": at,
        "commit_reveal_version": version,
    }
    return WeightsPlan(RuntimeCall(SUBTENSOR, _TIMELOCKED, arguments), weights, version_key, bytes(commit), at)


def _encrypted(payload: bytes, at: int) -> bytes:
    envelope, _ = bittensor_core.encrypt_at_round(payload, at)
    inner: bytes = bittensor_core.inner_ciphertext(envelope)
    return inner
