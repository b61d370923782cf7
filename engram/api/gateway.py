"""The gateway's endpoints: one row each."""

from functools import lru_cache
from typing import Any, Final, TypeVar

from engram import __version__
from engram.api import gateway_examples as examples
from engram.api import openapi
from engram.api.gateway_model import (
    BoughtAnswer,
    CreateSessionBody,
    ErrorAnswer,
    ExtendSessionBody,
    HealthAnswer,
    IdentityAnswer,
    LeaveIdentityBody,
    LeftIdentityAnswer,
    LinkPaymentAnswer,
    MakeOrderBody,
    MetagraphAnswer,
    NodesAnswer,
    NodeSignatureAnswer,
    NodeSignatureBody,
    OrderAnswer,
    OrderBody,
    OrderStatusAnswer,
    PaymentAnswer,
    PaymentRequiredAnswer,
    ReadyAnswer,
    RestoredBody,
    SessionAnswer,
    SessionsAnswer,
    SpendingAnswer,
    StoppedAnswer,
    TakeIdentityBody,
    TakenIdentityAnswer,
    TermsAnswer,
    TicketAnswer,
    TiersAnswer,
    TransferAnswer,
)
from engram.api.route import Method, NoBody, Parameter, Response, Route

A = TypeVar("A")

HOTKEY: Final = ("hotkey",)
HOTKEY_OR_TICKET: Final = ("hotkey", "ticket")


def _error(status: int, description: str, code: str, text: str) -> Response[ErrorAnswer]:
    headers = ("Retry-After",) if status in (429, 503) else ()
    return Response(status, description, ErrorAnswer, examples.error(code, text), headers)


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
_PRICE: Final = Response(
    402,
    "What it costs. Nothing is used up: send the same request again with its payment.",
    PaymentRequiredAnswer,
    examples.PAYMENT_REQUIRED,
    ("PAYMENT-REQUIRED", "WWW-Authenticate", "X-Payment-Network", "X-Payment-Amount-USD"),
)
_PAID: Final = Response(
    202,
    "Paid (code accepted), or not known yet (code payment_pending): then ask again after Retry-After.",
    BoughtAnswer,
    examples.BOUGHT,
    ("PAYMENT-RESPONSE", "Retry-After"),
)
_COMMON: Final = (_TOO_LARGE, _ENCODED, _TOO_MANY, _CLOSED)
_OWNED: Final = (_UNSIGNED, _NOT_YOURS, _MISSING, *_COMMON)
_PAYMENT_HEADERS: Final = (
    Parameter("PAYMENT-SIGNATURE", "header", "x402 v2 payment: base64 of a PaymentPayload (EIP-3009)."),
    Parameter("X-Payment", "header", "The same as x402 v1."),
)


def _public(name: str, path: str, summary: str, success: Response[A], *, probe: bool = False) -> Route[NoBody, A]:
    return Route(name, "GET", path, summary, NoBody, success, _COMMON, "public", probe=probe)


def _owned(name: str, method: Method, path: str, summary: str, success: Response[A]) -> Route[NoBody, A]:
    return Route(name, method, path, summary, NoBody, success, _OWNED, "sessions", callers=HOTKEY, hot=True)


