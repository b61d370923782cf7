"""`engram relay` on the ledger of a data folder, whether a process runs there or not."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from engram.relay import records
from engram.relay.model import Answered, EntryState, MinerScore
from engram.relay.quorum import evidence
from engram.relay.quorum import records as quorum
from engram.relay.quorum.model import Difference, Judged, Proposal, Verdict
from engram.relay.rules import Decision, scores_payload
from engram.xeris.tables import submissions
from tests.cli.conftest import Run
from tests.cli.test_doctor import write
from tests.relay.samples import KEYPAIR, KEYRING, NOW, SIGNER, payload

LISTS = ("log", "streams", "evidence", "proposals", "bundles")


def facts(connection: Connection) -> None:
    """One payload delivered, one abandoned, one that has failed twice since, one that waits."""
    for number in range(1, 5):
        records.enqueue(connection, payload(number), NOW, signer=SIGNER.hotkey)
    ends = [
        (Answered(200), Decision(EntryState.DELIVERED, 1, NOW, "")),
        (Answered(400), Decision(EntryState.ABANDONED, 1, NOW, "the receiver answered 400")),
        (Answered(200), Decision(EntryState.DELIVERED, 1, NOW, "")),  # the gap marker
        (Answered(503), Decision(EntryState.PENDING, 1, NOW, "the receiver answered 503")),
        (Answered(401), Decision(EntryState.PENDING, 1, NOW, "the receiver answered 401")),
    ]
    for number, (outcome, decision) in enumerate(ends):
        (entry,) = records.claim(connection, NOW + number, KEYRING.sign)
        records.settle(connection, entry, outcome, decision, NOW + number)
    proposal = Proposal(
        kind="scores",
        netuid=450,
        block=9,
        block_hash=bytes(32),
        proposer=KEYPAIR.public_key,
        output_hash="ab" * 32,
        signed_hash="cd" * 32,
        document=b'{"block":9}',
        scores={},
    )
    differs = Judged(
        Verdict.DIFFERS,
        "1 values differ",
        (Difference(uid="7", field="recall", proposed=1.0, lowest=0.0, highest=0.1),),
    )
    evidence.keep(connection, proposal, KEYPAIR.ss58, "5Judge", differs, NOW)
    scores = scores_payload({"7": MinerScore(1.0, None, 1.0)}, netuid=450, block=9, uid=0, round_ts=NOW)
    quorum.offer(connection, scores, 3, bytes(32), NOW)
    row = {"at": NOW, "verdict": "permit", "signer": "5Liar", "kind": "scores", "netuid": 450, "block": 9}
    connection.execute(insert(submissions).values(row | {"signed_hash": "ef" * 32, "reason": "it had no permit"}))


@pytest.fixture
def held(here: Path) -> Path:
    folder = here / "data"
    folder.mkdir(mode=0o700)
    write(folder, facts)
    return folder


@pytest.mark.parametrize("command", ["status", *LISTS])
def test_without_a_ledger_the_folder_that_is_wanted_is_named(run: Run, here: Path, command: str) -> None:
    refused = run("relay", command)
    assert refused.code == 1
    assert "there is no ledger at" in refused.err
    assert "set data_dir to its folder" in refused.err


def test_the_status_says_what_waits_and_why_over_restarts(run: Run, held: Path) -> None:
    found = json.loads(run("relay", "status", "--json", "--set", "relay.url=http://receiver/payloads").out)
    assert (found["enabled"], found["outbox_pending"], found["dlq_pending"], found["dlq_abandoned"]) == (True, 2, 1, 1)
    assert (found["total_ok"], found["total_failed"], found["failures_in_a_row"]) == (2, 3, 2)
    assert found["last_failure"] == "the receiver answered 401"
    assert (found["oldest_pending_at"], found["last_ok_at"]) == (NOW, NOW + 2)
    assert not {"held_back", "not_queued", "acknowledged_by"} & found.keys(), "only the process knows these"
    assert ["last_failure", "the receiver answered 401"] in run("relay", "status").lines
    assert json.loads(run("relay", "status", "--json").out)["enabled"] is False


@pytest.mark.parametrize("key", ["", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"])
def test_whether_the_receivers_key_is_named_is_in_the_status_and_in_what_the_doctor_finds(
    run: Run, held: Path, key: str
) -> None:
    given = ("--set", "relay.url=https://receiver.example/payloads", "--set", f"relay.receiver_key={key}")
    assert json.loads(run("relay", "status", "--json", *given).out)["receiver_pinned"] is bool(key)
    findings = {each["what"]: each for each in json.loads(run("doctor", "--json", *given).out)}
    assert ("relay.receiver_key" in findings) is not bool(key)
    assert key or findings["relay.receiver_key"]["verdict"] == "note"


def test_the_log_lists_each_attempt_the_newest_first(run: Run, held: Path) -> None:
    found = json.loads(run("relay", "log", "--json").out)
    assert [each["status"] for each in found] == ["http_401", "http_503", "ok", "http_400", "ok"]
    assert len(json.loads(run("relay", "log", "--last", "2", "--json").out)) == 2
    assert run("relay", "log").lines[1][3] == "http_401"


def test_what_a_receiver_refused_is_in_its_log_with_the_reason(run: Run, held: Path) -> None:
    (found,) = json.loads(run("relay", "log", "--received", "--json").out)
    assert (found["verdict"], found["signer"], found["reason"]) == ("permit", "5Liar", "it had no permit")


def test_streams_say_what_waits_and_what_is_parked(run: Run, held: Path) -> None:
    (found,) = json.loads(run("relay", "streams", "--json").out)
    assert (found["netuid"], found["kind"], found["pending"], found["parked"]) == (450, "memory", 2, 1)


def test_evidence_names_the_proposer_and_the_values_that_differ(run: Run, held: Path) -> None:
    (found,) = json.loads(run("relay", "evidence", "--json").out)
    assert (found["proposer"], found["judge"], found["verdict"]) == (KEYPAIR.ss58, "5Judge", "differs")
    assert found["differences"][0]["uid"] == "7"
    assert found["document"] == {"block": 9}
    assert run("relay", "evidence").lines[1][1:3] == [KEYPAIR.ss58, "5Judge"]


def test_proposals_and_bundles_are_listed_by_epoch(run: Run, held: Path) -> None:
    (found,) = json.loads(run("relay", "proposals", "--json").out)
    assert (found["kind"], found["epoch"], found["state"]) == ("scores", 3, "waiting")
    assert json.loads(run("relay", "bundles", "--json").out) == []
