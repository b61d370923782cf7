"""What a validator relays of weights that were set: scores by the quorum, and alone a ranking as well."""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from sqlalchemy import select

from config.model import RelaySettings, Settings
from engram import wire
from engram.clock import ManualClock
from engram.hotkeys import ss58
from engram.relay import is_signed
from engram.relay.model import RankingPayload
from engram.relay.rules import is_in_order, output_hash, stable_ranking
from engram.relay.tables import relay_outbox
from engram.roles.validator_quorum import ValidatorQuorum
from engram.validator.due import Due
from tests.fakes.living_chain import NETUID
from tests.validator.setters import RuledChain, Setter, setting
from tests.validator.subnets import SUBTENSOR, VALIDATOR


def quorum_of(at: Setter, needed: int) -> ValidatorQuorum:
    p = MagicMock()
    p.settings = Settings(relay=RelaySettings(url="http://127.0.0.1:1/payloads", quorum=needed))
    p.clock = ManualClock()
    return ValidatorQuorum(p, VALIDATOR, at.subnets, None, [], MagicMock())


def queued(at: Setter) -> list[RankingPayload]:
    rows = select(relay_outbox.c.payload).where(relay_outbox.c.kind == "ranking")
    payloads = at.ledger.write_now(lambda c: list(c.scalars(rows).all()))
    return [wire.decode(payload, RankingPayload) for payload in payloads]


@pytest.mark.parametrize("needed", [1, 2])
async def test_weights_that_were_set_are_ranked_and_leave_where_one_signature_is_enough(
    tmp_path: Path, needed: int
) -> None:
    relays: list[ValidatorQuorum] = []

    def settled(connection: Any, sent: Any, last: Any) -> None:
        relays[0].queue_ranking(connection, sent, last)

    async with setting(tmp_path, RuledChain, settled=settled) as at:
        relays.append(quorum_of(at, needed))
        assert await at.look() is Due.NO_ROUND
        await at.score({1: 0.2, 2: 1.0, 3: 0.4})
        assert await at.look() is Due.SET
        if needed > 1:
            assert queued(at) == [], "a validator does not co-sign rankings"
            return
        (found,) = queued(at)
        assert [each.uid for each in found.ranking] == [2, 3, 1]
        metagraph = at.subnets.get(NETUID)
        assert metagraph is not None
        assert found.ranking[0].hotkey == ss58.encode(metagraph.neurons[2].hotkey)
        assert is_in_order(found.ranking)
        assert sum(each.weight for each in found.ranking) == pytest.approx(1.0)
        assert found.output_hash == output_hash(stable_ranking(found.ranking))
        (signed,) = at.ledger.write_now(lambda c: list(c.scalars(select(relay_outbox.c.signed)).all()))
        assert is_signed(wire.decode(signed, dict[str, object]))


async def test_weights_that_the_chain_refused_are_not_ranked(tmp_path: Path) -> None:
    relays: list[ValidatorQuorum] = []

    def settled(connection: Any, sent: Any, last: Any) -> None:
        relays[0].queue_ranking(connection, sent, last)

    async with setting(tmp_path, RuledChain, settled=settled) as at:
        relays.append(quorum_of(at, 1))
        at.chain.put(True, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)  # which the metagraph does not say
        assert await at.look() is Due.NO_ROUND
        await at.score({1: 1.0})
        assert await at.look() is Due.REFUSED
        assert queued(at) == []
