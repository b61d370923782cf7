"""Whether weights are to be set now: by the chain's own LastUpdate and epochs, never by a clock of ours.

| what is known                                             | standing      | what an operator does            |
|-----------------------------------------------------------|---------------|----------------------------------|
| no metagraph, or one that is too old                      | CHAIN_STALE   | look at the chain endpoints      |
| the hotkey holds no uid                                   | NOT_REGISTERED| register it                      |
| its uid has no validator permit                           | NO_PERMIT     | stake; a new permit takes a tempo|
| the subnet asks for weights of a newer version            | OUTDATED      | upgrade Engram                   |
| no whole round since the start                            | NO_ROUND      | wait                             |
| every score is 0 or no number                             | NO_SCORES     | `engram validator scores`        |
| fewer are above 0 than the subnet's limits ask for        | TOO_FEW       | wait for miners; `scores`        |
| weights of this epoch were sent, or may have been         | SET           |                                  |
| earlier ones may still be included                        | UNSETTLED     | wait: at most 64 blocks          |
| the chain refused them less than 10 blocks ago            | REFUSED       | the detail says why              |
| LastUpdate + weights_rate_limit lies ahead                | RATE_LIMITED  |                                  |
| none of these                                             | DUE           |                                  |

LastUpdate moves at the commit on some runtimes and at the reveal on others (RaoFoundation/subtensor#1157, #1787), so
where weights are committed first, it is our own record of commits that tells whether an epoch has had one.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from engram.chain.epochs import Epoch
from engram.chain.model import Metagraph, SubnetParameters
from engram.chain.submit.weights import WEIGHT_MAX
from engram.validator import scoring
from engram.validator.model import Look, Sent

OUR_VERSION: Final = 1
"""The weights_version up to which this version of Engram knows how to score."""
STALE_S: Final = 120.0
"""Age of a metagraph from which on no weights are made of it."""
RETRY_BLOCKS: Final = 10
"""Blocks from weights that the chain refused to the next attempt."""
CUTOFF_ALERT: Final = 0.8
"""Share of activity_cutoff after which the operator is told."""


class Due(StrEnum):
    """The answer; see the table above."""

    CHAIN_STALE = "chain_stale"
    NOT_REGISTERED = "not_registered"
    NO_PERMIT = "no_permit"
    OUTDATED = "outdated"
    NO_ROUND = "no_round"
    NO_SCORES = "no_scores"
    TOO_FEW = "too_few"
    SET = "set"
    UNSETTLED = "unsettled"
    REFUSED = "refused"
    RATE_LIMITED = "rate_limited"
    DUE = "due"


class Membership(StrEnum):
    """Whether this validator may set weights, by its looks at the chain so far: the detail of those that say no."""

    NEVER_REGISTERED = "never registered"
    DEREGISTERED = "deregistered"
    NOT_YET_PERMITTED = "not yet permitted"
    PERMIT_LOST = "permit lost"
    PERMITTED = "permitted"


_LAST_KNOWN: Final = "last known: "


def membership(verdict: Due, former: Membership | None) -> Membership | None:
    """Return the membership after a look; `former` is that before it, None where nothing is known of it."""
    match verdict:
        case Due.CHAIN_STALE:
            return former
        case Due.NOT_REGISTERED:
            is_new = former is None or former is Membership.NEVER_REGISTERED
            return Membership.NEVER_REGISTERED if is_new else Membership.DEREGISTERED
        case Due.NO_PERMIT:
            had_it = former is Membership.PERMITTED or former is Membership.PERMIT_LOST
            return Membership.PERMIT_LOST if had_it else Membership.NOT_YET_PERMITTED
        case _:
            return Membership.PERMITTED


def membership_of(look: Look | None) -> Membership | None:
    """Return the membership that a look has found; None where it does not say."""
    if look is None:
        return None
    if look.verdict not in (Due.CHAIN_STALE, Due.NOT_REGISTERED, Due.NO_PERMIT):
        return Membership.PERMITTED
    word = look.detail.rpartition(_LAST_KNOWN)[2]
    return Membership(word) if word in set(Membership) else None


def with_membership(verdict: Due, detail: str, found: Membership | None) -> str:
    """Return the detail of a look with its membership, where the verdict leaves it open; see membership_of."""
    if verdict in (Due.NOT_REGISTERED, Due.NO_PERMIT) and found is not None:
        return found
    if verdict is Due.CHAIN_STALE and found is not None:
        return f"{detail}; {_LAST_KNOWN}{found}" if detail else f"{_LAST_KNOWN}{found}"
    return detail


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What `due` decides on."""

    metagraph: Metagraph | None
    age_s: float
    """Of the metagraph."""
    hotkey: bytes
    scores: Mapping[int, float]
    """By uid, from the last whole round."""
    rounds: int
    """Whole rounds since the start."""
    epoch: Epoch | None
    """Of the metagraph's block; None with it."""
    last_sent_block: int | None
    """Newest block at which, as our ledger says, weights were included, or were sent and may have been."""
    unsettled: bool = False
    """Weights whose outcome is not known may still be included: others sent now could share their epoch."""
    refused: Sent | None = None
    """The newest weights, where the chain has refused them."""
    version: int = OUR_VERSION


