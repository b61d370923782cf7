"""What the gateway takes and answers, field by field.

The first fields of each answer are the original Engram's; phones rely on them. A field with a default is sent all the
same, but where a Struct omits defaults: the default is what a client reads in the answer of a gateway without it.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engram.api.refund_terms import PublishedTerms

UnixSeconds = Annotated[float, Meta(description="Unix seconds, UTC.")]
Usd = Annotated[float, Meta(description="US dollars, at most 6 decimals.", ge=0)]
NetworkName = Annotated[
    str, Meta(description="x402's v1 name of the payment network: base, base-sepolia, engram-play.")
]
Hours = Annotated[
    object, Meta(description="0.5 to 720 unless /terms says otherwise.", extra_json_schema={"type": "number"})
]
Hotkey = Annotated[str, Meta(description="SS58 address (prefix 42) of an sr25519 public key.")]


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every error. `error` is for people, `code` for programs, `request_id` for the operator."""

    error: str
    code: str
    request_id: str
    clock_skew_ms: int | None = None
    """401 only: the request's timestamp minus the gateway's clock; positive when the phone's clock is ahead."""
    detail: str | None = None
    """What exactly is wrong, where `error` is a fixed text of the original."""


class PaymentRequiredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """402: what to pay, in the terms of x402 v1 and of the original; x402 v2 is in the PAYMENT-REQUIRED header."""

    error: str
    code: str
    request_id: str
    x402_version: int = msgspec.field(name="x402Version")
    accepts: list[dict[str, object]]
    amount_usd: Usd
    network: NetworkName
    recipient: str
    protocol: str
    docs: str
    terms: Annotated[str, Meta(description="URL of the full terms.")]
    refund_terms: Annotated[PublishedTerms, Meta(description="When money comes back; also an extension of the offer.")]


class MetagraphAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A subnet at a finalized block; `neurons` unless `fields` names none of theirs."""

    network: str
    block: int
    netuid: int
    note: str
    neurons: list[dict[str, object]] | None = None


class HealthAnswer(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str
    service: str


class ReasonAnswer(msgspec.Struct, frozen=True):
    """Why nothing can be bought now."""

    code: str
    message: str


class ReadyAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the gateway can do its work; `checks` names each part and what is wrong with it (empty: nothing)."""

    ready: bool
    checks: dict[str, str]
    cannot_sell: list[ReasonAnswer] = []
    """Every reason why nothing can be bought; those that pass by themselves leave the gateway ready."""


class TierAnswer(msgspec.Struct, frozen=True):
    """One size of node and its price."""

    tier: str
    cpu_vcpu: int
    memory_gb: int
    storage_gb: int
    price_akt_per_hour: Annotated[float, Meta(description="Half of price_usd_per_hour: the original app doubles it.")]
    price_usd_per_hour: Usd


class TiersAnswer(msgspec.Struct, frozen=True):
    """All sizes on sale."""

    tiers: list[TierAnswer]


class BackendAnswer(msgspec.Struct, frozen=True):
    """One of the places where nodes run."""

    name: str
    answers: Annotated[bool, Meta(description="Whether it answers; a node that runs there goes on either way.")]
    places: Annotated[int, Meta(description="Nodes that may run there at once; 0 while it does not answer.")]
    free: Annotated[int, Meta(description="Places that no node takes; 0 while it does not answer.")]
    note: str = ""
    not_enforced: Annotated[list[str], Meta(description="Limits of a tier that nodes there are not held to.")] = []


class NodesAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where nodes run."""

    note: str
    akash_network: str
    available: Annotated[bool, Meta(description="Whether a session could be bought now.")]
    not_enforced: Annotated[list[str], Meta(description="Limits of a tier that nodes here are not held to.")]
    price_usd_per_hour: Annotated[
        dict[str, float], Meta(description="What an hour of each tier costs, wherever the node runs.")
    ] = {}
    backends: Annotated[list[BackendAnswer], Meta(description="Where, the preferred one first.")] = []
    cannot_sell: Annotated[list[ReasonAnswer], Meta(description="Why not; left out when one could be bought.")] = []
    free_at: Annotated[
        float | None,
        Meta(description="Unix seconds: when the next place comes free if nobody adds time; where all are taken."),
    ] = None
    usual_start_s: Annotated[
        float | None,
        Meta(description="From payment to the node's first answer: the median of the latest starts; left out before."),
    ] = None
    longest_start_s: Annotated[
        float,
        Meta(description="So long after the payment a start is given up, and all of it is sent back."),
    ] = 0.0


class IdentityAnswer(msgspec.Struct, frozen=True):
    """The gateway's own key, which signs its answers to signed requests."""

    hotkey: Hotkey
    public_key: Annotated[str, Meta(description="The same key, 64 hex digits.")] = ""
    scheme: str = ""
    sig_versions: list[int] = []
    environment: str = ""
    version: str = ""


