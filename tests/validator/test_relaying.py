"""What a validator offers to the quorum of weights that were set: the round's scores, and the ranking."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import msgspec
import pytest
import structlog
import trio
import trio.testing
from sqlalchemy import Connection

from actors import Registry, SupervisorSpec, open_system
from config.model import RelaySettings, Settings, ValidatorSettings
from engram import kill_points, wire
from engram.clock import ManualClock
from engram.hotkeys import ss58
from engram.ledger import open_inline
from engram.relay import records as relay_records
from engram.relay.model import RankingPayload, ScoresPayload
from engram.relay.quorum import records
from engram.relay.quorum.model import CandidateState
from engram.relay.rules import is_in_order, output_hash, stable_ranking
from engram.roles.validator_quorum import ValidatorQuorum
from engram.validator.due import Due
from engram.validator.model import SentState
from tests.fakes.living_chain import NETUID
from tests.validator.setters import RuledChain, Setter, setting
from tests.validator.subnets import SUBTENSOR, VALIDATOR

TEMPO = 60
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
        assert sent.state is (SentState.SET if moment == "weights:after" else SentState.LOST)
        (payload,) = offered(at, "scores")
        assert set(wire.decode(payload, ScoresPayload).scores) == {"1", "2"}
        assert len(offered(at, "ranking")) == (1 if moment == "weights:after" else 0)


def epochs(at: Setter, kind: str) -> list[int]:
    return sorted(each.epoch for each in at.ledger.write_now(lambda c: records.candidates(c, 10)) if each.kind == kind)


async def test_alone_weights_of_two_epochs_are_relayed_both_though_their_rounds_are_of_one(tmp_path: Path) -> None:
    async with setting(tmp_path, RuledChain) as at:
        one_long_epoch(at)
        quorum = quorum_of(at, 1)
        at.setter._ports = msgspec.structs.replace(at.setter._ports, settled=quorum.offer)
        await at.score({1: 0.2, 2: 1.0})
        assert await at.look() is Due.SET
        at.chain.seal()
        await at.score({1: 1.0, 2: 0.2})
        next_epoch(at)
        assert await at.look() is Due.SET
        set_in = sorted(sent.epoch for sent in await at.sent())
        assert len(set_in) == len(set(set_in)) == 2
        assert epochs(at, "scores") == epochs(at, "ranking") == set_in


@pytest.mark.parametrize("needed", [1, 2])
async def test_a_refusal_is_forgotten_once_the_epoch_s_weights_are_set(tmp_path: Path, needed: int) -> None:
    async with relaying(tmp_path, needed) as at:
        at.chain.put(True, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)  # which the metagraph does not say
        one_long_epoch(at)
        await at.look()
        await at.score({1: 1.0})
        assert await at.look() is Due.REFUSED
        assert "refused" in (reason(at, "scores") or "")
        at.chain.put(False, SUBTENSOR, "CommitRevealWeightsEnabled", NETUID)
        for _ in range(10):
            at.chain.seal()
        assert await at.look() is Due.SET
        assert reason(at, "scores") is None


async def test_among_several_the_newest_round_of_an_epoch_is_offered_until_one_was_proposed(tmp_path: Path) -> None:
    """What others are shown is the round's block alone: to them its epoch is that of the weights."""
    async with relaying(tmp_path, 2) as at:
        one_long_epoch(at)
        await at.look()
        await at.score({1: 0.2, 2: 1.0})
        assert await at.look() is Due.SET
        at.chain.seal()
        await at.score({1: 1.0, 2: 0.2})
        next_epoch(at)
        assert await at.look() is Due.SET
        (payload,) = offered(at, "ranking")
        assert [each.uid for each in wire.decode(payload, RankingPayload).ranking] == [1, 2]


async def test_an_epoch_that_has_been_proposed_keeps_what_was_and_the_log_says_so(tmp_path: Path) -> None:
    async with relaying(tmp_path, 2) as at:
        one_long_epoch(at)
        await at.look()
        await at.score({1: 0.2, 2: 1.0})
        assert await at.look() is Due.SET
        at.ledger.write_now(bundled)
        before = offered(at, "scores")
        at.chain.seal()
        await at.score({1: 1.0, 2: 0.2})
        next_epoch(at)
        with structlog.testing.capture_logs() as logs:
            assert await at.look() is Due.SET
        assert offered(at, "scores") == before
        assert [each["kind"] for each in logs if each["event"] == "epoch_has_been_relayed"] == ["scores", "ranking"]


def one_long_epoch(at: Setter) -> None:
    assert isinstance(at.chain, RuledChain)
    at.chain.rules.update(tempo=TEMPO, last_step=at.chain.head)


def next_epoch(at: Setter) -> None:
    assert isinstance(at.chain, RuledChain)
    begins = at.chain.rules["last_step"] + TEMPO + 1
    while at.chain.head < begins:
        at.chain.seal()
    at.chain.rules["last_step"] = begins


def bundled(connection: Connection) -> None:
    for found in records.candidates(connection, 10):
        records.end(connection, found, CandidateState.BUNDLED, None, 1.0)


def reason(at: Setter, kind: str) -> str | None:
    (found,) = [each for each in at.ledger.write_now(lambda c: records.candidates(c, 10)) if each.kind == kind]
    return found.reason
