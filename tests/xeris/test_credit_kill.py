"""kill -9 of a receiver that is paid: what was bought is what was used and what is left, at every commit."""

import signal
import time
from pathlib import Path

import pytest
import trio

from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.ledger import open_inline
from engram.payments import prepaid
from engram.xeris import records
from engram.xeris.receiver import XerisReceiver
from tests import forked
from tests.sampling import sample
from tests.xeris.test_paid_submissions import GATEWAY, buying, signed
from tests.xeris.xeris_process import XerisProcess

RECEIVER = Keypair.from_seed(bytes([9]) * 32)
BOUGHT = 5
SUBMITTED = 3
# Commits of a first run: 1 the submissions are there, then one for each payload.
POINTS = [f"{moment}:{number}" for number in range(1, 2 + SUBMITTED) for moment in ("begin", "commit")]


async def take(path: Path, bodies: list[bytes]) -> None:
    """A start of the receiver, to which an emitter sends everything again."""
    ledger, clock = open_inline(path), SystemClock()
    if ledger.write_now(lambda c: prepaid.left(c, GATEWAY.public_key) + records.count(c)) == 0:
        ledger.write_now(lambda c: prepaid.add(c, GATEWAY.public_key, BOUGHT, clock.now()))
    receiver = XerisReceiver(
        ledger,
        RECEIVER,
        clock,
        gateways=frozenset({GATEWAY.public_key}),
        netuids=(450,),
        quorum=1,
        keep_s=86_400.0,
        use_paid=prepaid.use,
    )
    for body in bodies:
        await receiver.take(body)
    ledger.close()


@pytest.mark.parametrize("point", sample("credit kills", POINTS, 2))
async def test_each_payload_uses_one_submission_whenever_the_receiver_is_killed(point: str, tmp_path: Path) -> None:
    path, bodies = tmp_path / "ledger", [signed(number) for number in range(1, 1 + SUBMITTED)]
    assert await forked.run(lambda: take(path, bodies), kill_at=point) == forked.KILLED
    assert await forked.run(lambda: take(path, bodies)) == 0
    ledger = open_inline(path)
    assert ledger.write_now(records.count) == SUBMITTED
    assert ledger.write_now(lambda c: prepaid.left(c, GATEWAY.public_key)) == BOUGHT - SUBMITTED
    ledger.close()


PURCHASE = [
    "verify:before",
    "verify:after",
    "settle:before",
    "settle:after",
    *[f"{moment}:{number}" for number in range(1, 12) for moment in ("begin", "commit")],
]
"""The receiver's own commits of its start are among these, so that some fall into the purchase."""


@pytest.mark.heavy
@pytest.mark.parametrize("point", sample("credit purchases", PURCHASE, 1))
async def test_a_payment_for_submissions_counts_once_whenever_the_receiver_is_killed(
    point: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    receiver = XerisProcess(tmp_path / "xeris", GATEWAY.ss58, "submission_usd = 0.01\nsubmissions_a_payment = 2")
    request.addfinalizer(receiver.kill)
    await trio.to_thread.run_sync(receiver.start)
    async with buying(receiver) as shop:
        payment = await shop.payment(GATEWAY)
        receiver.kill()
        await trio.to_thread.run_sync(receiver.spawn, point)
        with trio.move_on_after(15.0) as waited:
            await shop.try_to_buy(GATEWAY, payment)
            assert await receiver.ended() == -signal.SIGKILL
        assert not waited.cancelled_caught, f"the run never came to this point:\n{receiver.log()}"
        await trio.to_thread.run_sync(receiver.start)
        until = time.monotonic() + 60.0
        while (await shop.buy(GATEWAY, payment))["status"] != "settled":
            assert time.monotonic() < until, receiver.log()
            await trio.sleep(0.2)
        assert (await shop.buy(GATEWAY, payment))["left"] == 2, "presented three times, and paid for once"
    receiver.kill()
