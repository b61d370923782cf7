"""One contract for whoever settles: the double in memory, and the local facilitator over HTTP."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import msgspec
import pytest
import trio

from engram.clock import SystemClock
from engram.http.client import HttpClient
from engram.ledger import open_inline
from engram.payments import x402
from engram.payments.eip712 import sign
from engram.payments.facilitator import Facilitator, HttpFacilitator
from engram.payments.model import Payment
from engram.payments.networks import PLAY
from engram.payments.outcomes import Invalid, NotSent, Rejected, Settled, Unavailable, Unknown, Valid
from tests.facilitator.running import facilitator_url
from tests.fakes.facilitator import FakeFacilitator
from tests.payments import builders

Kind = Literal["double", "local"]
both = pytest.mark.parametrize("kind", ["double", "local"])
EXPIRED = "invalid_exact_evm_payload_authorization_valid_before"
NO_FUNDS = "invalid_exact_evm_insufficient_balance"


@asynccontextmanager
async def open_facilitator(kind: Kind) -> AsyncIterator[Facilitator]:
    """A facilitator with which every payer owns one dollar."""
    if kind == "double":
        yield FakeFacilitator(SystemClock(), balance=1_000_000)
        return
    ledger = open_inline()
    async with facilitator_url(ledger, 1.0) as url:
        http = HttpClient()
        yield HttpFacilitator(http, lambda: url, verify_timeout_s=5, settle_timeout_s=5)
        await http.aclose()
    ledger.close()


def paying(
    text: str = "a nonce", amount: int = 100_000, *, left_s: float = 100, signed_amount: int | None = None
) -> Payment:
    wanted = builders.requirements(amount)
    signed = builders.authorization(
        text, value=amount if signed_amount is None else signed_amount, valid_before=int(time.time() + left_s)
    )
    document = x402.payload_json(signed, sign(signed, PLAY, builders.KEY), wanted)
    return builders.payment(
        text,
        amount=amount,
        valid_before=signed.valid_before,
        payload=msgspec.json.encode(document),
        requirements=msgspec.json.encode(x402.requirements_json(wanted)),
    )


@both
async def test_a_good_payment_verifies_and_settles(kind: Kind) -> None:
    async with open_facilitator(kind) as facilitator:
        assert await facilitator.verify(paying()) == Valid()
        assert isinstance(await facilitator.settle(paying()), Settled)


@both
async def test_settling_again_tells_the_same_transaction(kind: Kind) -> None:
    async with open_facilitator(kind) as facilitator:
        payment = paying()
        assert await facilitator.settle(payment) == await facilitator.settle(payment)
        assert isinstance(await facilitator.verify(payment), Invalid)


@both
async def test_racing_settlements_of_one_payment_agree(kind: Kind) -> None:
    async with open_facilitator(kind) as facilitator:
        payment, outcomes = paying(), []

        async def settle() -> None:
            outcomes.append(await facilitator.settle(payment))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(settle)
        assert len(set(map(msgspec.json.encode, outcomes))) == 1
        assert await facilitator.settle(paying("rest", 900_000)) != Rejected(NO_FUNDS)


@both
async def test_a_payer_without_funds_is_refused_before_anything_moves(kind: Kind) -> None:
    async with open_facilitator(kind) as facilitator:
        await facilitator.settle(paying("most", 900_000))
        assert await facilitator.verify(paying("more", 200_000)) == Invalid(NO_FUNDS)
        assert await facilitator.settle(paying("more", 200_000)) == Rejected(NO_FUNDS)


@both
async def test_an_expired_authorization_is_refused(kind: Kind) -> None:
    async with open_facilitator(kind) as facilitator:
        assert await facilitator.verify(paying(left_s=-1)) == Invalid(EXPIRED)
        assert await facilitator.settle(paying(left_s=-1)) == Rejected(EXPIRED)


@both
async def test_another_amount_than_required_is_refused(kind: Kind) -> None:
    async with open_facilitator(kind) as facilitator:
        reason = "invalid_exact_evm_payload_authorization_value_mismatch"
        assert await facilitator.verify(paying(signed_amount=1)) == Invalid(reason)
        assert await facilitator.settle(paying(signed_amount=1)) == Rejected(reason)


@both
async def test_a_used_nonce_under_other_words_is_never_a_refusal_before_broadcast(kind: Kind) -> None:
    async with open_facilitator(kind) as facilitator:
        await facilitator.settle(paying())
        assert isinstance(await facilitator.settle(paying(amount=200_000)), Unknown)


# What only a wire can do.


async def listening(nursery: trio.Nursery, answer: bytes | None) -> str:
    """A server that reads a request and says `answer` (None: nothing, for ever); its base URL."""

    async def converse(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        if answer is None:
            await trio.sleep_forever()
        else:
            with suppress(trio.BrokenResourceError):  # a client leaves an answer that declares too much
                await stream.send_all(answer)

    listeners = await nursery.start(trio.serve_tcp, converse, 0)
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"


def wired(url: str) -> HttpFacilitator:
    return HttpFacilitator(HttpClient(), lambda: url, verify_timeout_s=0.3, settle_timeout_s=0.3)


async def test_a_refused_connection_is_not_sent(unused_port: int) -> None:
    facilitator = wired(f"http://127.0.0.1:{unused_port}")
    assert isinstance(await facilitator.settle(paying()), NotSent)
    assert isinstance(await facilitator.verify(paying()), Unavailable)


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status.encode(), len(body), body)


SUCCESS = msgspec.json.encode({"success": True, "transaction": "0x" + "ab" * 32, "network": PLAY.caip2})


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http("200 OK", SUCCESS), Settled("0x" + "ab" * 32)),
        (http("500 Internal Server Error", b"oops"), Unknown("http_500")),
        (http("504 Gateway Timeout", SUCCESS), Unknown("http_504")),
        (http("200 OK", b"<html>"), Unknown("http_200")),
        (http("200 OK", b'{"success":true,"success":true}'), Unknown("http_200")),
        (http("302 Found", b""), Unknown("http_302")),
        (http("200 OK", b" " * 100_000 + SUCCESS), Unknown("TooLarge")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", Unknown("Interrupted")),
        (b"garbage\r\n\r\n", Unknown("Interrupted")),
        (None, Unknown("Interrupted")),
    ],
)
async def test_what_left_and_was_not_clearly_answered_is_unknown(
    nursery: trio.Nursery, answer: bytes | None, outcome: object
) -> None:
    facilitator = wired(await listening(nursery, answer))
    assert await facilitator.settle(paying()) == outcome
    if outcome != Settled("0x" + "ab" * 32):
        assert isinstance(await facilitator.verify(paying()), Unavailable)


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])