class TermsAnswer(msgspec.Struct, frozen=True):
    """What a buyer may rely on."""

    terms_url: str
    min_hours: float
    max_hours: float
    live_sessions_per_hotkey: int
    payment_flow: str
    paid_time: str
    refunds: str
    refund_terms: Annotated[PublishedTerms, Meta(description="The same for programs, as in every 402.")]
    early_stop: str
    early_stop_refund_percent: Annotated[
        int, Meta(description="Part of the remaining time's price that goes back when the owner stops.", ge=0, le=100)
    ]


ENDED: Final = frozenset({"stopped", "expired", "failed"})


class SessionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A compute session. Times are unix seconds."""

    session_id: str
    controller_hotkey: Hotkey
    status: Annotated[
        str,
        Meta(
            description="payment_pending, provisioning, active, degraded, stopping, stopped, expired or failed.",
        ),
    ]
    created_at: UnixSeconds
    expires_at: Annotated[
        float, Meta(description="Unix seconds; until the session is active, when it would end if it became active now.")
    ]
    node_endpoint: str | None = None
    node_hotkey: Hotkey | None = None
    payment_tx: str | None = None
    network: NetworkName = ""
    amount_paid_usd: Usd = 0.0
    stats: Annotated[dict[str, object], Meta(description="What was last learned from the node.")] = {}
    error: str | None = None
    remaining_seconds: Annotated[float, Meta(ge=0)]
    tier: str = ""
    payment_id: str = ""
    end_reason: str | None = None
    stats_age_s: float | None = None
    emptied_at: Annotated[
        float | None,
        Meta(
            description="Unix seconds; when the node lost its machine and began again elsewhere, empty: what was "
            "stored before is gone, store it again. Null: nothing was lost."
        ),
    ] = None
    restored_at: Annotated[
        float | None, Meta(description="Unix seconds; when you said that you restored what was lost at `emptied_at`.")
    ] = None
    memory: Annotated[
        str,
        Meta(
            description="kept: nothing was lost. lost: the node began again empty; restore your export "
            "(`engram miner guard`), then POST /sessions/{session_id}/restored. restored: you have done that."
        ),
    ] = "kept"

    @property
    def ended(self) -> bool:
        """Whether the session is over for good."""
        return self.status in ENDED


class BoughtAnswer(SessionAnswer, frozen=True, kw_only=True):
    """A session that was paid for, or is being paid for (`code` payment_pending: come back after Retry-After)."""

    payment_status: str = ""
    code: Annotated[str, Meta(description="accepted, or payment_pending.")] = ""


class SessionsAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A hotkey's sessions, the newest first."""

    sessions: list[SessionAnswer]
    open_payments: Annotated[
        list[str],
        Meta(
            description="Payments of the hotkey whose outcome is not known yet, for sessions and for more time. "
            "Sign no other one while there are any."
        ),
    ] = []


class StoppedAnswer(msgspec.Struct, frozen=True):
    """The session stops and stays stopped."""

    stopped: bool
    session_id: str


class NodeSignatureAnswer(msgspec.Struct, frozen=True):
    """The hotkey's signature of a node's statement."""

    signature: Annotated[str, Meta(description="128 hex digits.")]


class TicketAnswer(msgspec.Struct, frozen=True):
    """Opens the event stream for a client that cannot send headers (a browser's EventSource)."""

    ticket: str
    expires_in_s: int
    url: Annotated[str, Meta(description="Path and query of the stream, ready for EventSource.")]


class PaymentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A payment and what became of it."""

    payment_id: str
    session_id: str
    kind: str
    status: Annotated[
        str,
        Meta(
            description="reserved, settling, settled, rejected, unknown, void, refund_due, refunding or refunded.",
        ),
    ]
    amount_usd: Usd
    network: NetworkName
    transaction: str | None = None
    reason: str | None = None
    created_at: UnixSeconds = 0.0
    settled_at: UnixSeconds | None = None
    refunds: list["RefundAnswer"] = []


class RefundAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One part of what goes back to the payer."""

    number: int
    status: str
    amount_usd: Usd
    reason: str
    transaction: str | None


class OrderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An order that whoever has its link can pay, once."""

    order: Annotated[str, Meta(description="The order, signed by the gateway. Whoever has it can pay it, no more.")]
    url: Annotated[str, Meta(description="The app's page that pays it; empty where this gateway serves no app.")]
    expires_at: UnixSeconds
    amount_usd: Usd
    network: NetworkName
    recipient: str
    tier: str
    duration_hours: float
    session_id: Annotated[str | None, Meta(description="The session that gets more time; null for a new one.")]


class OrderStatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order, for the key that made it."""

    status: Annotated[str, Meta(description="open, pending, paid or expired.")]
    expires_at: UnixSeconds
    amount_usd: Usd
    session_id: Annotated[str | None, Meta(description="The session that was paid for; null before that.")] = None
    payment_id: str | None = None
    payer: Annotated[str | None, Meta(description="The address that paid, which gets refunds.")] = None


class LinkPaymentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The payment of an order, for the one who pays: send the same payment again to read it anew."""

    code: Annotated[str, Meta(description="accepted, or payment_pending.")]
    payment_status: str
    payment_id: str
    amount_usd: Usd
    network: NetworkName
    payer: Annotated[str, Meta(description="The address that paid; refunds go back to it.")]
    transaction: str | None
    refunds: list[RefundAnswer] = []


class SpendingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an address owns of the token that is paid with."""

    address: str
    network: NetworkName
    amount: Annotated[str | None, Meta(description="Atomic units (6 decimals); null: this gateway cannot know.")]
    faucet: Annotated[bool, Meta(description="Whether POST …/faucet gives play money here.")]


class NodeSignatureBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /node-signatures: what a node states, signed by its certified session key."""

    certificate: Annotated[str, Meta(max_length=2_048)]
    statement: Annotated[
        object,
        Meta(
            description="`type` root or possession, and the fields that the node signs itself.",
            extra_json_schema={"type": "object"},
        ),
    ]
    sent_at_ms: Annotated[int, Meta(ge=0, lt=2**53, description="Unix milliseconds, 30 s either way.")]
    signature: Annotated[str, Meta(max_length=128, description="128 hex digits, by the session key.")]


class CreateSessionBody(msgspec.Struct, frozen=True):
    """The body of POST /sessions. What is no tier and no number is refused by the rules, in their words."""

    tier: Annotated[object, Meta(description="lite, standard or pro.", extra_json_schema={"type": "string"})] = (
        "standard"
    )
    duration_hours: Hours = 1.0


class RestoredBody(msgspec.Struct, frozen=True):
    """The body of POST /sessions/{session_id}/restored."""

    emptied_at: Annotated[float, Meta(description="As the session showed it: which loss it was.")]


class MakeOrderBody(msgspec.Struct, frozen=True):
    """The body of POST /orders: a new session, or more time for the one that is named."""

    tier: Annotated[
        object, Meta(description="lite, standard or pro; of a new session.", extra_json_schema={"type": "string"})
    ] = "standard"
    duration_hours: Hours = 1.0
    session_id: Annotated[str, Meta(max_length=64)] | None = None


class OrderBody(msgspec.Struct, frozen=True):
    """An order as POST /orders returned it."""

    order: Annotated[str, Meta(max_length=2_048)]


TransferId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="Follows from the code: 32 hex digits.")]


class LeaveIdentityBody(msgspec.Struct, frozen=True):
    """The body of POST /transfers: an identity, encrypted for whoever has the code."""

    id: TransferId
    sealed: Annotated[str, Meta(pattern="^[A-Za-z0-9+/=]+$", max_length=2_048, description="Base64.")]


class LeftIdentityAnswer(msgspec.Struct, frozen=True):
    """It is kept."""

    expires_at: Annotated[float, Meta(description="Unix seconds; it is dropped then.")]


class TransferAnswer(msgspec.Struct, frozen=True):
    """What became of the identity that was left last."""

    id: TransferId
    taken: Annotated[bool, Meta(description="Whether somebody with the code has it.")]
    expires_at: Annotated[float, Meta(description="Unix seconds; it is forgotten some time after that.")]


class TakeIdentityBody(msgspec.Struct, frozen=True):
    """The body of POST /transfers/take."""

    id: TransferId


class TakenIdentityAnswer(msgspec.Struct, frozen=True):
    """What was kept, which is gone by now."""

    sealed: str


class ExtendSessionBody(msgspec.Struct, frozen=True):
    """The body of POST /sessions/{session_id}/extend."""

    duration_hours: Hours = 1.0
