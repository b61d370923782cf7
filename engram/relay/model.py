"""What is relayed: payloads, and the entries of the outbox that carries them.

Field order is the order on the wire, as the original sends it. A `scores` payload is what a validator found in a
round, of schema engram-v1; a `memory` payload is what the gateway knows of the nodes it runs: in engram-v2 with the
root that each node signed, in engram-v1 without. All bear the same envelope and are signed the same way, so that one
rule verifies all.
"""

import enum
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

SCHEMA_VERSION = "engram-v1"
SCHEMA_VERSION_2 = "engram-v2"


class MinerScore(msgspec.Struct, frozen=True):
    """What a validator found of one miner. Shares are of 1; `latency_ms` is None when it was never measured."""

    recall: float
    latency_ms: float | None
    proof_rate: float


class ScoresPayload(msgspec.Struct, frozen=True, kw_only=True):
    """One scoring round; the original's payload, field for field. `scores` is by uid as text, unrounded."""

    schema_version: str = SCHEMA_VERSION
    netuid: int
    block: int
    round_ts: float
    """Unix seconds."""
    output_hash: str
    nonce: str
    scores: dict[str, MinerScore]


class SignedRoot(msgspec.Struct, frozen=True, kw_only=True):
    """A node's commitment to its public records, as the node signed it (docs/node-keys.md).

    Signed is `engram-commitment:{form}:{namespace}:{root_hex}:{count}:{at_ms}`, by the hotkey; where there is a
    certificate, by its session key.
    """

    form: Annotated[str, Meta(max_length=16)]
    namespace: Annotated[str, Meta(max_length=256)]
    root_hex: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    count: Annotated[int, Meta(ge=0, lt=2**53)]
    at_ms: Annotated[int, Meta(ge=0, lt=2**53)]
    """Unix milliseconds, by the node's clock."""
    signature: Annotated[str, Meta(max_length=132)]
    certificate: Annotated[str, Meta(max_length=2_048)] | None = None

    @property
    def message(self) -> bytes:
        """What is signed."""
        return f"engram-commitment:{self.form}:{self.namespace}:{self.root_hex}:{self.count}:{self.at_ms}".encode()


class NodeMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows of one node; None for what the node has not reported yet."""

    vectors: int | None = None
    root_hex: str | None = None
    """Merkle commitment over the node's public records; that of `root`."""
    queries_today: int | None = None
    p50_latency_ms: float | None = None
    proof_rate: float | None = None
    """Share of 1."""
    uptime_pct: float | None = None
    root: SignedRoot | UnsetType | None = UNSET
    """Not there in engram-v1; null: the node gave none in this round."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool of an MCP server said for a payload, or why it said nothing."""

    server: str
    """Host and port."""
    tool: str
    called_at: float
    """Unix seconds."""
    took_ms: int
    status: str
    """`ok`, `tool_error` (the tool says that it failed) or `failed` (no usable answer in time)."""
    content: str
    """The result of `tools/call` as JSON, its first 16,384 characters; of a failed call, why."""
    content_sha256: str
    """Of the whole result, in hex; empty where there is none."""


class MemoryPayload(msgspec.Struct, frozen=True, kw_only=True):
    """The memory held by managed nodes, by node hotkey (ss58). Names no session and no controller."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["memory"] = "memory"
    netuid: int
    block: int
    round_ts: float
    """Unix seconds."""
    output_hash: str
    nonce: str
    nodes: dict[str, NodeMemory]
    tool: ToolCall | UnsetType = UNSET
    """Not there in engram-v1, and where no tool is configured. The signature covers it, the output's hash does not."""


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A miner's place: 1 is the best."""

    uid: Annotated[int, Meta(ge=0, lt=2**16)]
    hotkey: Annotated[str, Meta(max_length=66)]
    """ss58"""
    rank: Annotated[int, Meta(ge=1)]
    weight: Annotated[float, Meta(ge=0, le=1)]
    """Share of all weights."""


class RankingPayload(msgspec.Struct, frozen=True, kw_only=True):
    """The order of a subnet's miners in one round, by the weights that a validator set, the best first."""

    schema_version: str = "engram-v2"
    kind: Literal["ranking"] = "ranking"
    netuid: int
    block: int
    round_ts: float
    """Unix seconds."""
    output_hash: str
    nonce: str
    ranking: list[Ranked]


class GapPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Stands in a stream for a payload that was parked: the receiver will not get it unless an operator retries it."""

    schema_version: str = "engram-v2"
    kind: Literal["gap"] = "gap"
    netuid: int
    block: int
    round_ts: float
    """Unix seconds at which it was parked."""
    output_hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """Of the payload that is missing."""
    nonce: str
    parked: str
    """Kind of the payload that is missing."""
    reason: str


class AnchorPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Says that the root over output hashes stands on the chain; one for each stream that has leaves in it."""

    schema_version: str = "engram-v2"
    kind: Literal["anchor"] = "anchor"
    netuid: int
    block: int
    """Of the commitment."""
    round_ts: float
    """Unix seconds."""
    output_hash: str
    nonce: str
    anchored: str
    """Kind of the stream."""
    epoch: int
    root: str
    """RFC 6962 root over `leaves`, in hex."""
    leaves: list[str]
    """Output hashes of all streams under this root."""
    first: int
    """Place of the stream's first leaf."""
    count: int
    """Leaves of the stream."""


Payload = ScoresPayload | MemoryPayload | RankingPayload | AnchorPayload


class EntryState(enum.StrEnum):
    """Where an entry of the outbox stands."""

    PENDING = "pending"
    """Waits for its (next) attempt."""
    SENDING = "sending"
    """An attempt was begun and its outcome is not written yet."""
    DELIVERED = "delivered"
    ABANDONED = "abandoned"
    """A dead letter: refused for good, or out of attempts. Kept until the operator retries or discards it."""
    DISCARDED = "discarded"
    WITHDRAWN = "withdrawn"
    """Never sent: its block is not on the chain that became final, or another payload of this block was signed."""


class Enqueued(enum.StrEnum):
    """What became of a payload that was to be queued."""

    QUEUED = "queued"
    KNOWN = "known"
    """Its nonce was queued before; the outbox has it."""
    REFUSED = "refused"
    """The outbox is full: the payload is lost unless its source keeps it."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the outbox."""

    id: int
    kind: str
    nonce: str
    output_hash: str
    block: int
    payload: bytes
    signed: bytes | None
    signed_hash: str | None
    state: EntryState
    attempts: int
    next_attempt_at: float
    last_reason: str | None
    created_at: float
    updated_at: float
    stream_id: int = 0
    seq: int = 0
    block_hash: bytes | None = None


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """Payloads of one kind and subnet, delivered in their order."""

    id: int
    netuid: int
    kind: str
    signer: str
    """ss58; empty: the process's own key."""
    pending: int
    parked: int
    next_attempt_at: float
    last_ok_at: float | None
    last_ok_hash: str | None


class LogLine(msgspec.Struct, frozen=True):
    """One attempt as it was recorded."""

    entry_id: int
    output_hash: str
    block: int
    status: str
    http_status: int | None
    at: float
    anchor: str = ""
    """Of one that delivered what is anchored: `anchored` (its anchor is delivered), `committed` (its root is on the
    chain), `committing`, `waiting`, or why it will not be."""


class Answered(msgspec.Struct, frozen=True):
    """The receiver answered; `retry_after_s` is its Retry-After, None without one."""

    http_status: int
    retry_after_s: float | None = None


class Unreachable(msgspec.Struct, frozen=True):
    """Nothing left this machine."""

    reason: str


class Unknown(msgspec.Struct, frozen=True):
    """Sent, and no answer came: the receiver may hold it."""

    reason: str


Outcome = Answered | Unreachable | Unknown


class RelayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the relay stands; the original's fields and what an operator needs beside them.

    `total_ok` and `total_failed` count the attempts.
    """

    enabled: bool
    outbox_pending: int
    dlq_pending: int
    """Of those pending, the ones that have failed at least once."""
    dlq_abandoned: int
    withdrawn: int = 0
    """Never sent, of those that are kept (7 days): another payload of the block was signed, or the block is another."""
    discarded: int = 0
    """Given up, of those that are kept (7 days): gap markers that were refused, and dead letters by the operator."""
    total_ok: int
    total_failed: int
    last_ok_hash: str | None
    last_ok_at: float | None
    oldest_pending_at: float | None
    failures_in_a_row: int
    """Since the process started."""
    not_queued: int
    """Payloads that never reached the outbox, since the process started; the log says why."""
    held_back: str = ""
    """Why nothing is sent at present; empty: the receiver is well."""
    acknowledged_by: str = ""
    """Key (ss58) that signed the last acknowledgement since the process started; see relay.receiver_key."""
    receiver_pinned: bool = False
    """Whether relay.receiver_key is set; else whoever answers at relay.url is believed."""
    not_anchored: str = ""
    """Why what is delivered stays `accepted`; empty: it is anchored in time."""
    acknowledgement_lag_s: float | None = None
    """From queueing to acknowledgement of the payload that was delivered last."""
