"""kill -9 of the gateway, again and again, while buyers pay and stop: the chain says what each of them lost.

Each start is armed to die at one point (a commit, or right before or after a call of the facilitator), so that what
the start before left undone is taken up by a process that dies, too. At the end every buyer has either had a node or
has the money back, and nothing moved twice.
"""

import contextlib
import http.client
import sqlite3
from typing import Any

import pytest

from engram.ledger import LEDGER_FILE
from tests.evm import node
from tests.evm.shop import RECIPIENT, REFUNDER, Shop, wait_until
from tests.evm.wallet import FUNDS, EvmBuyer
from tests.sampling import NIGHTLY, sample

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]
PRICE = 100_000
CALLS = [f"{call}:{moment}" for call in ("verify", "settle", "refund") for moment in ("before", "after")]
COMMITS = [f"{moment}:{number}" for number in range(1, 18) for moment in ("begin", "commit")]
POINTS = CALLS + COMMITS
KILLS = 10
"""Of one test: 20 in all by day, 200 at night."""
ROUNDS = 5
"""At night every point is passed so often, in other company each time."""


def companies() -> list[tuple[str, ...]]:
    if not NIGHTLY:
        points = [*CALLS, *sample("kills at commits", COMMITS, 2 * KILLS - len(CALLS))]
        return [tuple(points[first::2]) for first in range(2)]
    stride = len(POINTS) // KILLS
    turned = [POINTS[turn:] + POINTS[:turn] for turn in range(ROUNDS)]
    return [tuple(points[first::stride]) for points in turned for first in range(stride)]


@pytest.mark.parametrize("points", companies(), ids="+".join)
def test_a_gateway_killed_again_and_again_serves_or_pays_back_what_it_took(
    small: Shop, points: tuple[str, ...]
) -> None:
    gateway, buyers = small.gateway, [EvmBuyer(small.chain) for _ in points]
    gateway.terminate()
    for point, buyer in zip(points, buyers, strict=True):
        gateway.spawn(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert gateway.wait_ready() or gateway.wait() == -9
            stop_all(small, buyers)
            buyer.quote(small.url)
            buyer.pay(small.url)
            stop_all(small, [buyer])
            small.chain.mine(2)
        gateway.kill()
        small.chain.mine(2)

    gateway.start()
    for point, buyer in zip(points, buyers, strict=True):
        if not buyer.payment:
            buyer.quote(small.url)
        answer = buyer.pay(small.url)
        assert (point, answer.status) == (point, 202), answer
        stop_all(small, [buyer])
        small.chain.mine(2)
        payment_id = str(answer.body["payment_id"])
        wait_until(lambda: is_over(small, buyer, payment_id), True, 40.0)  # noqa: B023 - asked right here
        (session,) = buyer.sessions(small.url)
        served = was_served(small, session["session_id"])
        assert small.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
        assert small.chain.transfers(REFUNDER, buyer.evm.address) == ([] if served else [PRICE])
        assert buyer.balance == (FUNDS - PRICE if served else FUNDS)


def stop_all(shop: Shop, buyers: list[EvmBuyer]) -> None:
    for buyer in buyers:
        for session in buyer.sessions(shop.url):
            buyer.stop(shop.url, session["session_id"])


def was_served(shop: Shop, session_id: str) -> bool:
    """Its node was active, by the gateway's own ledger."""
    ledger = f"file:{shop.gateway.data_dir / LEDGER_FILE}?mode=ro"
    with contextlib.closing(sqlite3.connect(ledger, uri=True)) as connection:
        ((active_at,),) = connection.execute("SELECT active_at FROM sessions WHERE id = ?", (session_id,))
        return active_at is not None


def is_over(shop: Shop, buyer: EvmBuyer, payment_id: str) -> bool:
    """The session has ended, and what is owed of its payment is paid."""
    payment: dict[str, Any] = buyer.payment_of(shop.url, payment_id)
    sessions = buyer.sessions(shop.url)
    ended = [session["status"] in ("stopped", "expired", "failed") for session in sessions]
    paid = payment["status"] == "refunded" or (
        payment["status"] == "settled" and all(was_served(shop, session["session_id"]) for session in sessions)
    )
    if payment["status"] in ("refund_due", "refunding", "unknown"):
        shop.chain.mine()
    return all(ended) and paid
