"""`engram doctor` against a chain and a facilitator that are right, and that are wrong in one thing each."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from eth_account import Account
from sqlalchemy import Connection

import config
from engram.cli import main
from engram.cli.doctor.money import money
from engram.ledger import LEDGER_FILE, open_inline
from engram.payments import records, reservations
from engram.payments.networks import NETWORKS
from engram.payments.rules import PaymentEvent
from tests.evm import node
from tests.evm.chain import NETWORK, TOKEN, Chain
from tests.evm.shop import RECIPIENT, REFUND_KEY, REFUNDER
from tests.evm.wire import Wire, answers, cut
from tests.payments import builders

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]

Doctor = Callable[..., tuple[int, dict[str, tuple[str, str]]]]
NOTHING: dict[str, object] = {"kinds": [], "extensions": [], "signers": {}}


def kinds(**extra: object) -> dict[str, object]:
    return {"kinds": [{"x402Version": 2, "scheme": "exact", "network": NETWORK.caip2, "extra": extra}]}


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with Chain(tmp_path / "anvil.log") as running:
        yield running


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire(lambda: "http://127.0.0.1:1") as running:
        running.faults["/supported"] = answers(200, kinds())
        yield running


@pytest.fixture
def doctor(
    tmp_path: Path, chain: Chain, wire: Wire, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    """Runs it on a healthy house, but for the settings given; returns its exit status and what it found."""
    from config.environment import NAMES

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    key = tmp_path / "refund-key"
    key.write_text(REFUND_KEY.hex())
    key.chmod(0o600)
    chain.mint(REFUNDER, 1_000_000_000)
    healthy = {
        "gateway.port": "0",
        "ops.port": "0",
        "payments.network": "base-sepolia",
        "payments.recipient": RECIPIENT,
        "payments.facilitator_url": wire.url,
        "payments.rpc_url": chain.url,
        "payments.refund_key_file": str(key),
    }

    def run(**settings: str) -> tuple[int, dict[str, tuple[str, str]]]:
        given = {**healthy, **{name.replace("__", "."): value for name, value in settings.items()}}
        status = main(["doctor", "--json", *(part for pair in given.items() for part in ("--set", "=".join(pair)))])
        found = json.loads(capsys.readouterr().out)
        return status, {finding["what"]: (finding["verdict"], finding["text"]) for finding in found}

    return run


def test_a_healthy_house_is_told_so(doctor: Doctor) -> None:
    status, found = doctor()
    looked_at = ("recipient", "facilitator", "chain", "clock", "token", "refunds")
    assert {what: found[what][0] for what in looked_at} == dict.fromkeys(looked_at, "good")
    assert status == 0


def test_a_facilitator_that_cannot_be_asked_is_a_fault(doctor: Doctor, wire: Wire) -> None:
    for fault in (cut, answers(500, {}), answers(200, b"no JSON"), answers(200, {"kinds": 1}), answers(200, NOTHING)):
        wire.faults["/supported"] = fault
        status, found = doctor()
        assert (status, found["facilitator"][0]) == (1, "bad"), found["facilitator"]


def test_a_facilitators_minimum_above_the_cheapest_sale_is_named(doctor: Doctor, wire: Wire) -> None:
    wire.faults["/supported"] = answers(200, kinds(minPaymentAmountAtomic="60000"))
    status, found = doctor()
    assert (status, found["facilitator"][0]) == (0, "note")
    assert "$0.06" in found["facilitator"][1]


def test_a_facilitator_that_names_another_way_of_moving_money_is_noted(doctor: Doctor, wire: Wire) -> None:
    for method, verdict in (("eip3009", "good"), ("permit2", "note")):
        wire.faults["/supported"] = answers(200, kinds(assetTransferMethod=method))
        status, found = doctor()
        assert (status, found["facilitator"][0]) == (0, verdict)


@pytest.mark.parametrize(("slot", "what"), [(0, "name"), (1, "version")])
def test_a_token_of_another_domain_is_a_fault(doctor: Doctor, chain: Chain, slot: int, what: str) -> None:
    chain.rpc(
        "anvil_setStorageAt", TOKEN, "0x" + slot.to_bytes(32, "big").hex(), "0x" + (b"9".ljust(31, b"\0") + b"\2").hex()
    )
    chain.mine()
    status, found = doctor()
    assert (status, found["token"][0]) == (1, "bad"), what
    assert "'9'" in found["token"][1]


def test_no_token_at_all_is_a_fault(doctor: Doctor, chain: Chain) -> None:
    chain.rpc("anvil_setCode", TOKEN, "0x")
    status, found = doctor()
    assert (status, found["token"][0]) == (1, "bad")


@pytest.mark.parametrize("skew_s", [120, 3_600])
def test_a_clock_behind_the_chain_is_a_fault(doctor: Doctor, chain: Chain, skew_s: int) -> None:
    chain.rpc("evm_setNextBlockTimestamp", int(time.time()) + skew_s)
    chain.mine()
    status, found = doctor()
    assert (status, found["clock"][0]) == (1, "bad")
    assert "behind" in found["clock"][1]


def test_a_clock_ahead_of_the_chain_is_a_fault(chain: Chain) -> None:
    flags = {"payments.network": NETWORK.caip2, "payments.recipient": RECIPIENT, "payments.rpc_url": chain.url}
    settings = config.load("local", environ={}, flags=flags, env_files=()).settings
    (clock,) = [one for one in trio.run(money, settings, 0, lambda: time.time() + 90) if one.what == "clock"]
    assert clock.verdict == "bad"
    assert "ahead" in clock.text


def test_a_refund_key_that_owns_less_than_is_owed_is_a_fault(doctor: Doctor, tmp_path: Path, chain: Chain) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    ledger = open_inline(folder / LEDGER_FILE)

    def owe(connection: Connection) -> None:
        asked = builders.reservation()
        reservations.reserve(connection, asked)
        for event in (PaymentEvent.VERIFIED, PaymentEvent.SETTLED, PaymentEvent.OWED):
            records.advance(connection, asked.payment.id, event, builders.instant())

    ledger.write_now(owe)
    ledger.close()
    key = tmp_path / "poor-key"
    key.write_text("44" * 32)
    key.chmod(0o600)
    address = Account.from_key(bytes.fromhex("44" * 32)).address
    chain.mint(address, 99_999)
    status, found = doctor(payments__refund_key_file=str(key))
    assert (status, found["refunds"][0]) == (1, "bad")
    assert "$0.10 of refunds are due" in found["refunds"][1]
    chain.mint(address, 1)
    assert doctor(payments__refund_key_file=str(key))[1]["refunds"][0] == "note"


def test_a_chain_with_another_id_is_a_fault(doctor: Doctor) -> None:
    status, found = doctor(payments__network="base")
    assert (status, found["chain"][0]) == (1, "bad")
    assert str(NETWORKS["base"].chain_id) in found["chain"][1]


def test_a_node_that_does_not_answer_is_a_fault_and_its_key_is_not_shown(doctor: Doctor) -> None:
    status, found = doctor(payments__rpc_url="http://user:secret@127.0.0.1:1/?key=secret")
    assert (status, found["chain"][0]) == (1, "bad")
    assert "secret" not in found["chain"][1]


def test_an_empty_refund_key_is_a_fault_and_a_low_one_a_note(doctor: Doctor, tmp_path: Path, chain: Chain) -> None:
    key = tmp_path / "other-key"
    key.write_text("33" * 32)
    key.chmod(0o600)
    status, found = doctor(payments__refund_key_file=str(key))
    assert (status, found["refunds"][0]) == (1, "bad")
    status, found = doctor(payments__refund_daily_usd="5000")
    assert (status, found["refunds"][0]) == (0, "note")
    key.chmod(0o644)
    status, found = doctor(payments__refund_key_file=str(key))
    assert (status, found["refunds"][0]) == (1, "bad")
    assert "33" * 32 not in found["refunds"][1]


def test_without_a_chain_the_clock_is_compared_with_the_facilitators(doctor: Doctor) -> None:
    status, found = doctor(payments__rpc_url="")
    assert (status, found["chain"][0], found["clock"][0], found["refunds"][0]) == (0, "note", "good", "note")
    assert "facilitator" in found["clock"][1]


def test_a_recipient_with_a_wrong_checksum_is_a_fault_and_without_one_a_note(doctor: Doctor) -> None:
    status, found = doctor(payments__recipient=RECIPIENT.lower())
    assert (status, found["recipient"][0]) == (0, "note")
    status, found = doctor(payments__recipient=RECIPIENT[:2] + RECIPIENT[2:].swapcase())
    assert (status, found["recipient"][0]) == (1, "bad")


def test_a_damaged_ledger_is_a_fault(doctor: Doctor, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / LEDGER_FILE).write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    status, found = doctor()
    assert (status, found["ledger"][0]) == (1, "bad")
