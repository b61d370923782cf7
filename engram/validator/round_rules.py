"""What is asked in a round, and the scores that follow from the answers. No I/O."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from statistics import fmean
from typing import Final

import msgspec

from engram.validator import peers, planting, scoring, standing
from engram.validator.miner_client import median_ms
from engram.validator.model import SCORED, Answer, Held, Kind, Known, Miner, Offers, Outcome, Question, Result
from engram.validator.scoring import Parts
from engram.validator.standing import Standing, Tally

RIGHT_ABOVE: Final = 0.5
"""The latency of an answer counts when more than this share of the truth is in it: who knows the public file alone
never gets there, as at most half of a truth is public."""


def matters_to_ask(rng: Random, held: Sequence[Held], round_id: int, *, queries: int, least_held: int) -> list[int]:
    """Choose what a miner is asked about, by the id of the matter; fewer than `queries` where it holds too little."""
    oldest: dict[int, list[int]] = {}
    for each in held:
        oldest.setdefault(each.family_id, []).append(round_id - each.planted_round)
    candidates = [planting.Candidate(str(id_), len(ages), max(ages)) for id_, ages in oldest.items()]
    return [int(family) for family in planting.to_ask(rng, candidates, queries=queries, least_held=least_held)]


def to_challenge(rng: Random, held: Sequence[Held], challenges: int) -> list[Held]:
    """Choose the records that a miner is to prove: one of the older half first, then any."""
    if not held or challenges < 1:
        return []
    older = sorted(held, key=lambda each: each.planted_round)[: max(1, len(held) // 2)]
    first = rng.choice(older)
    rest = [each for each in held if each is not first]
    return [first, *rng.sample(rest, min(len(rest), challenges - 1))]


def is_worth_asking(query: Question, kept: Sequence[Question], *, most: int, least_planted: int) -> bool:
    """Return whether a query is asked beside those that are `kept` for its miner, now that its truth is known.

    It is, when so many of its right answers are planted: the others could be had without storing anything.
    """
    is_new = all(query.text != each.text for each in kept)
    return len(kept) < most and is_new and query.planted >= least_planted


def parts_of(answers: Iterable[tuple[Kind, Answer]]) -> tuple[Parts, Tally] | None:
    """Return the parts of a miner's score and the tally of its challenges; None when it was asked nothing."""
    found = [(kind, answer) for kind, answer in answers if kind in SCORED]
    queries = [answer for kind, answer in found if kind is Kind.QUERY]
    challenges = [answer for kind, answer in found if kind is Kind.CHALLENGE]
    if not found:
        return None
    right = [answer.latency_ms for answer in queries if answer.recall > RIGHT_ABOVE and answer.latency_ms is not None]
    proved = sum(answer.proved and answer.outcome is Outcome.ANSWERED for answer in challenges)
    parts = Parts(
        recall=fmean(answer.recall for answer in queries) if queries else 0.0,
        latency_ms=median_ms(right),
        proof_rate=proved / len(challenges) if challenges else 0.0,
    )
    return parts, Tally(len(challenges), proved)


_NO_OFFERS: Final = Offers(0, 0)


def is_evading(offers: Offers, *, questioned: bool) -> bool:
    """Return whether a miner fails a round for the records that it refuses to take, or to delete.

    Either it takes none, whatever it answers about older ones; or it was not asked, as it holds too few to be asked
    about or nobody knows what it holds, and refuses at least as many as it takes.
    """
    if offers.refused and not offers.taken:
        return True
    against = offers.refused + offers.undeleted
    return not questioned and against > 0 and against >= offers.taken


def groups(results: Sequence[Result], proved_at: Collection[tuple[bytes, str]]) -> list[frozenset[int]]:
    """Return the uids of a round that share one score; see peers.groups."""
    found = (Miner(hotkey=each.hotkey, uid=each.uid, coldkey=each.coldkey, url=each.url) for each in results)
    return peers.groups(found, proved_at)


VOID_FROM: Final = 3
"""Miners at least of which none gave an answer, before the fault is held to be the validator's own."""
CLOCK_WINDOW: Final = 24
VOID_MOST: Final = 6
"""Abandoned rounds of the newest CLOCK_WINDOW from which on no operators are believed that say our clock is out."""
_SILENT: Final = frozenset({Outcome.UNREACHABLE, Outcome.REFUSED, Outcome.UNTIMELY, Outcome.LATE})
_UNHEARD: Final = frozenset({Outcome.UNREACHABLE, Outcome.LATE, Outcome.UNASKED})
_HEARD: Final = frozenset({Outcome.ANSWERED, Outcome.LEGACY})