HEALTH: Final = _public(
    "health", "/health", "The process answers", Response(200, "It does.", HealthAnswer, examples.HEALTH), probe=True
)
READY: Final = Route(
    "ready",
    "GET",
    "/ready",
    "The gateway can do its work",
    NoBody,
    Response(
        200,
        "It can. `checks` names what is wrong, `cannot_sell` why nothing can be bought (left out when something can).",
        ReadyAnswer,
        examples.READY,
    ),
    (_TOO_LARGE, _TOO_MANY, Response(503, "A part is not well.", ReadyAnswer, examples.NOT_READY, ("Retry-After",))),
    "public",
    probe=True,
)
TIERS: Final = _public(
    "tiers", "/tiers", "What is on sale", Response(200, "Sizes and prices.", TiersAnswer, examples.TIERS)
)
NODES: Final = _public(
    "nodes",
    "/nodes",
    "Where nodes run, and whether one can be had",
    Response(
        200,
        "Where. `cannot_sell` says why none can be had now, `not_enforced` which limits nodes there are not held to.",
        NodesAnswer,
        examples.NODES,
    ),
)
IDENTITY: Final = _public(
    "identity",
    "/identity",
    "The key that signs this gateway's answers",
    Response(200, "The key.", IdentityAnswer, examples.IDENTITY),
)
TERMS: Final = _public(
    "terms",
    "/terms",
    "What a buyer may rely on",
    Response(200, "Limits, when paid time starts, when money comes back.", TermsAnswer, examples.TERMS),
)
METAGRAPH: Final = Route(
    "metagraph",
    "GET",
    "/bittensor/metagraph",
    "A subnet at the newest finalized block",
    NoBody,
    Response(200, "The metagraph.", MetagraphAnswer, examples.METAGRAPH, ("ETag", "Age")),
    (
        Response(304, "Nothing newer."),
        _error(400, "netuid or fields cannot be read.", "bad_netuid", "netuid must be a whole number."),
        _error(404, "Not synced here; `synced` lists those that are.", "netuid_not_synced", "Not synced."),
        *_COMMON,
    ),
    "public",
    parameters=(
        Parameter("netuid", "query", "Subnet; the first configured one when absent."),
        Parameter("fields", "query", "Comma-separated fields of the neurons; all when absent."),
        Parameter("If-None-Match", "header", "ETag of an earlier answer."),
    ),
    cache="max-age=6",
)
OPENAPI: Final[Route[NoBody, dict[str, object]]] = _public(
    "openapi", "/openapi.json", "This document", Response(200, "OpenAPI 3.1.", dict, {"openapi": "3.1.0"})
)
CREATE_SESSION: Final = Route(
    "createSession",
    "POST",
    "/sessions",
    "Buy a session",
    CreateSessionBody,
    _PAID,
    (_BAD_REQUEST, _UNSIGNED, _PRICE, _CONFLICT, *_COMMON),
    "sessions",
    parameters=_PAYMENT_HEADERS,
    request_example={"tier": "lite", "duration_hours": 24},
    callers=HOTKEY,
    unsigned="Invalid or missing gateway auth headers.",
    hot=True,
)
EXTEND_SESSION: Final = Route(
    "extendSession",
    "POST",
    "/sessions/{session_id}/extend",
    "Buy more time for a session",
    ExtendSessionBody,
    _PAID,
    (_BAD_REQUEST, _UNSIGNED, _PRICE, _NOT_YOURS, _MISSING, _CONFLICT, *_COMMON),
    "sessions",
    parameters=_PAYMENT_HEADERS,
    request_example={"duration_hours": 24},
    callers=HOTKEY,
    hot=True,
)
SHOW_SESSION: Final = _owned(
    "showSession",
    "GET",
    "/sessions/{session_id}",
    "A session as it is now",
    Response(200, "The session.", SessionAnswer, examples.SESSION),
)
STOP_SESSION: Final = _owned(
    "stopSession",
    "DELETE",
    "/sessions/{session_id}",
    "Stop a session for good",
    Response(200, "It stops, and stays stopped.", StoppedAnswer, examples.STOPPED),
)
MARK_RESTORED: Final = Route(
    "markRestored",
    "POST",
    "/sessions/{session_id}/restored",
    "Say that you restored what the node had lost",
    RestoredBody,
    Response(200, "The session; its memory is restored.", SessionAnswer, examples.SESSION),
    (
        *(_BAD_REQUEST, _UNSIGNED, _NOT_YOURS, _MISSING),
        _error(409, "That is not the last loss, or no node serves.", "not_this_loss", "Nothing was lost."),
        *_COMMON,
    ),
    "sessions",
    request_example={"emptied_at": 1764500000.25},
    callers=HOTKEY,
)
LIST_SESSIONS: Final = Route(
    "listSessions",
    "GET",
    "/sessions/hotkey/{hotkey}",
    "Your own sessions, the newest first",
    NoBody,
    Response(200, "At most 200 sessions.", SessionsAnswer, examples.SESSIONS),
    (_UNSIGNED, _error(403, "Another hotkey's.", "not_yours", "Can only list your own sessions."), *_COMMON),
    "sessions",
    callers=HOTKEY,
    hot=True,
)
ISSUE_TICKET: Final = _owned(
    "issueTicket",
    "POST",
    "/sessions/{session_id}/ticket",
    "A short-lived ticket for the event stream",
    Response(200, "The ticket.", TicketAnswer, examples.TICKET),
)
STREAM_EVENTS: Final = Route(
    "streamEvents",
    "GET",
    "/sessions/{session_id}/events",
    "What happens to a session, as server-sent events",
    NoBody,
    Response(200, "`state`, `stats` and at last `end` events.", str, examples.EVENTS),
    (Response(204, "The session is over and there is nothing more: do not come back."), *_OWNED),
    "sessions",
    parameters=(
        Parameter("ticket", "query", "Instead of signed headers, for EventSource; opens once."),
        Parameter("Last-Event-ID", "header", "Go on after this event; an id of a ticket's stream opens it again."),
        Parameter("last_event_id", "query", "The same for a first connection."),
    ),
    stream="text/event-stream; charset=utf-8",
    callers=HOTKEY_OR_TICKET,
)
SHOW_PAYMENT: Final = Route(
    "showPayment",
    "GET",
    "/payments/{payment_id}",
    "What became of a payment and of its refunds",
    NoBody,
    Response(200, "The payment.", PaymentAnswer, examples.PAYMENT),
    _OWNED,
    "payments",
    callers=HOTKEY,
)

