"""Sales follow the facilitator: left alone after failures, offered only what it supports."""

from collections.abc import Callable
from typing import cast

import pytest
import trio

from actors import Context
from config.pricing import MOST_UNITS
from engram.clock import TrioClock
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.payments.breaker import LEFT_ALONE, Breaker, BreakerState, GuardedFacilitator
from engram.payments.networks import BASE, PLAY
from engram.payments.outcomes import NotSent, Settled
from engram.payments.outcomes import Unavailable as NoVerdict
from engram.payments.purchase_answer import CannotNow, NoRoom
from engram.payments.supported import FacilitatorStatus, Kind, Supported, read_supported
from engram.payments.supported_poller import SupportedPoller
from tests.facilitator.running import facilitator_url
from tests.fakes.facilitator import FakeFacilitator, Fault
from tests.payments import builders
from tests.payments.shop import open_shop


def guarded(failures: int = 3) -> tuple[FakeFacilitator, Breaker, GuardedFacilitator]:
    clock = TrioClock(builders.NOW)
    breaker = Breaker(clock, failures, 10.0)
    fake = FakeFacilitator(clock)
    return fake, breaker, GuardedFacilitator(fake, breaker)


@pytest.mark.parametrize("fault", ["not_sent", "lost_before"])
async def test_after_failures_in_a_row_nothing_is_sent_for_a_while_and_then_one_request_tries(
    autojump_clock: object, fault: Fault
) -> None:
    fake, breaker, facilitator = guarded()
    fake.settle_faults.extend([fault] * 4)
    payment = builders.payment()
    for _ in range(3):
        await facilitator.settle(payment)
    assert await facilitator.settle(payment) == NotSent(LEFT_ALONE)
    assert await facilitator.verify(payment) == NoVerdict(LEFT_ALONE)
    assert fake.settlements == 3
    await trio.sleep(10)
    await facilitator.settle(payment)  # the try fails: left alone for as long again
    assert breaker.retry_after_s() == pytest.approx(10)
    await trio.sleep(10)
    assert isinstance(await facilitator.settle(payment), Settled)
    assert breaker.state is BreakerState.CLOSED


async def test_only_one_request_tries_at_a_time(autojump_clock: object) -> None:
    fake, breaker, facilitator = guarded(1)
    fake.settle_faults.extend(["not_sent", "slow"])
    payment = builders.payment()
    await facilitator.settle(payment)
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(facilitator.settle, payment)
        await trio.sleep(1)
        assert await facilitator.settle(payment) == NotSent(LEFT_ALONE)
    assert breaker.state is BreakerState.CLOSED


async def test_refusals_are_answers_and_never_open_the_breaker(autojump_clock: object) -> None:
    fake, breaker, facilitator = guarded(1)
    fake.settle_faults.extend(["pending_after", "no_proof_after"])
    for _ in range(2):
        await facilitator.settle(builders.payment())
    late = builders.payment("late")
    await trio.sleep(500)
    await facilitator.settle(late)
    assert breaker.state is BreakerState.CLOSED


async def test_a_buyer_is_told_to_come_back_and_never_to_sign_again(autojump_clock: object) -> None:
    fake, breaker, facilitator = guarded(1)
    breaker.failed()
    async with open_shop(facilitator=fake, through=facilitator) as shop:
        answer = await shop.buy(shop.purchase())
        assert isinstance(answer, CannotNow)
        assert fake.settlements == fake.verifications == 0


def standing(supported: Supported | None) -> FacilitatorStatus:
    found = FacilitatorStatus(Breaker(TrioClock(builders.NOW), 1, 10.0))
    found.supported = supported
    return found


def code(refused: NoRoom | None) -> str | None:
    return None if refused is None else refused.code


