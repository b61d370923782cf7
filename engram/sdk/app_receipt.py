"""Receipts of the app (phone/src/ui/receipts.ts), checked without the gateway: by its signatures, and the buyer's.

A receipt holds answers of the gateway as they came, each signed by its key, and the payments that the buyer signed. It
proves that this gateway said so, and that this address authorized exactly that amount; that the transaction is in a
block is for the chain to say.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engram import wire
from engram.api.gateway_model import PaymentAnswer
from engram.hotkeys import AuthError, HotkeyError, PublicKey, answers, parse_hotkey
from engram.payments import x402
from engram.payments.eip712 import recover
from engram.payments.errors import MalformedPayment, UnprovenReceipt
from engram.payments.keccak import checksummed
from engram.payments.networks import NETWORKS
from engram.sdk.errors import SdkError

MAX_BYTES: Final = 2_000_000


class ReceiptRefused(SdkError):
    """The receipt does not hold; the message says what of it."""


class _SignedAnswer(msgspec.Struct, frozen=True):
    path: str
    status: int
    timestamp: str
    body: str
    signature: str


class _Bought(msgspec.Struct, frozen=True):
    network: str
    payment: str
    payment_id: str


class _Receipt(msgspec.Struct, frozen=True):
    engram_receipt: Annotated[int, Meta(ge=1, le=1)]
    gateway: str
    buyer: str
    answers: Annotated[list[_SignedAnswer], Meta(min_length=1, max_length=100)]
    purchases: Annotated[list[_Bought], Meta(max_length=100)]


_RECEIPT: Final = wire.decoder(_Receipt)
_PAYMENT: Final = wire.decoder(PaymentAnswer)


class ReceiptPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that the gateway vouches for."""

    payment_id: str
    session_id: str
    status: str
    amount_usd: float
    refunded_usd: float
    network: str
    transaction: str | None
    payer: str | None
    """The address whose signature of this amount is in the receipt; None where that is not in it."""


class CheckedReceipt(msgspec.Struct, frozen=True):
    """What a receipt proves."""

    gateway: str
    buyer: str
    payments: list[ReceiptPayment]


def check(content: bytes, gateway: PublicKey | None = None) -> CheckedReceipt:
    """Return what a receipt proves. `gateway` is the key that must have signed; None takes the one that it names.

    Raises ReceiptRefused.
    """
    if len(content) > MAX_BYTES:
        raise ReceiptRefused(f"a receipt has at most {MAX_BYTES} bytes, this one {len(content)}")
    try:
        receipt = _RECEIPT.decode(content)
        named = parse_hotkey(receipt.gateway)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReceiptRefused(f"this is no receipt of the app: {error}") from None
    except HotkeyError as error:
        raise ReceiptRefused(f"the receipt names no gateway: {error}") from None
    if gateway is not None and named != gateway:
        raise ReceiptRefused(f"the receipt is of another gateway, {receipt.gateway}")
    for answer in receipt.answers:
        _require_signed(answer, receipt.gateway, named)
    payers = {each.payment_id: _payer(each) for each in receipt.purchases}
    paid = [_payment(each, payers) for each in receipt.answers if each.path.startswith("/payments/")]
    return CheckedReceipt(receipt.gateway, receipt.buyer, paid)


def _require_signed(answer: _SignedAnswer, hotkey: str, gateway: PublicKey) -> None:
    headers = {answers.HOTKEY_HEADER: hotkey, answers.SIGNATURE_HEADER: answer.signature}
    try:
        answers.verify_answer(headers, answer.status, answer.timestamp, answer.body.encode(), gateway=gateway)
    except AuthError as refused:
        raise ReceiptRefused(f"the answer of {answer.path} was changed: {refused.message}") from None


def _payer(bought: _Bought) -> tuple[str, int]:
    """Return who signed a payment, and its atomic units. Raises ReceiptRefused."""
    network = NETWORKS.get(bought.network)
    if network is None:
        raise ReceiptRefused(f"payment {bought.payment_id} is on {bought.network!r}, which is not known here")
    try:
        payload = x402.decode_payload(bought.payment)
    except (MalformedPayment, UnprovenReceipt) as error:
        raise ReceiptRefused(f"payment {bought.payment_id} cannot be read: {error}") from None
    signed = payload.authorization
    if recover(signed, network, payload.signature) != signed.payer:
        raise ReceiptRefused(f"payment {bought.payment_id} was not signed by {checksummed(signed.payer)}")
    return checksummed(signed.payer), signed.value


def _payment(answer: _SignedAnswer, payers: dict[str, tuple[str, int]]) -> ReceiptPayment:
    try:
        said = _PAYMENT.decode(answer.body.encode())
    except (msgspec.DecodeError, RecursionError) as error:
        raise ReceiptRefused(f"the answer of {answer.path} cannot be read: {error}") from None
    payer, units = payers.get(said.payment_id, (None, None))
    if units is not None and units != round(said.amount_usd * 1_000_000):
        raise ReceiptRefused(
            f"payment {said.payment_id}: signed were {units} units, the gateway names {said.amount_usd}"
        )
    return ReceiptPayment(
        payment_id=said.payment_id,
        session_id=said.session_id,
        status=said.status,
        amount_usd=said.amount_usd,
        refunded_usd=sum(refund.amount_usd for refund in said.refunds if refund.status == "refunded"),
        network=said.network,
        transaction=said.transaction,
        payer=payer,
    )