COUNTERSIGN: Final = Route(
    "countersign",
    "POST",
    "/node-signatures",
    "For nodes that do not have their hotkey: its signature of what they state",
    NodeSignatureBody,
    Response(200, "Signed.", NodeSignatureAnswer, examples.COUNTERSIGNED),
    (
        _BAD_REQUEST,
        _error(401, "No certified session key of a node signed this.", "unknown_key", "No node signs by this key."),
        _error(403, "The session is over.", "session_over", "The session is over, or has not begun."),
        *_COMMON,
    ),
    "nodes",
    request_example=examples.COUNTERSIGN,
    hot=True,
)

MAKE_ORDER: Final = Route(
    "makeOrder",
    "POST",
    "/orders",
    "Make a link by which somebody else, or another wallet, pays for a session of yours",
    MakeOrderBody,
    Response(201, "The order: payable once until it expires. Nothing is held for it.", OrderAnswer, examples.ORDER),
    (_BAD_REQUEST, _UNSIGNED, _NOT_YOURS, _MISSING, _CONFLICT, *_COMMON),
    "payments",
    request_example={"tier": "lite", "duration_hours": 24},
    callers=HOTKEY,
)
SHOW_ORDER: Final = Route(
    "showOrder",
    "POST",
    "/orders/status",
    "What became of an order of yours",
    OrderBody,
    Response(200, "Where it is.", OrderStatusAnswer, examples.ORDER_STATUS),
    (_BAD_REQUEST, _UNSIGNED, _NOT_YOURS, *_COMMON),
    "payments",
    request_example={"order": examples.ORDER_TEXT},
    callers=HOTKEY,
)
PAY_ORDER: Final = Route(
    "payOrder",
    "POST",
    "/orders/pay",
    "Pay an order, with nothing but its link; the answer is signed where the request has an X-Timestamp",
    OrderBody,
    Response(
        202,
        "Paid (code accepted), or not known yet (code payment_pending): then send the same again after Retry-After.",
        LinkPaymentAnswer,
        examples.LINK_PAYMENT,
        ("PAYMENT-RESPONSE", "Retry-After"),
    ),
    (
        _BAD_REQUEST,
        _PRICE,
        _error(409, "It is paid, or being paid, by another payment.", "order_taken", "This link is paid."),
        _error(410, "Its time is over; nothing was taken.", "order_expired", "Ask for another link."),
        *_COMMON,
    ),
    "payments",
    parameters=(*_PAYMENT_HEADERS, Parameter("X-Timestamp", "header", "Unix ms, which the answer's signature covers.")),
    request_example={"order": examples.ORDER_TEXT},
)

SHOW_BALANCE: Final = Route(
    "showBalance",
    "GET",
    "/balances/{address}",
    "What a spending key owns",
    NoBody,
    Response(200, "It.", SpendingAnswer, examples.SPENDING),
    (_BAD_REQUEST, _UNSIGNED, *_COMMON),
    "payments",
    callers=HOTKEY,
)
GIVE_PLAY_MONEY: Final = Route(
    "givePlayMoney",
    "POST",
    "/balances/{address}/faucet",
    "Play money for an address that owns little of it; `local` alone",
    NoBody,
    Response(200, "What it owns now.", SpendingAnswer, examples.SPENDING),
    (_BAD_REQUEST, _UNSIGNED, _MISSING, *_COMMON),
    "payments",
    callers=HOTKEY,
)

