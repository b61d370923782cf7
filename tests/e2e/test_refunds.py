"""Money that bought nothing comes back to the buyer exactly once, seen from outside a real process."""

import contextlib
import http.client
import time
from pathlib import Path
from typing import Any

import pytest

from engram.payments.keccak import parse_address
from tests.e2e.buyer import Buyer, balance, balance_of
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.sampling import sample

OPENING_BALANCE = 1_000_000_000
SLOW_NODES = FAST + "\n[provisioning]\nattempts = 3\nhealth_interval_s = 0.25\n"
NO_NODES = FAST + "\n[provisioning]\nattempts = 1\nlaunch_timeout_s = 0.05\nhealth_interval_s = 10.0\n"
POINTS = ("refund:before", "refund:after", *(f"{moment}:{n}" for n in range(5, 12) for moment in ("begin", "commit")))


def payment(gateway: GatewayProcess, buyer: Buyer, payment_id: str) -> dict[str, Any]:
    answer = buyer.send(gateway.url, "GET", f"/payments/{payment_id}", b"")
    assert answer.status == 200, answer
    return answer.body


def refunded(gateway: GatewayProcess, buyer: Buyer, payment_id: str, within_s: float = 20.0) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while (shown := payment(gateway, buyer, payment_id))["status"] != "refunded":
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)
    return shown


def test_a_stop_before_active_brings_the_money_back_once_and_shows_it(tmp_path: Path) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=SLOW_NODES) as gateway:
        gateway.start()
        offer = buyer.quote(gateway.url)
        recipient = parse_address(str(offer.body["recipient"]))
        bought = buyer.pay(gateway.url)
        session_id, payment_id = str(bought.body["session_id"]), str(bought.body["payment_id"])
        assert buyer.stop(gateway.url, session_id).status == 200
        buyer.wait(gateway.url, session_id, "stopped")
        shown = refunded(gateway, buyer, payment_id)
        (refund,) = shown["refunds"]
        assert (refund["status"], refund["amount_usd"]) == ("refunded", 0.1)
        assert refund["transaction"].startswith("0x")
        books = gateway.ready["facilitator_url"]
        assert balance(books, buyer.wallet) == OPENING_BALANCE
        assert balance_of(books, recipient) == OPENING_BALANCE
        assert buyer.pay(gateway.url).status == 202  # the same payment again: the same session, no more money
        time.sleep(3)
        assert balance(books, buyer.wallet) == OPENING_BALANCE
        assert gateway.terminate() == 0


def test_a_session_that_gets_no_node_is_paid_back(tmp_path: Path) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=NO_NODES) as gateway:
        gateway.start()
        buyer.quote(gateway.url)
        bought = buyer.pay(gateway.url)
        buyer.wait(gateway.url, str(bought.body["session_id"]), "failed")
        shown = refunded(gateway, buyer, str(bought.body["payment_id"]))
        assert shown["refunds"][0]["reason"] == "provision_failed"
        assert balance(gateway.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE
        assert gateway.terminate() == 0


@pytest.mark.parametrize("point", sample("kills of a refund", POINTS, 2))
def test_a_gateway_killed_anywhere_gives_the_money_back_exactly_once(tmp_path: Path, point: str) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data", settings=NO_NODES) as gateway:
        gateway.spawn(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        assert gateway.wait_ready()
        buyer.quote(gateway.url)
        with contextlib.suppress(OSError, http.client.HTTPException):  # killed before it could answer
            buyer.pay(gateway.url)
        assert gateway.wait() == -9, f"{point} was not passed"

        gateway.start()
        bought = buyer.pay(gateway.url)
        assert bought.status == 202, bought
        refunded(gateway, buyer, str(bought.body["payment_id"]))
        assert len(payment(gateway, buyer, str(bought.body["payment_id"]))["refunds"]) == 1
        assert balance(gateway.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE
        assert gateway.nodes() == []
        assert gateway.terminate() == 0
