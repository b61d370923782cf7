"""The x402 wire forms: our 402, the payment a buyer presents, the body sent to a facilitator.

Reading is strict, because a second spelling of one payment must never count as a second payment: standard base64
with exact padding, JSON objects without duplicate keys, decimal strings, hex of exact size. Whatever is wrong
raises MalformedPayment and nothing else. What goes out again is always written by us from the parsed values.

Source: x402 specification v2 (2025-12-09), transport http; v1 for the X-PAYMENT header.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from engram.payments import extensions
from engram.payments.errors import MalformedPayment, UnprovenReceipt
from engram.payments.keccak import checksummed
from engram.payments.model import AcceptedTerms, Authorization, Payload, Payment, Quote, Requirements
from engram.payments.networks import NETWORKS, Network, short_name

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Header lines as received (an ASGI scope's)."""
JsonObject: TypeAlias = dict[str, object]

MAX_HEADER_CHARS: Final = 8_192
"""A payment header of version 2 has about 1,000."""
SCHEME: Final = "exact"
PAYMENT_HEADERS: Final = ("payment-signature", "x-payment")
EXPOSED_HEADERS: Final = ("PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE")
"""What a browser must be allowed to read."""
_ERROR_CHARS: Final = 80
"""Of an error in the PAYMENT-REQUIRED header, which is kept below 2,500 bytes; the body has all of it."""
DOCS_URL: Final = "https://x402.org"

_UNPRINTED = re.compile(r"[^ !#-\[\]-~]", re.ASCII)
"""What has more bytes in JSON than one."""
_UINT = re.compile(r"0|[1-9][0-9]{0,77}", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]*", re.ASCII)
_UINT256_MAX = 2**256 - 1


# What a buyer presents.


def find_payload(headers: Headers) -> Payload | None:
    """Return the payment in a request's headers, or None when it carries none.

    Raises MalformedPayment when there is one that cannot be read, or more than one; UnprovenReceipt for a bare
    transaction hash or a development receipt.
    """
    found = [value for name, value in headers if name.lower().decode("latin-1") in PAYMENT_HEADERS]
    if not found:
        return None
    if len(found) > 1:
        raise MalformedPayment("more than one payment header: send either PAYMENT-SIGNATURE or X-PAYMENT, once")
    return decode_payload(found[0].decode("latin-1"))


def decode_payload(header: str) -> Payload:
    """Return the payment in a PAYMENT-SIGNATURE (v2) or X-PAYMENT (v1) header; its version says which it is.

    Raises MalformedPayment, UnprovenReceipt.
    """
    return parse_payload(_decode_object(header))


def parse_payload(document: object) -> Payload:
    """Return the payment in a decoded JSON PaymentPayload. Raises MalformedPayment, UnprovenReceipt."""
    body = _object(document, "the payment")
    if "payload" not in body and ("txHash" in body or "devMode" in body):
        raise UnprovenReceipt(
            "a transaction hash or development receipt proves no payment: sign an EIP-3009 authorization (x402 exact)"
        )
    version = body.get("x402Version")
    if version not in (1, 2) or isinstance(version, bool):
        raise MalformedPayment("x402Version must be 1 or 2")
    accepted: AcceptedTerms | None = None
    terms = body
    if version == 2:
        terms = _object(body.get("accepted"), "accepted")
        accepted = AcceptedTerms(
            amount=_uint(terms, "amount"),
            asset=_hex(terms, "asset", 20),
            pay_to=_hex(terms, "payTo", 20),
            max_timeout_s=_seconds(terms, "maxTimeoutSeconds"),
        )
    signed = _object(body.get("payload"), "payload")
    if "authorization" not in signed:
        raise MalformedPayment("payload.authorization is missing: only EIP-3009 authorizations are taken")
    return Payload(
        version=2 if version == 2 else 1,
        scheme=_text(terms, "scheme"),
        network=_text(terms, "network"),
        accepted=accepted,
        authorization=_authorization(_object(signed["authorization"], "payload.authorization")),
        signature=_signature(signed),
        identifier=extensions.identifier_in(body.get("extensions")) if version == 2 else None,
    )


# What we ask with a 402.


class PaymentChallenge(msgspec.Struct, frozen=True):
    """A 402 answer that v1, v2 and the original's clients all understand: headers, and fields of the JSON body."""

    headers: tuple[tuple[str, str], ...]
    fields: JsonObject


