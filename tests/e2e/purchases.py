"""Purchases from a gateway process, whole and interrupted."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from tests.e2e.buyer import Buyer, balance
from tests.e2e.gateway_process import GatewayProcess

OPENING_BALANCE: Final = 1_000_000_000
LITE_HOUR: Final = 100_000
"""Atomic units of play money."""


def until(holds: Callable[[], bool], within_s: float = 40.0) -> None:
    """Wait until it holds. Raises AssertionError."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def until_it_sells(gateway: GatewayProcess, within_s: float = 40.0) -> None:
    """Wait until where nodes run has answered. Raises AssertionError."""

    def sells() -> bool:
        with urllib.request.urlopen(f"{gateway.url}/nodes", timeout=10) as answer:
            return not json.load(answer).get("cannot_sell")

    until(sells, within_s)


def buy(gateway: GatewayProcess, buyer: Buyer, timeout: float = 60.0) -> dict[str, Any]:
    """Buy a session; returns it once it is active."""
    until_it_sells(gateway)
    buyer.quote(gateway.url)
    session_id = str(buyer.pay(gateway.url).body["session_id"])
    return buyer.wait(gateway.url, session_id, "active", timeout=timeout)


def stop(gateway: GatewayProcess, buyer: Buyer, session_id: str) -> None:
    """Stop the session and wait until it is stopped."""
    answer = buyer.stop(gateway.url, session_id)
    assert answer.status == 200, answer
    buyer.wait(gateway.url, session_id, "stopped", timeout=60.0)


def buy_killed_at(gateway: GatewayProcess, buyer: Buyer, point: str, timeout: float = 60.0) -> dict[str, Any]:
    """Buy and stop a session of a gateway that dies at that point, start it again, and repeat the purchase.

    Returns the one session there is, active or stopped. The process is left to the caller.
    """
    gateway.spawn(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
    bought = ""
    try:
        if gateway.wait_ready():
            until_it_sells(gateway)
            buyer.quote(gateway.url)
            bought = str(buyer.pay(gateway.url).body["session_id"])
            buyer.wait(gateway.url, bought, "active")
            buyer.stop(gateway.url, bought)
            buyer.wait(gateway.url, bought, "stopped")
    except (OSError, AssertionError, KeyError, ValueError):
        pass
    status = gateway.wait()
    assert status == -9, f"{point} was not passed: {status}\n{gateway.log()[-4_000:]}"
    gateway.start()
    if not buyer.payment:
        until_it_sells(gateway)
        buyer.quote(gateway.url)
    session_id = str(buyer.pay(gateway.url).body["session_id"])
    assert bought in ("", session_id)
    return buyer.wait(gateway.url, session_id, "active", "stopped", timeout=timeout)


def assert_paid_once(gateway: GatewayProcess, buyer: Buyer) -> None:
    """One hour was paid for, and nothing more."""
    assert balance(gateway.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE - LITE_HOUR
