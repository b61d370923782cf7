"""What the play-money facilitator checks, in the words and about the order of x402's own EVM facilitator.

| question                           | refused as                                             |
|------------------------------------|--------------------------------------------------------|
| scheme, network, token             | unsupported_scheme, network_mismatch, missing domain … |
| signature recovers to the payer    | invalid_exact_evm_payload_signature                    |
| recipient and amount as required   | …_recipient_mismatch, …_authorization_value_mismatch   |
| 6 s of validity left, begun        | …_authorization_valid_before, …_valid_after            |
| nonce unused                       | invalid_exact_evm_nonce_already_used                   |
| balance covers it                  | invalid_exact_evm_insufficient_balance                 |

The books are the chain here, so they know every authorization they ever took: a settlement that is asked for again
is answered with the transaction it was settled in, also after it expired. "Expired" therefore proves "never used".
"""

from typing import Final

from engram.facilitator.model import PaymentRequest, SettledTransfer
from engram.payments import rules, x402
from engram.payments.eip712 import recover
from engram.payments.errors import MalformedPayment, UnprovenReceipt
from engram.payments.keccak import keccak256
from engram.payments.model import Authorization, Requirements
from engram.payments.networks import NETWORKS, PLAY

MIN_VALIDITY_LEFT_S: Final = 6
INVALID_REQUEST: Final = "invalid_payload"
NONCE_USED: Final = rules.NONCE_USED
NO_FUNDS: Final = "invalid_exact_evm_insufficient_balance"


class MalformedRequest(Exception):
    """The request is refused with this x402 reason before anything is looked at."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_request(body: bytes) -> PaymentRequest:
    """Return a /verify or /settle body. Raises Malformed with the reason to answer."""
    try:
        document = x402.strict_json(body)
        if not isinstance(document, dict):
            raise MalformedRequest(INVALID_REQUEST)
        offer = document.get("paymentRequirements")
        payload = x402.parse_payload(document.get("paymentPayload"))
        if not isinstance(offer, dict):
            raise MalformedRequest("invalid_payment_requirements")
        requirements = _requirements(offer)
    except (MalformedPayment, UnprovenReceipt) as error:
        raise MalformedRequest(INVALID_REQUEST) from error
    return PaymentRequest(payload, requirements)


def _requirements(offer: dict[str, object]) -> Requirements:
    if offer.get("scheme") != x402.SCHEME:
        raise MalformedRequest("unsupported_scheme")
    if NETWORKS.get(str(offer.get("network"))) is not PLAY:
        raise MalformedRequest("invalid_network")
    extra = offer.get("extra")
    if not isinstance(extra, dict) or "name" not in extra or "version" not in extra:
        raise MalformedRequest("missing_eip712_domain")
    if extra["name"] != PLAY.asset_name:
        raise MalformedRequest("invalid_exact_evm_token_name_mismatch")
    if extra["version"] != PLAY.asset_version:
        raise MalformedRequest("invalid_exact_evm_token_version_mismatch")
    requirements = x402.parse_requirements(offer)
    if requirements is None:
        raise MalformedRequest("asset_not_deployed_contract")
    return requirements


def refused_for_ever(request: PaymentRequest) -> str | None:
    """Return why this authorization can never pay what is required, or None."""
    payload, requirements = request.payload, request.requirements
    signed = payload.authorization
    if payload.scheme != x402.SCHEME:
        return "unsupported_scheme"
    if NETWORKS.get(payload.network) is not requirements.network:
        return "network_mismatch"
    if recover(signed, requirements.network, payload.signature) != signed.payer:
        return "invalid_exact_evm_payload_signature"
    if signed.pay_to != requirements.pay_to:
        return "invalid_exact_evm_payload_recipient_mismatch"
    if signed.value != requirements.amount:
        return "invalid_exact_evm_payload_authorization_value_mismatch"
    return None


def refused_now(authorization: Authorization, now: float) -> str | None:
    """Return why the authorization cannot be used at `now` (unix seconds), or None."""
    if authorization.valid_before < now + MIN_VALIDITY_LEFT_S:
        return "invalid_exact_evm_payload_authorization_valid_before"
    if authorization.valid_after > now:
        return "invalid_exact_evm_payload_authorization_valid_after"
    return None


def is_same(settled: SettledTransfer, authorization: Authorization) -> bool:
    """Return whether the authorization asked for is the one that was settled, not another one under its nonce."""
    return (settled.pay_to, settled.amount) == (authorization.pay_to, authorization.value)


def transaction_hash(authorization: Authorization) -> str:
    """Return the hash that settling this authorization has, always."""
    parts = (b"engram play transaction", PLAY.asset, authorization.payer, authorization.nonce)
    return "0x" + keccak256(b"".join(parts)).hex()
