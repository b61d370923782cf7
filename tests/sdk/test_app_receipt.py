"""Receipts of the app hold without the gateway, and none that was changed does."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from engram.cli.app import main
from engram.hotkeys import Keypair, answers
from engram.payments.play_wallet import PlayWallet
from engram.sdk.app_receipt import MAX_BYTES, ReceiptRefused, check
from tests.gateway.surface import GATEWAY, PHONE, running_gateway


@pytest.fixture
async def receipt() -> dict[str, Any]:
    """As the app writes it, of a session that was bought and stopped."""
    async with running_gateway() as gateway:
        body = {"tier": "lite", "duration_hours": 1.0}
        payment = gateway.payment(await gateway.ask("POST", "/sessions", body))
        bought = (await gateway.ask("POST", "/sessions", body, headers=payment)).json()
        kept = []
        for path in (f"/sessions/{bought['session_id']}", f"/payments/{bought['payment_id']}"):
            signed = gateway.auth("GET", path)
            answer = await gateway.client.get(gateway.url + path, headers=signed)
            kept.append(
                {
                    "path": path,
                    "status": answer.status_code,
                    "timestamp": signed["X-Timestamp"],
                    "body": answer.text,
                    "signature": answer.headers["X-Gateway-Sig"],
                }
            )
        purchase = {
            "path": "/sessions",
            "body": json.dumps(body),
            "network": "engram-play",
            "payment": payment["PAYMENT-SIGNATURE"],
            "payment_id": bought["payment_id"],
        }
        return {
            "engram_receipt": 1,
            "gateway": GATEWAY.ss58,
            "buyer": PHONE.ss58,
            "answers": kept,
            "purchases": [purchase],
        }


def written(receipt: dict[str, Any]) -> bytes:
    return json.dumps(receipt).encode()


async def test_a_receipt_names_what_was_paid_and_who_signed_it(receipt: dict[str, Any]) -> None:
    found = check(written(receipt), GATEWAY.public_key)
    [payment] = found.payments
    assert (found.gateway, found.buyer) == (GATEWAY.ss58, PHONE.ss58)
    assert (payment.status, payment.amount_usd, payment.refunded_usd) == ("settled", 0.1, 0.0)
    assert payment.payer == PlayWallet(hashlib.sha256(b"wallet").digest()).address_text
    assert payment.transaction is not None


async def test_a_receipt_without_the_buyers_part_names_no_payer(receipt: dict[str, Any]) -> None:
    assert check(written(receipt | {"purchases": []})).payments[0].payer is None


async def test_what_was_changed_is_named(receipt: dict[str, Any]) -> None:
    payment = receipt["answers"][1]
    dearer = payment | {"body": payment["body"].replace('"amount_usd":0.1', '"amount_usd":100.0')}
    with pytest.raises(ReceiptRefused, match=r"the answer of /payments/.* was changed"):
        check(written(receipt | {"answers": [dearer]}))
    with pytest.raises(ReceiptRefused, match="of another gateway"):
        check(written(receipt), PHONE.public_key)
    [purchase] = receipt["purchases"]
    for change, said in (
        ({"network": "solana"}, "not known here"),
        ({"payment": "e30="}, "cannot be read"),
        ({"network": "base"}, "was not signed by"),
    ):
        with pytest.raises(ReceiptRefused, match=said):
            check(written(receipt | {"purchases": [purchase | change]}))


async def test_a_gateway_that_names_another_amount_than_was_signed_is_found_out(receipt: dict[str, Any]) -> None:
    payment = receipt["answers"][1]
    body = payment["body"].replace('"amount_usd":0.1', '"amount_usd":0.2')
    signed = answers.sign_answer(GATEWAY, 200, payment["timestamp"], body.encode())
    lie = payment | {"body": body, "signature": signed[answers.SIGNATURE_HEADER]}
    with pytest.raises(ReceiptRefused, match=r"signed were 100000 units, the gateway names 0\.2"):
        check(written(receipt | {"answers": [lie]}))
    unread = answers.sign_answer(GATEWAY, 200, payment["timestamp"], b"{}")
    empty = payment | {"body": "{}", "signature": unread[answers.SIGNATURE_HEADER]}
    with pytest.raises(ReceiptRefused, match="cannot be read"):
        check(written(receipt | {"answers": [empty]}))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"engram_receipt": 2}', b"x" * (MAX_BYTES + 1)])
def test_what_is_no_receipt_is_refused(content: bytes) -> None:
    with pytest.raises(ReceiptRefused):
        check(content)


async def test_the_command_says_whether_a_receipt_holds(
    receipt: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipt.json"
    file.write_bytes(written(receipt))
    assert main(["receipt", str(file), "--gateway", GATEWAY.ss58]) == 0
    assert "settled" in capsys.readouterr().out
    other = Keypair.from_seed(hashlib.sha256(b"other").digest()).ss58
    assert main(["receipt", str(file), "--gateway", other]) == 1
    assert "of another gateway" in capsys.readouterr().err
    assert main(["receipt", str(tmp_path / "none.json")]) == 1
    assert main(["receipt", str(file), "--gateway", "5x"]) == 1
