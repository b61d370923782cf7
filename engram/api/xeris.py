"""The endpoints of a receiver of the relay: one row each."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from engram.api import mcp
from engram.api.gateway_model import PaymentRequiredAnswer
from engram.api.node_model import Health
from engram.api.route import NoBody, Parameter, Response, Route


class RelayedPayload(msgspec.Struct, frozen=True):
    """A signed payload; its schema is at GET /schemas/{name}. It is read strictly, by the receiver's own rules."""


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver's answer, signed over `engram-accepted:{signed_hash}:{received_ms}`."""

    status: str
    signed_hash: str
    output_hash: str
    received_ms: int
    signers: int
    """Distinct keys that have signed."""
    receiver: str
    """ss58"""
    signature: str


class CreditBody(msgspec.Struct, frozen=True, kw_only=True):
    """For whose submissions is paid."""

    hotkey: str
    """ss58 of the key that signs the payloads, which need not be the payer's."""


class CreditAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may still submit. `status` is `settled`, `pending` (ask again) or `none`, where nothing was bought."""

    hotkey: str
    left: int
    """Submissions that are paid for and not used."""
    status: str
    payment_id: str | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing was taken, or found."""

    error: str
    code: str


class TakenSchema(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of payload that is taken."""

    kind: str
    versions: list[str]
    """Each is a `schema_version`; the newest last."""


class Schemas(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken; the JSON Schema of each kind is at /schemas/{kind}."""

    schemas: list[TakenSchema]


class Inclusion(msgspec.Struct, frozen=True, kw_only=True):
    """Where an output stands under a root on the chain: RFC 6962, over the 32 bytes of output hashes."""

    epoch: int
    block: int
    """The finalized block at which the commitment was read."""
    hotkey: str
    """ss58 of the key whose commitment it is."""
    root: str
    commitment: str
    """The field of the commitment."""
    leaf: int
    leaves: int
    path: list[str]
    """Siblings from the leaf up, in hex."""


class Intelligence(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted payload. `state` is `accepted`, `anchored` or `overdue` (not anchored in time); times are unix
    seconds."""

    id: int
    kind: str
    netuid: int
    block: int
    signer: str
    signers: int
    output_hash: str
    signed_hash: str
    round_ts: float
    received_at: float
    state: str
    reason: str = ""
    """Why it stays `accepted`: its signer is not registered on the subnet, and can commit no root."""
    anchor: Inclusion | None = None
    """Of an anchored payload that is asked for by its hash."""
    document: Annotated[object, Meta(extra_json_schema={"type": "object"})]
    acknowledgement: Annotated[object, Meta(extra_json_schema={"type": "object"})]


class IntelligenceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted payload without its document; the fields are those of Intelligence."""

    id: int
    kind: str
    netuid: int
    block: int
    signer: str
    signers: int
    output_hash: str
    signed_hash: str
    round_ts: float
    received_at: float
    state: str
    reason: str = ""


class IntelligencePage(msgspec.Struct, frozen=True, kw_only=True):
    """Accepted payloads, the newest first; `next` is `before` of the page after, null at the end."""

    items: list[Intelligence]
    next: int | None


_OFFER: Final = Response(
    402,
    "Submissions are paid for beforehand: what to pay at POST /credits (x402; v2 in PAYMENT-REQUIRED).",
    PaymentRequiredAnswer,
)
_REFUSED: Final = (
    _OFFER,
    Response(403, "The gateway is not one of this receiver's.", Failure),
    Response(409, "The nonce came with another payload, or the signer signed another output of this block.", Failure),
    Response(410, "Older than what is kept.", Failure),
    Response(422, "The payload is not accepted; `code` says which check it failed.", Failure),
    Response(425, "It cannot be judged yet: send it again later.", Failure),
    Response(429, "The key submits too much at once: send it again later.", Failure),
)

SUBMIT: Final = Route(
    "submit",
    "POST",
    "/payloads",
    "Submit a payload of the relay; the same payload again gets the same answer.",
    RelayedPayload,
    Response(200, "It is kept, or was before.", Acknowledged),
    others=_REFUSED,
    max_values=40_000,
)
LIST: Final = Route(
    "intelligence",
    "GET",
    "/intelligence",
    "What was accepted, the newest first.",
    NoBody,
    Response(200, "A page.", IntelligencePage),
    parameters=(
        Parameter("netuid", "query", "The subnet; the first that the receiver serves when left out."),
        Parameter("kind", "query", "scores, memory, ranking, gap or anchor; all when left out or empty."),
        Parameter("before", "query", "`next` of the page before."),
        Parameter("limit", "query", "At most 100; 20 when left out. A page has fewer where its documents are large."),
    ),
)
ONE: Final = Route(
    "intelligenceByHash",
    "GET",
    "/intelligence/{signed_hash}",
    "One accepted payload.",
    NoBody,
    Response(200, "The payload.", Intelligence),
    others=(Response(404, "There is none of this hash.", Failure),),
)
EVENTS: Final = Route(
    "intelligenceEvents",
    "GET",
    "/intelligence/events",
    "What is accepted from now on, or after Last-Event-ID, as server-sent events `intelligence`.",
    NoBody,
    Response(200, "The stream.", IntelligenceSummary),
    others=(Response(503, "Too many event streams are open.", Failure),),
    parameters=(
        Parameter("netuid", "query", "The subnet; the first that the receiver serves when left out."),
        Parameter("kind", "query", "scores, memory, ranking, gap or anchor; all when left out or empty."),
        Parameter("Last-Event-ID", "header", "The id of the last event that was received."),
    ),
    stream="text/event-stream",
)
CREDITS: Final = Route(
    "buySubmissions",
    "POST",
    "/credits",
    "Buy submissions for a key; without a payment, what they cost.",
    CreditBody,
    Response(200, "Bought, or the payment is still pending.", CreditAnswer),
    others=(
        Response(400, "The payment cannot be read.", Failure),
        _OFFER,
        Response(404, "Submissions cost nothing here.", Failure),
        Response(409, "The payment was presented with another request.", Failure),
        Response(422, "No hotkey.", Failure),
        Response(429, "Too many payments are open.", Failure),
        Response(503, "It cannot be sold now.", Failure),
    ),
    parameters=(
        Parameter("PAYMENT-SIGNATURE", "header", "x402 v2 payment: base64 of a PaymentPayload (EIP-3009)."),
        Parameter("X-Payment", "header", "The same as x402 v1."),
    ),
)
LEFT: Final = Route(
    "submissionsLeft",
    "GET",
    "/credits/{hotkey}",
    "How many submissions a key has left.",
    NoBody,
    Response(200, "So many.", CreditAnswer),
    others=(
        Response(404, "Submissions cost nothing here.", Failure),
        Response(422, "No hotkey.", Failure),
    ),
)
TAKEN: Final = Route(
    "schemas",
    "GET",
    "/schemas",
    "Which kinds and versions of payloads are taken; an emitter picks from these.",
    NoBody,
    Response(200, "The kinds.", Schemas),
)
SCHEMAS: Final = Route(
    "schema",
    "GET",
    "/schemas/{name}",
    "The JSON Schema of a payload: scores, memory, ranking, inference, gap or anchor.",
    NoBody,
    Response(200, "The schema.", dict[str, Any]),
    others=(Response(404, "There is none of this name.", Failure),),
)
HEALTH: Final = Route(
    "health", "GET", "/health", "Whether it is up", NoBody, Response(200, "It is.", Health), probe=True
)

ROUTES: Final = (SUBMIT, LIST, EVENTS, ONE, *mcp.ROUTES, CREDITS, LEFT, TAKEN, SCHEMAS, HEALTH)