def due(known: Known) -> Due:
    """Return whether weights are to be set now, and if not the first reason why."""
    metagraph = known.metagraph
    if metagraph is None or known.epoch is None or known.age_s > STALE_S:
        return Due.CHAIN_STALE
    neuron, parameters = metagraph.neuron(known.hotkey), metagraph.parameters
    if neuron is None:
        return Due.NOT_REGISTERED
    if not neuron.validator_permit:
        return Due.NO_PERMIT
    if parameters.weights_version > known.version:
        return Due.OUTDATED
    if known.rounds == 0:
        return Due.NO_ROUND
    if not scoring.normalized(known.scores):
        return Due.NO_SCORES
    if too_few(metagraph, known.scores):
        return Due.TOO_FEW
    if _has_had(known, known.epoch, parameters, neuron.last_update_block):
        return Due.SET
    if known.unsettled:
        return Due.UNSETTLED
    if known.refused is not None and metagraph.block < known.refused.block + RETRY_BLOCKS:
        return Due.REFUSED
    if blocks_to_wait(neuron.last_update_block, metagraph.block, parameters) > 0:
        return Due.RATE_LIMITED
    return Due.DUE


def too_few(metagraph: Metagraph, scores: Mapping[int, float]) -> str:
    """Return why the subnet takes no weights by so few scores above 0; empty when it does."""
    count, parameters = len(scoring.normalized(scores)), metagraph.parameters
    fewest = min(parameters.min_allowed_weights, len(metagraph.neurons))
    if count < fewest:
        return f"the subnet wants at least {fewest} weights, not {count}"
    limit = parameters.max_weights_limit
    if limit < WEIGHT_MAX and count * limit < WEIGHT_MAX:
        least = -(-WEIGHT_MAX // max(1, limit))
        share = limit / WEIGHT_MAX
        return f"the subnet allows {share:.4f} of all weight for one uid: {least} weights at least, not {count}"
    return ""


def weights(metagraph: Metagraph, scores: Mapping[int, float]) -> dict[int, float]:
    """Return weights that add up to 1, none of them more than the subnet allows; who has no score gets none.

    The limit is lowered by what rounding to the chain's 65,535 steps can add to a share.
    """
    found, limit = scoring.normalized(scores), metagraph.parameters.max_weights_limit
    if limit >= WEIGHT_MAX or not found:
        return found
    return scoring.clipped(found, 1 / (WEIGHT_MAX / max(1, limit) + len(found) / (2 * WEIGHT_MAX)))


def _has_had(known: Known, epoch: Epoch, parameters: SubnetParameters, last_update_block: int) -> bool:
    if known.last_sent_block is not None and known.last_sent_block >= epoch.first_block:
        return True
    if parameters.commit_reveal_weights_enabled and known.last_sent_block is not None:
        return False
    return last_update_block >= epoch.first_block > 0


def blocks_to_wait(last_update_block: int, block: int, parameters: SubnetParameters) -> int:
    """Return the blocks until the chain takes weights of this neuron again; 0 when it does now."""
    return max(0, last_update_block + parameters.weights_rate_limit_blocks - block)


def warnings(metagraph: Metagraph, hotkey: bytes) -> list[str]:
    """Return what an operator should know before it costs anything, in words; empty when there is nothing."""
    neuron, parameters = metagraph.neuron(hotkey), metagraph.parameters
    found: list[str] = []
    if neuron is not None and neuron.validator_permit:
        silent, cutoff = metagraph.block - neuron.last_update_block, parameters.activity_cutoff_blocks
        if silent > CUTOFF_ALERT * cutoff:
            found.append(
                f"no weights for {silent} blocks: after {cutoff} the chain counts this validator as inactive "
                f"(activity_cutoff)"
            )
    delay = parameters.commit_reveal_period_tempos * parameters.tempo
    if parameters.commit_reveal_weights_enabled and delay > parameters.immunity_period_blocks:
        found.append(
            f"weights are revealed after {delay} blocks, but a new miner is immune for "
            f"{parameters.immunity_period_blocks}: it can be replaced before any weight reaches it"
        )
    return found


def realigned(
    scores: Mapping[bytes, float], scored_uids: Mapping[bytes, int], metagraph: Metagraph
) -> tuple[dict[int, float], list[int]]:
    """Return scores by the uids of `metagraph`, and the uids left out because another hotkey holds them now.

    `scored_uids` are the uids at the time of scoring. A hotkey that moved to another uid keeps its score there; one
    that is gone has none (RaoFoundation/bittensor#1000).
    """
    found: dict[int, float] = {}
    for hotkey, score in scores.items():
        uid = metagraph.uid_by_hotkey.get(hotkey)
        if uid is not None:
            found[uid] = score
    replaced = sorted(
        uid
        for hotkey, uid in scored_uids.items()
        if metagraph.uid_by_hotkey.get(hotkey) != uid and uid < len(metagraph.neurons) and uid not in found
    )
    return found, replaced