def challenge(quote: Quote, error: str = "Payment required") -> PaymentChallenge:
    """Return the headers and body fields of a 402 for `quote`; the surface adds `error`, `code`, `request_id`."""
    requirements = quote.requirements
    network = requirements.network
    recipient = checksummed(requirements.pay_to)
    path = quote.resource.partition("://")[2].partition("/")[2]
    required = {
        "x402Version": 2,
        "error": _UNPRINTED.sub("?", error[:_ERROR_CHARS]),
        "resource": {"url": quote.resource, "description": quote.description},
        "accepts": [requirements_json(requirements)],
        "extensions": extensions.declared(
            quote.discovery, quote.refund_terms, identifier_required=quote.identifier_required
        ),
    }
    challenge_text = (
        f'x402 scheme="{SCHEME}" network="{network.v1_name}" amount="{requirements.amount}" token="USDC" '
        f'recipient="{recipient}" resource="/{_quotable(path)}" version="1"'
    )
    fields: JsonObject = {
        "x402Version": 1,
        "accepts": [_v1_requirements(quote)],
        "amount_usd": quote.amount_usd,
        "network": network.v1_name,
        "recipient": recipient,
        "protocol": "x402",
        "docs": DOCS_URL,
    }
    if quote.terms_url:
        fields["terms"] = quote.terms_url
    if quote.refund_terms is not None:
        fields["refund_terms"] = msgspec.to_builtins(quote.refund_terms)
    return PaymentChallenge(
        headers=(
            ("PAYMENT-REQUIRED", _encode_object(required)),
            ("WWW-Authenticate", challenge_text),
            ("X-Payment-Network", network.v1_name),
            ("X-Payment-Amount-USD", _dollars(requirements.amount)),
            ("Cache-Control", "no-store"),
        ),
        fields=fields,
    )


def requirements_json(requirements: Requirements) -> JsonObject:
    """x402 v2 PaymentRequirements. `upfront`: settled before any work is done."""
    return {
        "scheme": SCHEME,
        "network": requirements.network.caip2,
        "amount": str(requirements.amount),
        "asset": checksummed(requirements.network.asset),
        "payTo": checksummed(requirements.pay_to),
        "maxTimeoutSeconds": requirements.max_timeout_s,
        "extra": {
            "name": requirements.network.asset_name,
            "version": requirements.network.asset_version,
            "assetTransferMethod": "eip3009",
            "paymentFlow": "upfront",
        },
    }


def payload_json(authorization: Authorization, signature: bytes, requirements: Requirements) -> JsonObject:
    """x402 v2 PaymentPayload with our own requirements as what was accepted."""
    return {
        "x402Version": 2,
        "accepted": requirements_json(requirements),
        "payload": _signed_json(authorization, signature),
    }


def _signed_json(authorization: Authorization, signature: bytes) -> JsonObject:
    return {
        "signature": "0x" + signature.hex(),
        "authorization": {
            "from": checksummed(authorization.payer),
            "to": checksummed(authorization.pay_to),
            "value": str(authorization.value),
            "validAfter": str(authorization.valid_after),
            "validBefore": str(authorization.valid_before),
            "nonce": "0x" + authorization.nonce.hex(),
        },
    }


def listed(payload: JsonObject, quote: Quote) -> JsonObject:
    """Return the payload with what a facilitator's catalogue shows of the offer, from the same source as the 402."""
    if quote.discovery is None:
        return payload
    resource = {"url": quote.resource, "description": quote.description, "mimeType": "application/json"}
    return payload | {"resource": resource, "extensions": {extensions.BAZAAR: extensions.bazaar(quote.discovery)}}


def receipt_headers(payment: Payment) -> tuple[tuple[str, str], ...]:
    """Return PAYMENT-RESPONSE (v2) and X-PAYMENT-RESPONSE (v1) of a settled payment; nothing for one that is not.

    They differ in the network's name: v1 clients refuse CAIP-2 ids.
    """
    if payment.settled_at is None or payment.transaction_hash is None:
        return ()
    receipt: JsonObject = {
        "success": True,
        "transaction": payment.transaction_hash,
        "network": payment.network,
        "payer": checksummed(payment.payer),
        "amount": str(payment.amount),
    }
    v1_receipt = receipt | {"network": short_name(payment.network)}
    return (("PAYMENT-RESPONSE", _encode_object(receipt)), ("X-PAYMENT-RESPONSE", _encode_object(v1_receipt)))


# What a buyer of ours reads and sends.


def decode_challenge(header: str) -> list[Requirements]:
    """Return the offers of a PAYMENT-REQUIRED header that are `exact` on a known network and its known token.

    Raises MalformedPayment.
    """
    offers = _decode_object(header).get("accepts")
    if not isinstance(offers, list):
        raise MalformedPayment("accepts must be a list")
    return [found for offer in offers if (found := parse_requirements(_object(offer, "accepts[]"))) is not None]


def parse_requirements(offer: Mapping[str, object]) -> Requirements | None:
    """Return x402 v2 PaymentRequirements as ours, None when scheme, network, token or its EIP-712 name are others.

    Raises MalformedPayment.
    """
    network = NETWORKS.get(_text(offer, "network"))
    if network is None or _text(offer, "scheme") != SCHEME or _hex(offer, "asset", 20) != network.asset:
        return None
    extra = _object(offer.get("extra"), "extra")
    if (extra.get("name"), extra.get("version")) != (network.asset_name, network.asset_version):
        return None
    return Requirements(
        network=network,
        amount=_uint(offer, "amount"),
        pay_to=_hex(offer, "payTo", 20),
        max_timeout_s=_seconds(offer, "maxTimeoutSeconds"),
    )