async def test_what_is_offered_follows_what_is_supported(autojump_clock: object) -> None:
    assert code(standing(None).refusal()) == "facilitator_unavailable"
    assert code(standing(Supported(None)).refusal()) == "facilitator_unsupported"
    some = standing(Supported(Kind(minimum=1_514)))
    assert [code(some.refusal(amount)) for amount in (None, 1_513, 1_514)] == [None, "below_minimum", None]
    some.breaker.failed()
    refused = some.refusal()
    assert refused is not None
    assert (refused.code, refused.retry_after_s) == ("facilitator_unavailable", 11)


def kind(**fields: object) -> dict[str, object]:
    return {"x402Version": 2, "scheme": "exact", "network": "eip155:8453"} | fields


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"kinds": [kind()]}, Supported(Kind())),
        ({"kinds": [kind(network="base")]}, Supported(Kind())),
        ({"kinds": [kind(extra={"minPaymentAmountAtomic": "1514"})]}, Supported(Kind(1_514))),
        ({"kinds": [kind(extra={"minPaymentAmountAtomic": 1514})]}, Supported(Kind(1_514))),
        ({"kinds": [kind(extra={"minPaymentAmountAtomic": "-1", "assetTransferMethod": "permit2"})]},
         Supported(Kind(0, "permit2"))),
        ({"kinds": [kind(extra={"minPaymentAmountAtomic": True})]}, Supported(Kind())),
        ({"kinds": [kind(extra={"minPaymentAmountAtomic": -1})]}, Supported(Kind())),
        ({"kinds": [kind(extra={"minPaymentAmountAtomic": 10**4000})]}, Supported(Kind(MOST_UNITS + 1))),
        ({"kinds": [kind(extra={"minPaymentAmountAtomic": "9" * 4000})]}, Supported(Kind(MOST_UNITS + 1))),
        ({"kinds": [kind(extra={"minPaymentAmountAtomic": "9" * 30})]}, Supported(Kind(MOST_UNITS + 1))),
        ({"kinds": [kind(extra=7), "x", {}]}, Supported(Kind())),
        ({"kinds": [kind(x402Version=1)]}, Supported(None)),
        ({"kinds": [kind(scheme="upto"), kind(network="eip155:1")]}, Supported(None)),
        ({"kinds": []}, Supported(None)),
        ({"kinds": {}}, None),
        ([], None),
        (None, None),
    ],
)  # fmt: skip
def test_supported_is_read_for_our_network_only(body: object, found: Supported | None) -> None:
    assert read_supported(body, BASE) == found


class Ready:
    def __init__(self) -> None:
        self.event = trio.Event()

    def ready(self, info: object = None) -> None:
        self.event.set()


async def poll(url: Callable[[], str], found: FacilitatorStatus, then: Callable[[], bool]) -> None:
    http = HttpClient()
    poller = SupportedPoller(http, url, PLAY, found, 0.05)
    ready = Ready()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run, cast(Context, ready))
            await ready.event.wait()
            while not then():  # noqa: ASYNC110 - another task's fact
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    await http.aclose()


async def test_the_play_facilitator_says_what_it_supports() -> None:
    found = standing(None)
    ledger = open_inline()
    async with facilitator_url(ledger) as url:
        await poll(lambda: url, found, lambda: found.supported is not None)
    assert found.supported == Supported(Kind(0, "eip3009"))
    ledger.close()


async def test_what_was_read_is_kept_while_the_facilitator_is_away() -> None:
    found = standing(Supported(Kind(7)))
    tried = []

    def url() -> str:
        tried.append(1)
        return "http://127.0.0.1:9"

    await poll(url, found, lambda: len(tried) >= 2)
    assert found.supported == Supported(Kind(7))


def test_a_minimum_beyond_all_prices_is_said_in_words(autojump_clock: object) -> None:
    standing = FacilitatorStatus(Breaker(TrioClock(builders.NOW), 3, 10.0))
    standing.supported = read_supported({"kinds": [kind(extra={"minPaymentAmountAtomic": 10**4000})]}, BASE)
    refused = standing.refusal(100_000)
    assert refused is not None
    assert refused.code == "below_minimum"
