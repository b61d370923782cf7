"""What /metrics tells of a validator."""

import msgspec

from engram.telemetry.metrics import Metrics
from engram.validator.model import Look
from engram.validator.ops import show
from engram.validator.reports import RoundRow, ValidatorStatus
from tests.chain.samples import key, metagraph, neuron

NOW = 1_900_000_000.0


def status(verdict: str | None = None, closed_at: float | None = None) -> ValidatorStatus:
    look = None
    if verdict is not None:
        look = Look(netuid=450, verdict=verdict, detail="", warnings=[], block=9, uid=1, at=NOW)
    row = RoundRow(id=1, netuid=450, block=9, block_hash="0x", state="closed", opened_at=NOW - 90, closed_at=closed_at)
    return ValidatorStatus(
        hotkey="5abc",
        netuid=450,
        look=look,
        last_round=None if closed_at is None else row,
        rounds=1,
        planted={"held": 3},
        weights=None,
    )


def test_where_weights_stand_is_one_verdict_and_the_others_are_0() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    show(metrics, status("no_permit", NOW - 60), None, key(1), NOW, 5.0)
    assert value("engram_validator_due", {"verdict": "no_permit"}) == 1
    show(metrics, status("set", NOW - 60), None, key(1), NOW, 5.0)
    assert value("engram_validator_due", {"verdict": "no_permit"}) == 0
    assert value("engram_validator_due", {"verdict": "set"}) == 1
    assert value("engram_validator_planted", {"state": "held"}) == 3
    assert value("engram_validator_planted", {"state": "lost"}) == 0
    assert value("engram_validator_round_age_seconds") == 60


def test_blocks_since_the_weights_are_shown_while_there_is_a_uid() -> None:
    metrics = Metrics()
    value = metrics.registry.get_sample_value
    own = msgspec.structs.replace(neuron(0, 3), last_update_block=1_030)
    seen = metagraph(own, block=1_100)
    show(metrics, status(), seen, own.hotkey, NOW, 5.0)
    assert value("engram_validator_weights_age_blocks") == 70
    assert value("engram_validator_activity_cutoff_blocks") == seen.parameters.activity_cutoff_blocks
    assert value("engram_validator_round_age_seconds") == 5.0, "since the start before the first round"
    show(metrics, status(), seen, bytes(32), NOW, 5.0)
    assert value("engram_validator_weights_age_blocks") is None
