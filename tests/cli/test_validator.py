"""`engram validator` on a data folder where no validator has run, and on one where one has."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from engram.validator.due import Due
from engram.validator.model import Answer, Kind, Known, Look, Miner, Outcome, Question, RoundState
from engram.validator.records import asking as asking_records
from engram.validator.records import plants as plant_records
from engram.validator.records import rounds as round_records
from engram.validator.records import sent as weight_records
from engram.validator.records import standings as miner_records
from engram.validator.standing import Standing
from tests.cli.conftest import Run
from tests.cli.test_doctor import write

MINER = bytes([7] * 32)


@pytest.mark.parametrize("command", [("status",), ("scores",), ("rounds",), ("explain", "17")])
def test_without_a_data_folder_the_way_to_start_one_is_told(run: Run, here: Path, command: tuple[str, ...]) -> None:
    refused = run("validator", *command)
    assert refused.code == 1
    assert "no validator of subnet 450 has run in the data folder data yet" in refused.err


@pytest.mark.parametrize("command", [("status",), ("explain", "17")])
def test_where_none_has_run_the_way_to_start_one_is_told(run: Run, here: Path, command: tuple[str, ...]) -> None:
    (here / "data").mkdir(mode=0o700)
    write(here / "data", lambda connection: None)
    refused = run("validator", *command)
    assert refused.code == 1
    assert "no validator of subnet 450 has run in the data folder data yet" in refused.err
    assert "engram run validator" in refused.err


def a_round(verdict: str) -> Callable[[Connection], None]:
    """A validator that has held one round with one miner, and looked at the chain."""

    def facts(connection: Connection) -> None:
        miner = Miner(hotkey=MINER, uid=7, coldkey=bytes(32), url="http://192.0.2.1:8091")
        query = Question(
            hotkey=MINER,
            kind=Kind.QUERY,
            family_id=1,
            text="What do we know about the Quist mill?",
            vector=bytes(1536),
            truth=("v1::a", "v1::b"),
            planted=2,
            own_key=True,
        )
        opened = round_records.open_round(connection, 450, 1_000, bytes([171] * 32), "boot", 1.0, [miner], [query])
        answer = Answer(question_id=1, outcome=Outcome.ANSWERED, recall=0.5, latency_ms=12.0)
        asking_records.answered(connection, opened.id, MINER, [answer])
        columns: dict[str, object] = dict.fromkeys(round_records.SCORES, None) | {"recall": 0.5, "score": 0.55}
        round_records.close_round(connection, opened.id, [(MINER, columns)], RoundState.CLOSED, 2.0)
        standing = Standing(ema=0.55, rounds=1, challenges=2, proved=1)
        miner_records.keep(connection, [Known(hotkey=MINER, uid=7, standing=standing)], 2.0)
        plant = {"hotkey": MINER, "family_id": 1, "signer": bytes(32), "text": "a note", "plant_at": 1.5}
        plant |= {"planted_round": 1, "delete_round": 4, "updated_at": 2.0, "cid": "v1::a", "state": "refused"}
        plant_records.add_plants(connection, [{**plant, "reason": "507: the disk is full"}])
        look = Look(netuid=450, verdict=verdict, detail="a detail", warnings=["late"], block=1_001, uid=0, at=3.0)
        weight_records.keep_look(connection, look, bytes(32))

    return facts


@pytest.fixture
def held(here: Path) -> Path:
    folder = here / "data"
    folder.mkdir(mode=0o700)
    return folder


def test_a_round_names_its_block_in_hex(run: Run, held: Path) -> None:
    write(held, a_round("due"))
    (shown,) = json.loads(run("validator", "rounds", "--json").out)
    assert (shown["block"], shown["block_hash"]) == (1_000, "0x" + "ab" * 32)
    assert json.loads(run("validator", "status", "--json").out)["last_round"]["block_hash"] == "0x" + "ab" * 32


def test_a_score_is_explained_down_to_each_question_and_each_planted_record(run: Run, held: Path) -> None:
    write(held, a_round("due"))
    found = json.loads(run("validator", "explain", "7", "--json").out)
    (question,) = found["rounds"][0]["questions"]
    assert (question["about"], question["truth"], question["planted"]) == (
        "What do we know about the Quist mill?",
        2,
        2,
    )
    assert (question["outcome"], question["recall"], question["latency_ms"]) == ("answered", 0.5, 12.0)
    (plant,) = found["plants"]
    assert (plant["cid"], plant["state"], plant["reason"]) == ("v1::a", "refused", "507: the disk is full")
    text = run("validator", "explain", "7").out
    assert "What do we know" in text
    assert "the disk is full" in text


@pytest.mark.parametrize(
    ("verdict", "words", "bad"),
    [
        (Due.NO_PERMIT, "no validator permit (yet)", True),
        (Due.NOT_REGISTERED, "not registered on the subnet", True),
        (Due.OUTDATED, "upgrade Engram", True),
        (Due.REFUSED, "the chain has refused these weights", True),
        (Due.NO_SCORES, "no miner has a score above 0", True),
        (Due.TOO_FEW, "the subnet's limits of weights", True),
        (Due.CHAIN_STALE, "could not be read lately", True),
        (Due.UNSETTLED, "may still be included", False),
        (Due.DUE, "weights are due", False),
        (Due.NO_ROUND, "waiting for one whole round", False),
        (Due.RATE_LIMITED, "weights_rate_limit", False),
        (Due.SET, "weights of this epoch are set", False),
    ],
)
def test_the_state_of_the_weights_is_in_words_in_status_and_doctor(
    run: Run, held: Path, verdict: Due, words: str, bad: bool
) -> None:
    write(held, a_round(str(verdict)))
    status = run("validator", "status").out
    assert words in " ".join(status.split())
    assert "a detail" in status
    findings = {each["what"]: each for each in json.loads(run("validator", "doctor", "--json").out)}
    assert words in findings["weights"]["text"]
    assert findings["weights"]["verdict"] == ("bad" if bad else "good")
    assert findings["chain"]["text"] == "late"


@pytest.mark.parametrize("own", [True, False])
def test_the_doctor_notes_that_planted_records_are_made_of_published_words(run: Run, held: Path, own: bool) -> None:
    write(held, a_round(str(Due.SET)))
    given = ["--set", "validator.planted_words=words.toml"] if own else []
    findings = {each["what"]: each for each in json.loads(run("validator", "doctor", "--json", *given).out)}
    assert ("words" in findings) is not own
