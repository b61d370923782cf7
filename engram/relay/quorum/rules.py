"""Who proposes scores and rankings, and what a validator says of a proposal. No I/O.

**Who proposes.** Of every epoch one validator's scores are relayed, and one's ranking by the weights that it set.
Validators with a permit take turns of `turn_blocks` blocks, in the order of their uids; another one begins in each
epoch. A validator that is away is passed over when its turn ends, and has another one when all have had theirs.

| at this block                                             | a validator with an output of its own   |
|-----------------------------------------------------------|-----------------------------------------|
| the quorum is 1                                           | relays it alone                         |
| it holds no permit                                        | waits                                   |
| it held none at the block of the output                   | withdraws it: no receiver takes it      |
| it is the turn of another                                 | waits                                   |
| it is its own turn                                        | proposes it                             |
| the bundle of another, of this kind, has left             | lets the epoch rest                     |

**What is said of a proposal.** The first row that applies:

| the proposal                                              | verdict          | status |
|-----------------------------------------------------------|------------------|--------|
| is no signed output of a kind, or its hashes do not hold  | `malformed`      | 422    |
| was sent by another key than the one that signed it       | `other_signer`   | 422    |
| is of another subnet                                      | `other_subnet`   | 422    |
| cannot be judged: the chain was not read lately           | `chain_unknown`  | 425    |
| is of a key without a validator permit, now or then       | `no_permit`      | 403    |
| is a second output of kind and block by the same key      | `equivocation`   | 409    |
| is of an epoch whose bundle of this kind has left         | `settled`        | 409    |
| comes when it is another's turn, by more than HEADS_DIFFER| `not_its_turn`   | 425    |
| is of a block that is not final yet                       | `not_final`      | 425    |
| is of a block that is not the chain's                     | `reorganized`    | 409    |
| is of a block at which this key held no validator permit  | `no_own_permit`  | 409    |
| is of a time when nothing was measured here               | `not_measured`   | 425    |
| differs from what was measured here                       | `differs`        | 409    |
| is another than the one signed here for kind and block    | `signed_another` | 409    |
| none of these                                             | `signed`         | 200    |

"Then" is the payload's block: a receiver takes the signatures of those that held a permit at it, and one of another key
would cost the whole bundle. Where the chain does not say who held one then, those of now count.

425 means: ask again. A co-signer that is away is asked again as well, until the turn is over.

**What differs.** Of scores: each value of each uid must lie within the tolerance of its field of what was measured
here, in any of the rounds near the proposed block: a miner that was up in one and down in the next is vouched for
between the two. Latency was measured by both or by neither. Of all uids, `missing` may be known to one side alone.

Of a ranking: the weight of each uid must lie within the tolerance of those that were set here in the epoch of its
block, in the one before or in the one after, since validators set theirs once an epoch and not at the same block; a uid
without a weight has 0. Each uid has the hotkey that it has here in one of these. Ranks follow from the weights.
"""

from collections.abc import Mapping, Sequence
from typing import Final, assert_never

import msgspec

from engram.chain.epochs import Epoch
from engram.hotkeys import PublicKey
from engram.relay.finality import Finality
from engram.relay.model import MinerScore, Ranked
from engram.relay.quorum.model import (
    Difference,
    Judged,
    OwnRanking,
    Proposal,
    QuorumTerms,
    Reading,
    Tolerance,
    Verdict,
)

HEADS_DIFFER: Final = 3
"""Blocks by which the heads that two validators have read may differ."""
STATUS: Final[Mapping[Verdict, int]] = {
    Verdict.SIGNED: 200,
    Verdict.MALFORMED: 422,
    Verdict.OTHER_SIGNER: 422,
    Verdict.OTHER_SUBNET: 422,
    Verdict.CHAIN_UNKNOWN: 425,
    Verdict.NO_PERMIT: 403,
    Verdict.EQUIVOCATION: 409,
    Verdict.SETTLED: 409,
    Verdict.NOT_ITS_TURN: 425,
    Verdict.NOT_FINAL: 425,
    Verdict.REORGANIZED: 409,
    Verdict.NOT_MEASURED: 425,
    Verdict.DIFFERS: 409,
    Verdict.SIGNED_ANOTHER: 409,
    Verdict.NO_OWN_PERMIT: 409,
}
TOO_EARLY: Final = 425
EVIDENCE: Final = frozenset({Verdict.EQUIVOCATION, Verdict.REORGANIZED, Verdict.DIFFERS, Verdict.SIGNED_ANOTHER})
"""Refusals that are kept with what was proposed."""
OF_A_VALIDATOR: Final = frozenset(Verdict) - {
    Verdict.MALFORMED,
    Verdict.OTHER_SIGNER,
    Verdict.OTHER_SUBNET,
    Verdict.CHAIN_UNKNOWN,
    Verdict.NO_PERMIT,
}
"""Verdicts on proposals that a validator has certainly signed: their output is remembered as the only one it signs."""
NEAR_EPOCHS: Final = 3
"""A proposal or bundle of a block further away is of no use to anybody; remembered, it would fill the ledger."""
COMPARE_EPOCHS: Final = 1
"""Own rankings of at most so many epochs before or after the proposed one are held against it."""
WEIGHT_NOISE: Final = 0.01
"""Share of all weights by which the weight of a miner may differ, however small it is."""
FIELDS: Final = ("recall", "proof_rate", "latency_ms")


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    """The subnet as the chain was read last."""

    block: int
    epoch: Epoch
    """Of that block."""
    holders: tuple[PublicKey, ...]
    """Keys with a validator permit, in the order of their uids."""


