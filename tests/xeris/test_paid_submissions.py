"""Submissions that cost money, bought with play money from a real receiver with its own facilitator."""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.ledger import open_inline
from engram.payments import prepaid
from engram.payments.play_wallet import PlayWallet
from engram.relay import NodeMemory, PayloadSigner, memory_payload
from engram.relay.model import Answered, GapPayload
from engram.relay.rules import Blame, blame
from engram.xeris import submissions
from tests.xeris.xeris_process import XerisProcess

GATEWAY, OTHER = (Keypair.from_seed(bytes([number]) * 32) for number in (21, 22))


def signed(number: int, keypair: Keypair = GATEWAY) -> bytes:
    nodes = {GATEWAY.ss58: NodeMemory(vectors=number)}
    payload = memory_payload(nodes, netuid=450, block=number, source="nodes0", round_ts=time.time())
    return PayloadSigner.of(keypair).sign(msgspec.json.encode(payload)).body


def gap(number: int) -> bytes:
    marker = GapPayload(
        netuid=450,
        block=number,
        round_ts=time.time(),
        output_hash="ab" * 32,
        nonce=f"{number}:x:1:gap",
        parked="memory",
        reason="",
    )
    return PayloadSigner.of(GATEWAY).sign(msgspec.json.encode(marker)).body


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[XerisProcess]:
    process = XerisProcess(tmp_path / "xeris", GATEWAY.ss58, "submission_usd = 0.01\nsubmissions_a_payment = 2")
    yield process.start()
    process.kill()


class Shop:
    """A client of a receiver that sells submissions."""

    def __init__(self, receiver: XerisProcess, http: HttpClient) -> None:
        self._receiver, self._http = receiver, http

    async def call(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        lines, url = {"content-type": "application/json", **headers}, self._receiver.url + path
        found = await self._http.request(
            method, url, content=body, headers=lines, total_s=30.0, read_s=30.0, connect_s=30.0
        )
        return found.status, found.headers, json.loads(found.content or b"null")

    async def left(self) -> int:
        return int((await self.call("GET", f"/credits/{GATEWAY.ss58}"))[2]["left"])

    async def answer(self, account: Keypair, header: str = "") -> tuple[int, dict[str, str], Any]:
        body = json.dumps({"hotkey": account.ss58}).encode()
        return await self.call("POST", "/credits", body, **({"payment-signature": header} if header else {}))

    async def payment(self, account: Keypair) -> str:
        """A payment by what the receiver asks for."""
        _, headers, _ = await self.answer(account)
        wallet = PlayWallet(secrets.token_bytes(32))
        return wallet.pay(headers["payment-required"], time.time(), secrets.token_bytes(32))

    async def buy(self, account: Keypair, header: str) -> dict[str, Any]:
        status, _, bought = await self.answer(account, header)
        assert status == 200, bought
        return dict(bought)

    async def try_to_buy(self, account: Keypair, header: str) -> None:
        """Present a payment to a receiver that may die of it."""
        with contextlib.suppress(HttpError):
            await self.answer(account, header)


@contextlib.asynccontextmanager
async def buying(receiver: XerisProcess) -> AsyncIterator[Shop]:
    http = HttpClient()
    yield Shop(receiver, http)
    await http.aclose()


async def test_submissions_are_bought_and_used_one_for_each_accepted_payload(receiver: XerisProcess) -> None:
    async with buying(receiver) as shop:
        await _buy_and_use(receiver, shop)


async def _buy_and_use(receiver: XerisProcess, shop: Shop) -> None:
    call, left, buy = shop.call, shop.left, shop.answer
    # Before anything is verified: also for a payload whose signature does not hold.
    first = signed(1)
    for body in (first, first.replace(b'"vectors":1', b'"vectors":2')):
        status, headers, refused = await call("POST", "/payloads", body)
        assert (status, refused["code"]) == (402, "payment_required")
        assert headers["payment-required"]
    assert blame(Answered(402)) is Blame.RECEIVER, "an emitter holds the receiver back and parks nothing"

    assert (await buy(GATEWAY))[0] == 402
    payment = await shop.payment(GATEWAY)
    status, _, bought = await buy(GATEWAY, payment)
    for _ in range(50):
        if bought["status"] == "settled":
            break
        status, _, bought = await buy(GATEWAY, payment)
    assert (status, bought["status"], bought["left"]) == (200, "settled", 2)
    status, _, again = await buy(GATEWAY, payment)
    assert (status, again["payment_id"], again["left"]) == (200, bought["payment_id"], 2), "a payment counts once"
    assert (await buy(OTHER, payment))[0] == 409

    receiver.kill()
    receiver.start()
    assert await left() == 2

    status, _, taken = await call("POST", "/payloads", first)
    assert (status, await left()) == (200, 1)
    assert (await call("POST", "/payloads", first))[2] == taken
    for body, code in ((b"no JSON", 422), (signed(2, OTHER), 402), (first.replace(b":1,", b":3,"), 422)):
        assert (await call("POST", "/payloads", body))[0] == code
    assert (await call("POST", "/payloads", gap(5)))[0] == 200
    assert await left() == 1, "repeats, refusals and gap markers use nothing"
    assert (await call("POST", "/payloads", signed(3)))[0] == 200
    assert (await call("POST", "/payloads", signed(4)))[0] == 402
    for kind in ("gap", "anchor"):
        body = json.dumps({"kind": kind, "validator_hotkey": OTHER.ss58}).encode()
        assert (await call("POST", "/payloads", body))[0] == 422, "judged, not asked to pay"
    assert (await call("POST", "/payloads", first))[2] == taken, "what was accepted before is answered as before"

    receiver.kill()
    ledger = open_inline(receiver.ledger)
    assert ledger.write_now(lambda c: prepaid.left(c, GATEWAY.public_key)) == 0
    lines = ledger.write_now(lambda c: submissions.newest(c, 50))
    verdicts = [line.verdict for line in reversed(lines)]
    assert verdicts == [
        "payment_required", "payment_required", "accepted", "repeated", "schema", "payment_required", verdicts[6],
        "accepted", "accepted", "payment_required", "schema", "schema", "repeated",
    ]  # fmt: skip
    assert verdicts[6] in ("output_hash", "signature", "nonce")
    assert {line.signer for line in lines if line.verdict == "accepted"} == {GATEWAY.ss58}
    ledger.close()
