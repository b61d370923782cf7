"""kill -9 of the gateway, again and again, while buyers pay and stop: the chain says what each of them lost.

Each start is armed to die at one point (a commit, or right before or after a call of the facilitator), so that what
the start before left undone is taken up by a process that dies, too. At the end every buyer has had a node, has
the money back or was told that nothing was taken, and nothing moved twice.
"""

import contextlib
import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from engram.durable.driver import sqlite3
from engram.ledger import LEDGER_FILE
from engram.payments import rules
from tests.evm import node
from tests.evm.shop import RECIPIENT, REFUNDER, Shop, wait_until
from tests.evm.wallet import FUNDS, EvmBuyer
from tests.sampling import NIGHTLY

pytestmark = [node.needs_node, pytest.mark.xdist_group("evm")]
PRICE = 100_000
CALLS = [f"{call}:{moment}" for call in ("verify", "settle", "refund") for moment in ("before", "after")]
COMMITS = [f"{moment}:{number}" for number in range(1, 18) for moment in ("begin", "commit")]
POINTS = CALLS + COMMITS
ENDED = ("stopped", "expired", "failed")
PATIENCE_S = rules.RETRY_MAX_S * 2
"""What was tried in vain in life after life is tried again after this long at most, and once more when it failed."""
KILLS = 10 if NIGHTLY else 3
TURNS = 10 if NIGHTLY else 1
"""Of two plans each: 6 kills in all by day, 200 at night. Each turn draws onwards from other points."""


@dataclass(frozen=True)
class Kill:
    """One life of the gateway: where it dies, how many buyers pay at once, whether they stop what they got."""

    point: str
    buyers: int
    stopping: bool


drawn = st.tuples(st.integers(0, len(POINTS) - 1), st.integers(1, 2), st.booleans())


# A failing plan is told as it was drawn: making it smaller would take hours of kills.
@pytest.mark.parametrize("turn", range(TURNS))
@settings(max_examples=2, phases=[Phase.explicit, Phase.generate])
@given(lives=st.lists(drawn, min_size=KILLS, max_size=KILLS))
def test_a_gateway_killed_again_and_again_serves_or_pays_back_what_it_took(
    small: Shop, turn: int, lives: list[tuple[int, int, bool]]
) -> None:
    plan = [
        Kill(POINTS[(turn * KILLS + place + ahead) % len(POINTS)], buyers, stopping)
        for place, (ahead, buyers, stopping) in enumerate(lives)
    ]
    lives_and_deaths(small, plan)


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(len(POINTS) // KILLS))
def test_no_point_is_left_out_of_dying(small: Shop, first: int) -> None:
    lives_and_deaths(small, [Kill(point, 1, stopping=True) for point in POINTS[first :: len(POINTS) // KILLS]])


def lives_and_deaths(shop: Shop, plan: Sequence[Kill]) -> None:
    """Let the gateway die by plan, then hold every buyer's balance against what they had of it."""
    gateway, crowds = shop.gateway, [[EvmBuyer(shop.chain) for _ in range(kill.buyers)] for kill in plan]
    wait_until(lambda: refunds_left(shop), 0, PATIENCE_S)  # of other tests' buyers
    taken, given_back = shop.taken(), shop.chain.balance(REFUNDER)
    gateway.terminate()
    for kill, crowd in zip(plan, crowds, strict=True):
        gateway.spawn(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=kill.point)
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert gateway.wait_ready() or gateway.wait() == -9
            for earlier in crowds[: crowds.index(crowd)]:
                stop_all(shop, earlier)
            with ThreadPoolExecutor(len(crowd)) as paying:
                list(paying.map(lambda buyer: buy(shop, buyer), crowd))
            if kill.stopping:
                stop_all(shop, crowd)
            shop.chain.mine(2)
        gateway.kill()
        shop.chain.mine(2)

    gateway.start()
    everybody = [buyer for crowd in crowds for buyer in crowd]
    with ThreadPoolExecutor(8) as finishing:
        ends = list(finishing.map(lambda buyer: finish(shop, buyer), everybody))
    assert shop.taken() - taken == PRICE * (ends.count("served") + ends.count("paid back"))
    assert given_back - shop.chain.balance(REFUNDER) == PRICE * ends.count("paid back")


def buy(shop: Shop, buyer: EvmBuyer) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        buyer.quote(shop.url)
        buyer.pay(shop.url)


def finish(shop: Shop, buyer: EvmBuyer) -> Literal["served", "paid back", "never paid"]:
    """Let them finish their purchase and stop it; returns how it ended, with their balance held against that."""
    if not buyer.payment:
        buyer.quote(shop.url)
    answer = buyer.pay(shop.url)
    stopped_unpaid = answer.status == 409 and answer.body["code"] == "session_over"  # by a stop in an earlier life
    if not stopped_unpaid:
        assert answer.status == 202, answer
        stop_all(shop, [buyer])
        shop.chain.mine(2)
        payment_id = str(answer.body["payment_id"])
        wait_until(lambda: left_to_do(shop, buyer, payment_id), [], PATIENCE_S)
        stopped_unpaid = buyer.payment_of(shop.url, payment_id)["status"] == "rejected"
    if stopped_unpaid:
        assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == []
        assert buyer.balance == FUNDS
        return "never paid"
    (session,) = buyer.sessions(shop.url)
    served = was_served(shop, session["session_id"])
    assert shop.chain.transfers(buyer.evm.address, RECIPIENT) == [PRICE]
    assert shop.chain.transfers(REFUNDER, buyer.evm.address) == ([] if served else [PRICE])
    assert buyer.balance == (FUNDS - PRICE if served else FUNDS)
    return "served" if served else "paid back"


def stop_all(shop: Shop, buyers: list[EvmBuyer]) -> None:
    for buyer in buyers:
        for session in buyer.sessions(shop.url):
            buyer.stop(shop.url, session["session_id"])


def was_served(shop: Shop, session_id: str) -> bool:
    """Its node was active, by the gateway's own ledger."""
    return ask_ledger(shop, "SELECT active_at FROM sessions WHERE id = ?", session_id) is not None


def refunds_left(shop: Shop) -> object:
    """How many are owed and not confirmed yet, by the same; lets the chain go on."""
    shop.chain.tick()
    return ask_ledger(shop, "SELECT count(*) FROM refunds WHERE state != 'refunded'")


def ask_ledger(shop: Shop, query: str, *values: str) -> object:
    ledger = f"file:{shop.gateway.data_dir / LEDGER_FILE}?mode=ro"
    with contextlib.closing(sqlite3.connect(ledger, uri=True)) as connection:
        ((answer,),) = connection.execute(query, values)
        return answer


def left_to_do(shop: Shop, buyer: EvmBuyer, payment_id: str) -> list[str]:
    """What has not ended or is not paid back yet, in words: nothing when the purchase is over."""
    payment: dict[str, Any] = buyer.payment_of(shop.url, payment_id)
    if payment["status"] in ("refund_due", "refunding", "unknown"):
        shop.chain.tick()
    sessions = buyer.sessions(shop.url)
    left = [f"{each['session_id']} is {each['status']}" for each in sessions if each["status"] not in ENDED]
    settled = payment["status"] == "settled" and all(was_served(shop, each["session_id"]) for each in sessions)
    return left if settled or payment["status"] in ("refunded", "rejected") else [*left, f"payment: {payment}"]