def decode_v1_offers(content: bytes) -> list[Requirements]:
    """Return the offers of a v1 402's body that are `exact` on a known network and its known token.

    Raises MalformedPayment.
    """
    offers = _object(strict_json(content), "the answer").get("accepts")
    if not isinstance(offers, list):
        raise MalformedPayment("accepts must be a list")
    found = (_object(offer, "accepts[]") for offer in offers)
    read = (parse_requirements({**offer, "amount": offer.get("maxAmountRequired")}) for offer in found)
    return [each for each in read if each is not None]


def v1_payload_json(authorization: Authorization, signature: bytes, network: Network) -> JsonObject:
    """x402 v1 PaymentPayload, for the X-PAYMENT header."""
    return {
        "x402Version": 1,
        "scheme": SCHEME,
        "network": network.v1_name,
        "payload": _signed_json(authorization, signature),
    }


def encode_payload(payload: JsonObject) -> str:
    """Return a PaymentPayload as the text of its header."""
    return _encode_object(payload)


def canonical_network(name: str) -> str:
    """Return the CAIP-2 id of a network given by either name; an unknown name is returned as it is.

    >>> canonical_network("base")
    'eip155:8453'
    """
    network = NETWORKS.get(name)
    return name if network is None else network.caip2


# Strict reading.


def strict_json(text: str | bytes) -> object:
    """Return the JSON value. Duplicate keys, NaN, absurd depth or digits raise MalformedPayment."""
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")  # as json.loads reads bytes
        value: object = _STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedPayment("not valid JSON") from error
    return value


def _decode_object(header: str) -> JsonObject:
    if len(header) > MAX_HEADER_CHARS:
        raise MalformedPayment(f"the payment header is longer than {MAX_HEADER_CHARS} characters")
    try:
        raw = base64.b64decode(header.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise MalformedPayment("the payment header is not standard base64") from error
    if base64.b64encode(raw).decode("ascii") != header:
        raise MalformedPayment("the payment header is not canonical base64 (padding)")
    return _object(strict_json(raw), "the payment header")


def _encode_object(document: JsonObject) -> str:
    return base64.b64encode(msgspec.json.encode(document)).decode("ascii")


def _pairs(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedPayment("a JSON object has the same key twice")
    return found


def _no_constant(name: str) -> object:
    raise MalformedPayment(f"{name} is no JSON number")


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant)
"""Built once: json.loads builds one for each text that it reads with hooks."""


def _authorization(document: Mapping[str, object]) -> Authorization:
    return Authorization(
        payer=_hex(document, "from", 20),
        pay_to=_hex(document, "to", 20),
        value=_uint(document, "value"),
        valid_after=_uint(document, "validAfter"),
        valid_before=_uint(document, "validBefore"),
        nonce=_hex(document, "nonce", 32),
    )


def _signature(document: Mapping[str, object]) -> bytes:
    text = _text(document, "signature")
    if len(text) != 132 or not _HEX.fullmatch(text):
        raise MalformedPayment("payload.signature must be 0x and 130 hex digits (smart-contract wallets cannot pay)")
    raw = bytes.fromhex(text[2:])
    # Some hardware wallets write the recovery id itself; token contracts want 27 or 28. One signature, one spelling.
    return raw[:64] + bytes((raw[64] + 27,)) if raw[64] in (0, 1) else raw


def _object(value: object, where: str) -> JsonObject:
    if not isinstance(value, dict):
        raise MalformedPayment(f"{where} must be a JSON object")
    return value


def _text(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise MalformedPayment(f"{key} must be a string")
    return value


def _uint(document: Mapping[str, object], key: str) -> int:
    text = _text(document, key)
    if not _UINT.fullmatch(text) or (number := int(text)) > _UINT256_MAX:
        raise MalformedPayment(f"{key} must be a decimal string of an unsigned 256-bit number")
    return number


def _hex(document: Mapping[str, object], key: str, size: int) -> bytes:
    text = _text(document, key)
    if len(text) != 2 + 2 * size or not _HEX.fullmatch(text):
        raise MalformedPayment(f"{key} must be 0x and {2 * size} hex digits")
    return bytes.fromhex(text[2:])


def _seconds(document: Mapping[str, object], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 31_536_000:
        raise MalformedPayment(f"{key} must be a whole number of seconds")
    return value


def _v1_requirements(quote: Quote) -> JsonObject:
    requirements = quote.requirements
    return {
        "scheme": SCHEME,
        "network": requirements.network.v1_name,
        "maxAmountRequired": str(requirements.amount),
        "resource": quote.resource,
        "description": quote.description,
        "mimeType": "application/json",
        "payTo": checksummed(requirements.pay_to),
        "maxTimeoutSeconds": requirements.max_timeout_s,
        "asset": checksummed(requirements.network.asset),
        "extra": {"name": requirements.network.asset_name, "version": requirements.network.asset_version},
    }


def _dollars(micros: int) -> str:
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}".rstrip("0").rstrip(".")


def _quotable(path: str) -> str:
    return path.replace("\\", "%5C").replace('"', "%22")
