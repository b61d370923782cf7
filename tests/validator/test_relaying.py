"""What a validator offers to the quorum of weights that were set: the round's scores, and the ranking."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import msgspec
import pytest
import trio
import trio.testing

from actors import Registry, SupervisorSpec, open_system
from config.model import RelaySettings, Settings, ValidatorSettings
from engram import kill_points, wire
from engram.clock import ManualClock
from engram.hotkeys import ss58
from engram.ledger import open_inline
from engram.relay import records as relay_records
from engram.relay.model import RankingPayload, ScoresPayload
from engram.relay.quorum import records
from engram.relay.rules import is_in_order, output_hash, stable_ranking
from engram.roles.validator_quorum import ValidatorQuorum
from engram.validator.due import Due
from engram.validator.model import SentState
from tests.fakes.living_chain import NETUID
from tests.validator.setters import RuledChain, Setter, setting
from tests.validator.subnets import SUBTENSOR, VALIDATOR

URL = "http://127.0.0.1:1/payloads"


def quorum_of(at: Setter, needed: int) -> ValidatorQuorum:
    p = MagicMock()
    p.settings = Settings(relay=RelaySettings(url=URL, quorum=needed))
    p.clock = ManualClock()
    return ValidatorQuorum(p, VALIDATOR, at.subnets, None, [], MagicMock())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"validator": ValidatorSettings(dry_run=True)}, "validator.dry_run is true"),
        (
            {"validator": ValidatorSettings(dry_run=False), "relay": RelaySettings(url=URL, anchor=False)},
            "relay.anchor is false",
        ),
    ],
)
async def test_where_the_settings_rule_out_anchors_the_relay_s_status_says_which(
    changed: dict[str, Any], reason: str
) -> None:
    p = MagicMock(clock=ManualClock(), ledger=open_inline())
    p.settings = Settings(**{"relay": RelaySettings(url=URL)} | changed)
    quorum = ValidatorQuorum(p, VALIDATOR, MagicMock(), None, [], MagicMock())
    (anchors,) = [child for child in quorum.children() if child.id == "anchors"]
    async with open_system(SupervisorSpec("root", [anchors]), registry=Registry()):
        await trio.testing.wait_all_tasks_blocked()
        status = p.ledger.write_now(lambda c: relay_records.status(c, enabled=True, failures_in_a_row=0))
        assert status.not_anchored == reason
    p.ledger.close()


def offered(at: Setter, kind: str) -> list[bytes]:
    found = at.ledger.write_now(lambda c: records.candidates(c, 10))
    return [each.payload for each in found if each.kind == kind]


@asynccontextmanager
async def relaying(folder: Path, needed: int = 2) -> AsyncIterator[Setter]:
    """A setter of weights that offers what is relayed of them."""
    relays: list[ValidatorQuorum] = []

    def settled(connection: Any, sent: Any, last: Any) -> None:
        assert relays[0].offer(connection, sent, last) == 0

    async with setting(folder, RuledChain, settled=settled) as at:
        relays.append(quorum_of(at, needed))
        yield at


@pytest.mark.parametrize("needed", [1, 2])
async def test_weights_that_were_set_are_ranked_whatever_the_quorum(tmp_path: Path, needed: int) -> None:
    async with relaying(tmp_path, needed) as at:
        assert await at.look() is Due.NO_ROUND
        await at.score({1: 0.2, 2: 1.0, 3: 0.4})
        assert await at.look() is Due.SET
        (payload,) = offered(at, "ranking")
        found = wire.decode(payload, RankingPayload)
        assert [each.uid for each in found.ranking] == [2, 3, 1]
        metagraph = at.subnets.get(NETUID)
        assert metagraph is not None
        assert found.ranking[0].hotkey == ss58.encode(metagraph.neurons[2].hotkey)
        assert is_in_order(found.ranking)
        assert sum(each.weight for each in found.ranking) == pytest.approx(1.0)
        assert found.output_hash == output_hash(stable_ranking(found.ranking))


async def test_weights_that_the_chain_refused_are_not_ranked(tmp_path: Path) -> None:
    async with relaying(tmp_path) as at:
        at.chain.put(True, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)  # which the metagraph does not say
        assert await at.look() is Due.NO_ROUND
        await at.score({1: 1.0})
        assert await at.look() is Due.REFUSED
        assert offered(at, "ranking") == []


class Crashed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", ["weights:before", "weights:after"])
async def test_scores_are_relayed_after_a_crash_around_the_extrinsic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The first look after a start has no metagraph yet, so it notes no uid; the second settles what was open."""

    def crash(name: str) -> None:
        if name == moment:
            raise Crashed

    async with relaying(tmp_path, 1) as at:
        await at.look()
        await at.score({1: 0.2, 2: 1.0})
        with monkeypatch.context() as patch, pytest.raises(Crashed):
            patch.setattr(kill_points, "point", crash)
            await at.look()
        assert offered(at, "scores") == offered(at, "ranking") == []
        again = Setter(at.ledger, at.chain, tmp_path, boot="second")
        quorum = quorum_of(again, 1)
        again.setter._ports = msgspec.structs.replace(again.setter._ports, settled=quorum.offer)
        assert await again.setter.look() is Due.CHAIN_STALE
        assert (await again.noted()).uid is None
        for _ in range(70):  # more than an extrinsic may be included for
            at.chain.seal()
        await again.look()
        (sent,) = await again.sent()
        assert sent.state is (SentState.SET if moment == "weights:after" else SentState.REFUSED)
        (payload,) = offered(at, "scores")
        assert set(wire.decode(payload, ScoresPayload).scores) == {"1", "2"}
        assert len(offered(at, "ranking")) == (1 if moment == "weights:after" else 0)