class KnownHere(msgspec.Struct, frozen=True, kw_only=True):
    """What a proposal is held against."""

    caller: PublicKey
    """The key that signed the request."""
    subnet: Subnet | None
    """None while the chain was not read lately."""
    epoch_settled: bool
    """The bundle of the proposal's kind and epoch has left."""
    proposer_signed: str | None
    """The output_hash that the proposer signed for this kind and block, as far as is known here."""
    finality: Finality
    readings: Sequence[Reading]
    signed: str | None
    """The output_hash that was signed here for this kind and block, whoever proposed it."""
    rankings: Sequence[OwnRanking] = ()
    proposer_held_permit: bool = True
    """False: the chain says that the proposer held none at the proposal's block."""
    held_permit: bool = True
    """The same of this validator."""


def is_near(subnet: Subnet, block: int) -> bool:
    """Return whether a block is at most NEAR_EPOCHS from the head: what others sign elsewhere is not remembered.

    >>> subnet = Subnet(block=1_000, epoch=Epoch(10, 1_000, 1_099), holders=())
    >>> [is_near(subnet, block) for block in (699, 700, 1_300, 1_301, 2**52)]
    [False, True, True, False, False]
    """
    length = subnet.epoch.last_block - subnet.epoch.first_block + 1
    return abs(block - subnet.block) <= NEAR_EPOCHS * length


def turn_at(subnet: Subnet, block: int, turn_blocks: int) -> PublicKey | None:
    """Return whose turn it is at a block of the subnet's epoch; None when nobody holds a permit.

    >>> epoch = Epoch(4, 100, 160)
    >>> subnet = Subnet(block=100, epoch=epoch, holders=(b"a", b"b", b"c"))
    >>> [turn_at(subnet, block, 10) for block in (100, 109, 110, 125, 130)]
    [b'b', b'b', b'c', b'a', b'b']
    """
    if not subnet.holders:
        return None
    turn = max(0, block - subnet.epoch.first_block) // turn_blocks
    return subnet.holders[(subnet.epoch.index + turn) % len(subnet.holders)]


def may_propose(subnet: Subnet, own: PublicKey, terms: QuorumTerms) -> bool:
    """Return whether an output of our own may be proposed now."""
    return terms.quorum == 1 or turn_at(subnet, subnet.block, terms.turn_blocks) == own


def is_near_its_turn(subnet: Subnet, proposer: PublicKey, turn_blocks: int) -> bool:
    """Return whether it may be the proposer's turn, by a head that differs a little from the one read here."""
    blocks = (subnet.block + shift for shift in (-HEADS_DIFFER, 0, HEADS_DIFFER))
    return any(turn_at(subnet, block, turn_blocks) == proposer for block in blocks)


def judge(proposal: Proposal, known: KnownHere, terms: QuorumTerms) -> Judged:
    """Return what is said of a proposal that is well formed; see the second table above."""
    if proposal.proposer != known.caller:
        return Judged(Verdict.OTHER_SIGNER, "the request was signed by another key than the payload")
    if proposal.netuid != terms.netuid:
        return Judged(Verdict.OTHER_SUBNET, f"subnet {proposal.netuid} is not measured here, only {terms.netuid}")
    if known.subnet is None:
        return Judged(Verdict.CHAIN_UNKNOWN, "the chain was not read lately")
    if proposal.proposer not in known.subnet.holders:
        return Judged(Verdict.NO_PERMIT, f"the proposer holds no validator permit at block {known.subnet.block}")
    if not known.proposer_held_permit:
        return Judged(Verdict.NO_PERMIT, f"the proposer held no validator permit at block {proposal.block}")
    if known.proposer_signed not in (None, proposal.output_hash):
        return Judged(Verdict.EQUIVOCATION, f"the proposer has signed output {known.proposer_signed} of this block")
    if known.epoch_settled:
        return Judged(Verdict.SETTLED, "the bundle of this epoch has left")
    if not is_near_its_turn(known.subnet, proposal.proposer, terms.turn_blocks):
        return Judged(Verdict.NOT_ITS_TURN, f"at block {known.subnet.block} it is the turn of another")
    match known.finality:
        case Finality.AWAITED:
            return Judged(Verdict.NOT_FINAL, f"block {proposal.block} is not final enough here")
        case Finality.REORGANIZED:
            return Judged(Verdict.REORGANIZED, f"block {proposal.block} has another hash here")
        case Finality.FINAL:
            return _of_values(proposal, known, terms)
        case unhandled:
            assert_never(unhandled)


