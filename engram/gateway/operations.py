"""Every endpoint as a table: what it takes, what it answers, and an example of each answer. /openapi.json shows it."""

from typing import Final, Literal

import msgspec

from engram.gateway import examples
from engram.gateway.answers import (
    BoughtAnswer,
    CreateSessionBody,
    ErrorAnswer,
    ExtendSessionBody,
    HealthAnswer,
    IdentityAnswer,
    MetagraphAnswer,
    NodesAnswer,
    PaymentAnswer,
    PaymentRequiredAnswer,
    ReadyAnswer,
    SessionAnswer,
    SessionsAnswer,
    StoppedAnswer,
    TermsAnswer,
    TicketAnswer,
    TiersAnswer,
)

Example = dict[str, object]


class Answers(msgspec.Struct, frozen=True):
    """One status of an operation."""

    status: int
    description: str
    schema: type | None
    """None: no body, or (text/event-stream) none that JSON Schema describes."""
    example: Example | str | None = None
    headers: tuple[str, ...] = ()


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or header an operation takes."""

    name: str
    where: Literal["query", "header"]
    description: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path; path parameters are those in braces."""

    method: Literal["get", "post", "delete"]
    path: str
    id: str
    summary: str
    tag: Literal["public", "sessions", "payments"]
    signed: bool = False
    body: type | None = None
    body_example: Example | None = None
    parameters: tuple[Parameter, ...] = ()
    answers: tuple[Answers, ...]


def _error(status: int, description: str, code: str, text: str) -> Answers:
    headers = ("Retry-After",) if status in (429, 503) else ()
    return Answers(status, description, ErrorAnswer, examples.error(code, text), headers)


_BAD_REQUEST: Final = _error(400, "The request cannot be read.", "invalid_json", "Invalid JSON body.")
_UNSIGNED: Final = _error(
    401, "No valid signature, or one that was used for another request.", "stale", "Unauthorized."
)
_NOT_YOURS: Final = _error(403, "It belongs to another hotkey.", "not_yours", "Not your session.")
_MISSING: Final = _error(404, "There is no such thing.", "not_found", "Session not found.")
_TOO_LARGE: Final = _error(413, "The body is too large.", "body_too_large", "The body is too large.")
_ENCODED: Final = _error(
    415,
    "The body is compressed; send it as it is.",
    "unsupported_encoding",
    "a body with Content-Encoding 'gzip' is not taken: send it as it is",
)
_TOO_MANY: Final = _error(429, "Too many requests; come back after Retry-After.", "rate_limited", "Slow down.")
_CLOSED: Final = _error(503, "Not now; come back after Retry-After.", "unavailable", "Not now.")
_CONFLICT: Final = _error(
    409, "The payment was presented with another request, or the session is over.", "payment_conflict", "Pay anew."
)
_COMMON: Final = (_TOO_LARGE, _ENCODED, _TOO_MANY, _CLOSED)
_OWNED: Final = (_UNSIGNED, _NOT_YOURS, _MISSING, *_COMMON)
_PAYMENT_HEADERS: Final = (
    Parameter("PAYMENT-SIGNATURE", "header", "x402 v2 payment: base64 of a PaymentPayload (EIP-3009)."),
    Parameter("X-Payment", "header", "The same as x402 v1."),
)
_PRICE: Final = Answers(
    402,
    "What it costs. Nothing is used up: send the same request again with its payment.",
    PaymentRequiredAnswer,
    examples.PAYMENT_REQUIRED,
    ("PAYMENT-REQUIRED", "WWW-Authenticate", "X-Payment-Network", "X-Payment-Amount-USD"),
)
_BOUGHT: Final = Answers(
    202,
    "Paid (code accepted), or not known yet (code payment_pending): then ask again after Retry-After.",
    BoughtAnswer,
    examples.BOUGHT,
    ("PAYMENT-RESPONSE", "Retry-After"),
)

