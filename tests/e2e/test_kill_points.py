"""kill -9 of the gateway at every ledger commit and around every effect of a purchase, and of the stop after it.

After the restart: the same payment gets the same session, money moved once, there is one node and no orphan, and a
stop that was asked for is not undone.
"""

import contextlib
import http.client
import subprocess
from pathlib import Path

import pytest

from tests.e2e.buyer import Answer, Buyer, balance
from tests.e2e.gateway_process import GatewayProcess
from tests.sampling import sample

COMMITS = 14
"""Commits of a purchase until `active` and of its stop, as ENGRAM_KILL_TRACE shows them."""
EFFECTS = ("verify", "settle", "spawn", "destroy")
POINTS = [
    *(f"{moment}:{number}" for number in range(1, COMMITS + 1) for moment in ("begin", "commit")),
    *(f"{effect}:{moment}" for effect in EFFECTS for moment in ("before", "after")),
    "spawn:unrecorded",
]
LAST = {f"{moment}:{number}" for number in (COMMITS - 1, COMMITS) for moment in ("begin", "commit")}
"""Not always reached: two of the commits may come in one group."""
OPENING_BALANCE = 1_000_000_000
LITE_HOUR = 100_000


@pytest.mark.parametrize("point", sample("kill points", POINTS, 4))
def test_a_gateway_killed_anywhere_finishes_the_purchase_after_its_restart(tmp_path: Path, point: str) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.spawn(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        seen, stop_answered = buy_and_stop_until_killed(gateway, buyer, point)
        assert gateway.wait() == -9, f"{point} was not passed"

        gateway.start()
        if not buyer.payment:
            buyer.quote(gateway.url)
        session_id = same_session_again(gateway, buyer, seen)
        if not stop_answered:
            ended_or_active = buyer.wait(gateway.url, session_id, "active", "stopped")
            if ended_or_active["status"] == "active":
                assert len(gateway.nodes()) == 1
                assert buyer.stop(gateway.url, session_id).status == 200
        buyer.wait(gateway.url, session_id, "stopped")

        assert [one["session_id"] for one in buyer.sessions(gateway.url)] == [session_id]
        assert balance(gateway.ready["facilitator_url"], buyer.wallet) == OPENING_BALANCE - LITE_HOUR
        assert gateway.nodes() == []
        assert gateway.terminate() == 0


def test_no_commit_and_no_effect_of_a_purchase_is_left_out(tmp_path: Path) -> None:
    buyer, trace = Buyer(), tmp_path / "trace"
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.spawn(ENGRAM_TEST_KILL="1", ENGRAM_KILL_TRACE=str(trace), ENGRAM_KILL_AT="never")
        assert gateway.wait_ready()
        buyer.quote(gateway.url)
        session_id = str(buyer.pay(gateway.url).body["session_id"])
        buyer.wait(gateway.url, session_id, "active")
        assert buyer.stop(gateway.url, session_id).status == 200
        buyer.wait(gateway.url, session_id, "stopped")
        passed = trace.read_text().split()
        assert gateway.terminate() == 0
    assert sorted(set(passed) - set(POINTS)) == []
    assert set(POINTS) - set(passed) <= LAST


def buy_and_stop_until_killed(gateway: GatewayProcess, buyer: Buyer, point: str) -> tuple[str, bool]:
    """Returns the session's id ("" when it was never told) and whether its stop was acknowledged."""
    seen, stop_answered = "", False
    with contextlib.suppress(OSError, http.client.HTTPException):
        if not gateway.wait_ready():
            return seen, stop_answered
        buyer.quote(gateway.url)
        paid = buyer.pay(gateway.url)
        assert paid.status == 202, paid
        seen = str(paid.body["session_id"])
        buyer.wait(gateway.url, seen, "active")
        stop_answered = buyer.stop(gateway.url, seen).status == 200
        buyer.wait(gateway.url, seen, "stopped")
        try:  # Everything was passed but the point: what is left are the sweeps that follow.
            gateway.wait(5)
        except subprocess.TimeoutExpired:
            if point not in LAST:
                raise
            gateway.kill()
    return seen, stop_answered


def same_session_again(gateway: GatewayProcess, buyer: Buyer, seen: str) -> str:
    """Send the very same payment until it is known what became of it; it must name the session that was seen."""
    answers: list[Answer] = [buyer.pay(gateway.url) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 202], answers
    named = {answer.body["session_id"] for answer in answers}
    assert len(named) == 1
    session_id = str(named.pop())
    assert seen in ("", session_id)
    return session_id
