"""x402 extensions of our offers: `payment-identifier` (a buyer's own word for one purchase), `bazaar` (discovery), and
`refund-terms`, which is ours: the specification leaves what goes back to the seller.

Sources: x402 2.25, extensions/payment_identifier/schema and extensions/bazaar/resource_service. All are declared in
the 402 as {info, schema} and echoed by buyers; of the echo only the identifier is read.

The 402's form travels in a header: its schemas say only what its reader could not know, and what catalogues alone want
goes to the facilitator with the payment. Proxies by default take 4,096 bytes of all headers, some facilitators less
than 3,500 of this one (coinbase/cdp-sdk#759); ours stays below 2,500 with the longest `gateway.public_url`.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from engram.api.refund_terms import PublishedTerms
from engram.payments.errors import MalformedPayment

PAYMENT_IDENTIFIER: Final = "payment-identifier"
BAZAAR: Final = "bazaar"
REFUND_TERMS: Final = "refund-terms"

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)
_IDENTIFIER_SCHEMA: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {"id": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{16,128}$"}},
    "required": ["required"],
}

_REFUND_TERMS_SCHEMA: Final[Mapping[str, object]] = {"type": "object", "required": ["recipient", "sent", "text"]}
"""/openapi.json says all."""


class Discovery(msgspec.Struct, frozen=True):
    """How what is offered is asked for: the JSON body of a POST, and what comes back."""

    body: Mapping[str, object]
    """An example."""
    schema: Mapping[str, object]
    output: Mapping[str, object]
    """An example."""


def declared(
    discovery: Discovery | None, refund_terms: PublishedTerms | None, *, identifier_required: bool
) -> dict[str, object]:
    """Returns the `extensions` of a PaymentRequired; those that are None are left out."""
    found: dict[str, object] = {
        PAYMENT_IDENTIFIER: {"info": {"required": identifier_required}, "schema": _IDENTIFIER_SCHEMA}
    }
    if discovery is not None:
        found[BAZAAR] = _brief_bazaar(discovery)
    if refund_terms is not None:
        found[REFUND_TERMS] = {"info": msgspec.to_builtins(refund_terms), "schema": _REFUND_TERMS_SCHEMA}
    return found


def _brief_bazaar(discovery: Discovery) -> dict[str, object]:
    """Returns the `bazaar` extension of a 402: how to ask, and a schema of the body alone."""
    described = {"type": "object", "properties": {"body": discovery.schema}, "required": ["body"]}
    return {
        "info": {"input": _input(discovery)},
        "schema": {"type": "object", "properties": {"input": described}, "required": ["input"]},
    }


def _input(discovery: Discovery) -> dict[str, object]:
    return {"type": "http", "method": "POST", "bodyType": "json", "body": discovery.body}


def bazaar(discovery: Discovery) -> dict[str, object]:
    """Returns the whole `bazaar` extension: what a catalogue shows, and its schema."""
    return {
        "info": {
            "input": _input(discovery),
            "output": {"type": "json", "example": discovery.output},
        },
        "schema": {
            "$schema": _DRAFT,
            "type": "object",
            "properties": {
                "input": {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string", "const": "http"},
                        "method": {"type": "string", "enum": ["POST"]},
                        "bodyType": {"type": "string", "enum": ["json"]},
                        "body": discovery.schema,
                    },
                    "required": ["type", "method", "bodyType", "body"],
                    "additionalProperties": False,
                },
                "output": {
                    "type": "object",
                    "properties": {"type": {"type": "string"}, "example": {"type": "object"}},
                    "required": ["type"],
                },
            },
            "required": ["input"],
        },
    }


def identifier_in(extensions: object) -> str | None:
    """Returns the payment identifier of a PaymentPayload's `extensions`, None without one. Raises MalformedPayment."""
    if extensions is None:
        return None
    if not isinstance(extensions, dict):
        raise MalformedPayment("extensions must be a JSON object")
    extension = extensions.get(PAYMENT_IDENTIFIER)
    if extension is None:
        return None
    info = extension.get("info") if isinstance(extension, dict) else None
    if not isinstance(info, dict):
        raise MalformedPayment("extensions.payment-identifier.info must be a JSON object")
    told = info.get("id")
    if told is None:
        return None
    if not isinstance(told, str) or not _IDENTIFIER.fullmatch(told):
        raise MalformedPayment("a payment identifier has 16 to 128 characters of A-Z a-z 0-9 _ -")
    return told