OPERATIONS: Final = (
    Operation(
        method="get",
        path="/health",
        id="health",
        summary="The process answers",
        tag="public",
        answers=(Answers(200, "It does.", HealthAnswer, examples.HEALTH), *_COMMON),
    ),
    Operation(
        method="get",
        path="/ready",
        id="ready",
        summary="The gateway can do its work",
        tag="public",
        answers=(
            Answers(200, "It can.", ReadyAnswer, examples.READY),
            _TOO_LARGE,
            _TOO_MANY,
            Answers(503, "A part is not well.", ReadyAnswer, examples.NOT_READY, ("Retry-After",)),
        ),
    ),
    Operation(
        method="get",
        path="/tiers",
        id="tiers",
        summary="What is on sale",
        tag="public",
        answers=(Answers(200, "Sizes and prices.", TiersAnswer, examples.TIERS), *_COMMON),
    ),
    Operation(
        method="get",
        path="/nodes",
        id="nodes",
        summary="Where nodes run, and whether one can be had",
        tag="public",
        answers=(Answers(200, "Where.", NodesAnswer, examples.NODES), *_COMMON),
    ),
    Operation(
        method="get",
        path="/identity",
        id="identity",
        summary="The key that signs this gateway's answers",
        tag="public",
        answers=(Answers(200, "The key.", IdentityAnswer, examples.IDENTITY), *_COMMON),
    ),
    Operation(
        method="get",
        path="/terms",
        id="terms",
        summary="What a buyer may rely on",
        tag="public",
        answers=(Answers(200, "The terms.", TermsAnswer, examples.TERMS), *_COMMON),
    ),
    Operation(
        method="get",
        path="/bittensor/metagraph",
        id="metagraph",
        summary="A subnet at the newest finalized block",
        tag="public",
        parameters=(
            Parameter("netuid", "query", "Subnet; the first configured one when absent."),
            Parameter("fields", "query", "Comma-separated fields of the neurons; all when absent."),
            Parameter("If-None-Match", "header", "ETag of an earlier answer."),
        ),
        answers=(
            Answers(200, "The metagraph.", MetagraphAnswer, examples.METAGRAPH, ("ETag", "Age")),
            Answers(304, "Nothing newer.", None),
            _error(400, "netuid or fields cannot be read.", "bad_netuid", "netuid must be a whole number."),
            _error(404, "Not synced here; `synced` lists those that are.", "netuid_not_synced", "Not synced."),
            *_COMMON,
        ),
    ),
    Operation(
        method="get",
        path="/openapi.json",
        id="openapi",
        summary="This document",
        tag="public",
        answers=(Answers(200, "OpenAPI 3.1.", dict, {"openapi": "3.1.0"}), *_COMMON),
    ),
    Operation(
        method="post",
        path="/sessions",
        id="createSession",
        summary="Buy a session",
        tag="sessions",
        signed=True,
        body=CreateSessionBody,
        body_example={"tier": "lite", "duration_hours": 24},
        parameters=_PAYMENT_HEADERS,
        answers=(_BOUGHT, _BAD_REQUEST, _UNSIGNED, _PRICE, _CONFLICT, *_COMMON),
    ),
    Operation(
        method="get",
        path="/sessions/{session_id}",
        id="showSession",
        summary="A session as it is now",
        tag="sessions",
        signed=True,
        answers=(Answers(200, "The session.", SessionAnswer, examples.SESSION), *_OWNED),
    ),
    Operation(
        method="delete",
        path="/sessions/{session_id}",
        id="stopSession",
        summary="Stop a session for good",
        tag="sessions",
        signed=True,
        answers=(Answers(200, "It stops, and stays stopped.", StoppedAnswer, examples.STOPPED), *_OWNED),
    ),
    Operation(
        method="get",
        path="/sessions/hotkey/{hotkey}",
        id="listSessions",
        summary="Your own sessions, the newest first",
        tag="sessions",
        signed=True,
        answers=(
            Answers(200, "At most 200 sessions.", SessionsAnswer, examples.SESSIONS),
            _UNSIGNED,
            _error(403, "Another hotkey's.", "not_yours", "Can only list your own sessions."),
            *_COMMON,
        ),
    ),
    Operation(
        method="get",
        path="/sessions/{session_id}/events",
        id="streamEvents",
        summary="What happens to a session, as server-sent events",
        tag="sessions",
        signed=True,
        parameters=(
            Parameter("ticket", "query", "Instead of signed headers, for EventSource; opens once."),
            Parameter("Last-Event-ID", "header", "Go on after this event; an id of a ticket's stream opens it again."),
            Parameter("last_event_id", "query", "The same for a first connection."),
        ),
        answers=(
            Answers(200, "`state`, `stats` and at last `end` events.", None, examples.EVENTS),
            Answers(204, "The session is over and there is nothing more: do not come back.", None),
            *_OWNED,
        ),
    ),
    Operation(
        method="post",
        path="/sessions/{session_id}/ticket",
        id="issueTicket",
        summary="A short-lived ticket for the event stream",
        tag="sessions",
        signed=True,
        answers=(Answers(200, "The ticket.", TicketAnswer, examples.TICKET), *_OWNED),
    ),
    Operation(
        method="post",
        path="/sessions/{session_id}/extend",
        id="extendSession",
        summary="Buy more time for a session",
        tag="sessions",
        signed=True,
        body=ExtendSessionBody,
        body_example={"duration_hours": 24},
        parameters=_PAYMENT_HEADERS,
        answers=(_BOUGHT, _BAD_REQUEST, _UNSIGNED, _PRICE, _NOT_YOURS, _MISSING, _CONFLICT, *_COMMON),
    ),
    Operation(
        method="get",
        path="/payments/{payment_id}",
        id="showPayment",
        summary="What became of a payment and of its refunds",
        tag="payments",
        signed=True,
        answers=(Answers(200, "The payment.", PaymentAnswer, examples.PAYMENT), *_OWNED),
    ),
)