def _of_values(proposal: Proposal, known: KnownHere, terms: QuorumTerms) -> Judged:
    if not known.held_permit:
        return Judged(Verdict.NO_OWN_PERMIT, f"this validator held no permit at block {proposal.block}")
    if proposal.kind == "ranking":
        if not known.rankings:
            text = f"no weights were set here within {COMPARE_EPOCHS} epoch of block {proposal.block}"
            return Judged(Verdict.NOT_MEASURED, text)
        found = ranking_differences(proposal.ranking, known.rankings, terms.tolerance)
    else:
        near = [each for each in known.readings if abs(each.block - proposal.block) <= terms.compare_blocks]
        if not near:
            text = f"no round was held here within {terms.compare_blocks} blocks of block {proposal.block}"
            return Judged(Verdict.NOT_MEASURED, text)
        found = differences(proposal.scores, near, terms.tolerance)
    if found:
        first = found[0]
        text = f"{len(found)} values differ from what was measured here, the first of uid {first.uid}: {first.field}"
        return Judged(Verdict.DIFFERS, text, tuple(found))
    if known.signed not in (None, proposal.output_hash):
        return Judged(Verdict.SIGNED_ANOTHER, f"output {known.signed} of this block was signed here")
    return Judged(Verdict.SIGNED)


def differences(proposed: Mapping[str, MinerScore], near: Sequence[Reading], tolerance: Tolerance) -> list[Difference]:
    """Return what cannot be vouched for, by uid; empty when all values lie within the tolerance."""
    measured: dict[str, list[MinerScore]] = {}
    for reading in near:
        for uid, score in reading.scores.items():
            measured.setdefault(uid, []).append(score)
    found = [
        difference
        for uid in sorted(proposed.keys() & measured.keys(), key=_place)
        for field in FIELDS
        if (difference := _difference(uid, field, proposed[uid], measured[uid], tolerance)) is not None
    ]
    either = proposed.keys() | measured.keys()
    missing = sorted(proposed.keys() ^ measured.keys(), key=_place)
    if len(missing) > tolerance.missing * len(either):
        found += [Difference(uid=uid, field="uid", tolerance=tolerance.missing) for uid in missing]
    return found


def ranking_differences(
    proposed: Sequence[Ranked], own: Sequence[OwnRanking], tolerance: Tolerance
) -> list[Difference]:
    """Return what cannot be vouched for, by uid; empty when all weights and hotkeys are as they were set here."""
    set_here: dict[int, list[float]] = {}
    hotkeys: dict[int, set[str]] = {}
    for number, each in enumerate(own):
        for miner in each.ranking:
            set_here.setdefault(miner.uid, [0.0] * len(own))[number] = miner.weight
            hotkeys.setdefault(miner.uid, set()).add(miner.hotkey)
    weights = {miner.uid: miner.weight for miner in proposed}
    others = {miner.uid for miner in proposed if miner.hotkey not in hotkeys.get(miner.uid, {miner.hotkey})}
    found = []
    for uid in sorted(weights.keys() | set_here.keys()):
        if uid in others:
            found.append(Difference(uid=str(uid), field="hotkey"))
        weight, here = weights.get(uid, 0.0), set_here.get(uid, [0.0])
        allowed = max(WEIGHT_NOISE, tolerance.weight * max(here))
        if not min(here) - allowed <= weight <= max(here) + allowed:
            found.append(
                Difference(
                    uid=str(uid),
                    field="weight",
                    proposed=weight,
                    lowest=min(here),
                    highest=max(here),
                    tolerance=allowed,
                )
            )
    return found


def _difference(
    uid: str, field: str, proposed: MinerScore, measured: Sequence[MinerScore], tolerance: Tolerance
) -> Difference | None:
    value: float | None = getattr(proposed, field)
    values: list[float | None] = [getattr(score, field) for score in measured]
    known = [each for each in values if each is not None]
    allowed: float = getattr(tolerance, field)
    lowest, highest = min(known, default=None), max(known, default=None)
    if value is None:
        fits = None in values
    elif lowest is None or highest is None:
        fits = False
    else:
        fits = lowest - allowed <= value <= highest + allowed
    if fits:
        return None
    return Difference(uid=uid, field=field, proposed=value, lowest=lowest, highest=highest, tolerance=allowed)


def _place(uid: str) -> tuple[int, str]:
    return len(uid), uid
