"""The scores of a round, and the ranking by the weights that were set, as payloads of the relay; and rounds as what
proposals are held against."""

from typing import Final

from sqlalchemy import Connection

from engram.chain.model import Metagraph
from engram.hotkeys import ss58
from engram.relay import MinerScore, ScoresPayload
from engram.relay.model import RankingPayload
from engram.relay.quorum.model import Reading
from engram.relay.rules import ranking_payload, scores_payload
from engram.validator.model import Round, Sent, SentState
from engram.validator.records import rounds as round_records

ROUNDS_COMPARED: Final = 8


def payload(
    connection: Connection, sent: Sent, last: Round, hotkey: bytes, metagraph: Metagraph
) -> ScoresPayload | None:
    """Return the payload; None when no miner was scored, or the hotkey holds no uid."""
    scores, neuron = _scores(connection, last), metagraph.neuron(hotkey)
    if not scores or neuron is None:
        return None
    return scores_payload(
        scores, netuid=sent.netuid, block=last.block, uid=neuron.uid, round_ts=last.closed_at or last.opened_at
    )


def ranking(sent: Sent, last: Round, hotkey: bytes, metagraph: Metagraph) -> RankingPayload | None:
    """Return the order of the miners by weights that were set; None when they were not, or the hotkey holds no uid."""
    neuron = metagraph.neuron(hotkey)
    if sent.state is not SentState.SET or neuron is None:
        return None
    hotkeys = {each.uid: ss58.encode(each.hotkey) for each in metagraph.neurons}
    weights = {(uid, hotkeys[uid]): weight for uid, weight in sent.weights.items() if weight > 0 and uid in hotkeys}
    if not weights:
        return None
    return ranking_payload(
        weights, netuid=sent.netuid, block=last.block, uid=neuron.uid, round_ts=last.closed_at or last.opened_at
    )


def audit(sent: Sent) -> str | None:
    """Return what is noted beside scores whose weights are not, or may not be, on the chain; None where they are."""
    match sent.state:
        case SentState.REFUSED:
            return f"the chain has refused the weights of epoch {sent.epoch}: {sent.reason}"
        case SentState.LOST:
            return f"the weights of epoch {sent.epoch} were never included: {sent.reason}"
        case SentState.UNKNOWN:
            return f"it is not known whether the chain took the weights of epoch {sent.epoch}: {sent.reason}"
        case _:
            return None


def readings(connection: Connection, netuid: int, block: int, blocks: int) -> list[Reading]:
    """Return what was measured in the newest ROUNDS_COMPARED rounds of at most `blocks` blocks from a block."""
    near = round_records.closed_near(connection, netuid, block, blocks, ROUNDS_COMPARED)
    return [Reading(each.block, _scores(connection, each)) for each in near]


def _scores(connection: Connection, held: Round) -> dict[str, MinerScore]:
    return {
        str(result.uid): MinerScore(result.recall or 0.0, result.latency_ms, result.proof_rate or 0.0)
        for result in round_records.results(connection, held.id)
        if result.score is not None and result.url is not None  # of the others nothing was measured
    }
