"""What is checked of a payment before anybody is asked: by us, by the x402 package, and by the yardstick."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.support import bare_shop
from bench.support.paying import Wallet
from engram.payments import rules, x402
from engram.payments.model import Requirements
from engram.payments.networks import BASE_SEPOLIA

PAYMENTS: Final = 400
OURS: Final = Requirements(BASE_SEPOLIA, 100_000, b"\xee" * 20, 120)
MIN_VALIDITY_LEFT_S: Final = 20


def measure(rounds: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Returns the CPU milliseconds of a payment: ours, the package's, the yardstick's; each is of another payer."""
    offer: Any = x402.requirements_json(OURS)
    headers = [Wallet().pay(offer) for _ in range(PAYMENTS)]
    theirs = _package(offer)
    domain = bare_shop.domain_of(offer)

    def bare(header: str) -> None:
        bare_shop.check(header, offer, domain)

    taken: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(rounds):
        for check, cpu_ms in zip((_check, theirs, bare), taken, strict=True):
            cpu_ms.append(_cpu_ms(check, headers))
    ours, package, yardstick = ({"static_check_cpu_ms": statistics.median(each)} for each in taken)
    return ours, package, yardstick


def _cpu_ms(check: Callable[[str], None], headers: Sequence[str]) -> float:
    began = time.process_time()
    for header in headers:
        check(header)
    return (time.process_time() - began) * 1000 / len(headers)


def _check(header: str) -> None:
    """From the request's headers to a payment that a facilitator may be asked about."""
    payload = x402.find_payload(((b"host", b"gateway"), (b"payment-signature", header.encode())))
    assert payload is not None
    assert rules.refusal(payload, OURS, time.time(), MIN_VALIDITY_LEFT_S) is None


def _package(offer: dict[str, Any]) -> Callable[[str], None]:
    """The package decodes, matches the offer and recovers the signer; it does not look at time without a chain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from x402.http.utils import decode_payment_signature_header
        from x402.mechanisms.evm.eip712 import hash_eip3009_authorization
        from x402.mechanisms.evm.types import ExactEIP3009Payload
        from x402.mechanisms.evm.verify import verify_eoa_signature

    def check(header: str) -> None:
        payment: Any = decode_payment_signature_header(header)
        assert payment.accepted.model_dump(by_alias=True, exclude_none=True)["amount"] == offer["amount"]
        signed: Any = ExactEIP3009Payload.from_dict(payment.payload)
        digest = hash_eip3009_authorization(
            signed.authorization,
            BASE_SEPOLIA.chain_id,
            offer["asset"],
            BASE_SEPOLIA.asset_name,
            BASE_SEPOLIA.asset_version,
        )
        assert verify_eoa_signature(digest, bytes.fromhex(signed.signature[2:]), signed.authorization.from_address)

    check(Wallet().pay(offer))
    return check