def why_void(
    answers: Mapping[bytes, Sequence[tuple[Kind, Answer]]],
    offers: Mapping[bytes, Offers],
    operators: Mapping[bytes, bytes],
    void_before: int = 0,
) -> str:
    """Return why a round says nothing of its miners; empty when it counts. `operators` are the miners' coldkeys.
    `void_before` of the CLOCK_WINDOW rounds before it were abandoned.

    Not one of them answered, or took a record: that is our own network, address or clock. Scored, it would slash every
    miner of the subnet for a day. Nonsense is no answer: one miner that sends it would have all the others slashed. The
    longer it lasts the fewer can be asked anything; then nobody takes a record, and that records are still under way
    says as much as that they are refused.

    Or most operators refuse our requests for their time: that is our clock, whatever one that does not look at it says.
    But only for VOID_MOST rounds: else they could keep every round from being scored, for ever.
    """
    found = {hotkey: {answer.outcome for _, answer in each} for hotkey, each in answers.items() if each}
    untimely = {hotkey for hotkey, outcomes in found.items() if Outcome.UNTIMELY in outcomes}
    heard_of = {hotkey for hotkey, outcomes in found.items() if outcomes - _UNHEARD}
    if void_before < VOID_MOST and _is_most(heard_of, untimely, operators):
        return "most operators refuse our requests for their time: look at our clock"
    silent = {hotkey for hotkey, outcomes in found.items() if outcomes <= _SILENT}
    heard = any(outcomes & _HEARD for outcomes in found.values())
    took_any = any(each.taken for each in offers.values())
    took_none = {
        hotkey for hotkey, each in offers.items() if not each.taken and (each.refused or each.untimely or not took_any)
    }
    if not heard and len(silent | took_none) >= VOID_FROM:
        return "no miner answered: look at our network and clock"
    return ""


def counted(offers: Mapping[bytes, Offers], operators: Mapping[bytes, bytes]) -> dict[bytes, Offers]:
    """Return the offers with what was refused for the time of our requests, unless most operators refused so."""
    untimely = {hotkey for hotkey, each in offers.items() if each.untimely}
    if _is_most(set(offers), untimely, operators):
        return dict(offers)
    return {
        hotkey: msgspec.structs.replace(each, refused=each.refused + each.untimely, untimely=0)
        for hotkey, each in offers.items()
    }


def _is_most(among: Collection[bytes], some: Collection[bytes], operators: Mapping[bytes, bytes]) -> bool:
    """Return whether some miners are those of VOID_FROM operators at least, and of most."""
    count = len({operators[hotkey] for hotkey in some})
    return count >= VOID_FROM and 2 * count > len({operators[hotkey] for hotkey in among})


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """A round's outcome."""

    results: list[tuple[bytes, dict[str, object]]]
    """By hotkey, the columns of its result."""
    standings: list[Known]


NOTHING_SCORED: Final = Scored(results=[], standings=[])


def closing(
    results: Sequence[Result],
    answers: Mapping[bytes, Sequence[tuple[Kind, Answer]]],
    held: Mapping[bytes, Known],
    offers: Mapping[bytes, Offers],
    groups: Sequence[frozenset[int]],
    unasked: Collection[bytes],
    block: int,
) -> Scored:
    """Score a round.

    A miner that was asked nothing keeps its standing, unless that is its own doing: it refuses records (`is_evading`),
    or has a standing and no address by now that may be asked. Then it scores 0. So does one that is `unasked`: nothing
    could be asked of it for so many rounds that its standing says nothing of what it stores. A miner in `groups` shares
    its score with the other uids of its group.
    """
    of_uid = {result.uid: result for result in results}
    raw: dict[int, tuple[Parts, Tally]] = {}
    for result in results:
        found = parts_of(answers.get(result.hotkey, ()))
        evading = is_evading(offers.get(result.hotkey, _NO_OFFERS), questioned=found is not None)
        if evading or (found is None and _has_gone(result, held.get(result.hotkey), unasked)):
            found = Parts(0.0, None, 0.0), Tally(0, 0) if found is None else found[1]
        if found is not None:
            raw[result.uid] = found
    shared = scoring.shared({uid: parts.score for uid, (parts, _) in raw.items()}, groups)
    leader = {uid: min(group) for group in groups for uid in group}
    written: list[tuple[bytes, dict[str, object]]] = []
    standings: list[Known] = []
    for uid, (parts, tally) in raw.items():
        hotkey = of_uid[uid].hotkey
        before = held.get(hotkey) or Known(hotkey=hotkey, uid=uid, standing=Standing())
        after = standing.after_round(before.standing, parts, tally, block)
        standings.append(msgspec.structs.replace(before, uid=uid, standing=after))
        columns: dict[str, object] = {
            "recall": parts.recall,
            "latency_ms": parts.latency_ms,
            "proof_rate": parts.proof_rate,
            "score": parts.score,
            "shared_score": shared[uid],
            "group_of": leader.get(uid),
        }
        written.append((hotkey, columns))
    return Scored(results=written, standings=standings)


def _has_gone(result: Result, known: Known | None, unasked: Collection[bytes]) -> bool:
    """Return whether a miner that was scored before may not be asked now, or could not be for too long."""
    was_scored = known is not None and known.standing.rounds > 0
    return was_scored and (result.url is None or result.hotkey in unasked)


def weights(
    held: Mapping[bytes, Known],
    uids: Mapping[bytes, int],
    groups: Sequence[frozenset[int]],
    block: int,
    blacklist: frozenset[bytes],
) -> dict[bytes, float]:
    """Return the scores that weights are made of, by hotkey: EMAs, slashed ones 0, groups sharing one.

    `uids` are those of the last round; a miner that was not in it has none, nor has one on the blacklist.
    """
    able = {hotkey: uid for hotkey, uid in uids.items() if hotkey in held and hotkey not in blacklist}
    own = {uid: standing.weight_of(held[hotkey].standing, block) for hotkey, uid in able.items()}
    of_uid = {uid: hotkey for hotkey, uid in uids.items()}
    return {of_uid[uid]: score for uid, score in scoring.shared(own, groups).items()}