LEAVE_IDENTITY: Final = Route(
    "leaveIdentity",
    "POST",
    "/transfers",
    "Leave an encrypted identity for another device of yours; it takes the place of one that you left before",
    LeaveIdentityBody,
    Response(201, "Kept for ten minutes, or until it is taken.", LeftIdentityAnswer, {"expires_at": 1763680600.0}),
    (_BAD_REQUEST, _UNSIGNED, *_COMMON),
    "identities",
    request_example={"id": examples.TRANSFER, "sealed": "3q2+7w=="},
    callers=HOTKEY,
)
SHOW_TRANSFER: Final = Route(
    "showTransfer",
    "GET",
    "/transfers",
    "Whether the identity that you left last was taken",
    NoBody,
    Response(
        200,
        "It waits, was taken, or is over.",
        TransferAnswer,
        {"id": examples.TRANSFER, "taken": True, "expires_at": 1763680600.0},
    ),
    (
        _UNSIGNED,
        _error(404, "None was left, or it was long ago.", "no_transfer", "You left no identity here."),
        *_COMMON,
    ),
    "identities",
    callers=HOTKEY,
)
TAKE_IDENTITY: Final = Route(
    "takeIdentity",
    "POST",
    "/transfers/take",
    "Take an encrypted identity, once; the answer is signed where the request has an X-Timestamp",
    TakeIdentityBody,
    Response(200, "It; what is kept here is dropped.", TakenIdentityAnswer, {"sealed": "3q2+7w=="}),
    (
        _BAD_REQUEST,
        _error(404, "It was taken, or its time is over.", "no_transfer", "Nothing waits under this code."),
        *_COMMON,
    ),
    "identities",
    parameters=(Parameter("X-Timestamp", "header", "Unix ms, which the answer's signature covers."),),
    request_example={"id": examples.TRANSFER},
)

_NODE_PATH: Final = "/sessions/{session_id}/node/{path...}"
_PASSED: Final = (
    *(_UNSIGNED, _NOT_YOURS, _MISSING),
    _error(409, "The node does not serve: the session is not active.", "not_running", "The session is stopping."),
    _error(502, "The node cannot be reached.", "node_unreachable", "The node cannot be reached at the moment."),
    _error(504, "The node did not answer; it is not known whether it did this.", "outcome_unknown", "Not known."),
    *_COMMON,
)


def _on_node(name: str, method: Method, summary: str) -> Route[NoBody, dict[str, object]]:
    success = Response[dict[str, object]](200, "What the node answers; its own errors too.", dict, {"results": []})
    return Route(name, method, _NODE_PATH, summary, NoBody, success, _PASSED, "nodes", callers=HOTKEY, hot=True)


READ_NODE: Final = _on_node("readNode", "GET", "Read from the session's node, through the gateway")
POST_NODE: Final = _on_node(
    "postNode", "POST", "Ask the session's node, through the gateway; the body is signed for it"
)
DELETE_NODE: Final = _on_node("deleteOnNode", "DELETE", "Delete on the session's node, through the gateway")

ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    *(HEALTH, READY, TIERS, NODES, IDENTITY, TERMS, METAGRAPH, OPENAPI),
    *(CREATE_SESSION, EXTEND_SESSION, SHOW_SESSION, STOP_SESSION, MARK_RESTORED),
    *(LIST_SESSIONS, ISSUE_TICKET, STREAM_EVENTS),
    SHOW_PAYMENT,
    COUNTERSIGN,
    *(READ_NODE, POST_NODE, DELETE_NODE),
    *(MAKE_ORDER, SHOW_ORDER, PAY_ORDER),
    *(SHOW_BALANCE, GIVE_PLAY_MONEY),
    *(LEAVE_IDENTITY, SHOW_TRANSFER, TAKE_IDENTITY),
)

_INTRODUCTION: Final = (
    "Buys, watches and stops memory nodes. Requests to /sessions and /payments are signed with an sr25519 hotkey; "
    "answers to them are signed by the gateway (X-Gateway-Hotkey, X-Gateway-Sig). Payment is by x402."
)
_SCHEMES: Final[dict[str, dict[str, object]]] = {
    "hotkey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Sig",
        "description": (
            "With X-Hotkey (SS58 or 64 hex digits), X-Timestamp (unix ms, 60 s either way) and X-Sig: the sr25519 "
            "signature in hex of `engram-cloud:{METHOD}:{path}:{timestamp}`, or with X-Sig-Version 2 of "
            "`engram-cloud:{METHOD}:{path}:{timestamp}:{sha256hex(body)}`."
        ),
    },
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
}


@lru_cache(maxsize=1)
def openapi_document() -> bytes:
    """Return the whole document as JSON; it never changes within a process."""
    info = {"title": "Engram cloud gateway", "version": __version__, "description": _INTRODUCTION}
    return openapi.document(ROUTES, info, _SCHEMES)
