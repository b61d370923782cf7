"""What a memory node takes and answers, field by field, in the words of the original Engram.

A field that may be left out is UNSET where it is not there; None is a null on the wire, and the two are never the
same. Every answer has the fields whose default is not UNSET; those defaults are for clients, to which an older node or
a miner of the original may not say everything. Numbers are seconds, counts or shares of 1 unless they name a unit.

Requests describe what a node looks at. A node reads bodies as `engram.hotkeys.python_json` does, for signatures cover
their very bytes, and holds the fields against `engram.memory.rules`, whose texts clients rely on.
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

Kind: TypeAlias = Literal["record", "conversation", "key_share", "attestation"]
"""What an export gives, in its order."""

_ABSENT_FORM: Final = "`keyed-1`, the default, or the original's `legacy`."

Metadata: TypeAlias = dict[str, Annotated[object, Meta(extra_json_schema={"type": "string"})]]
"""A node keeps values as text; clients take what miners of the original give."""
Vector: TypeAlias = list[float]
Base64 = Annotated[str, Meta(description="The vector as base64 of f32 little-endian bytes.")]
Cursor = Annotated[str | None, Meta(description="`next` of the page before; null: the beginning.")]
Cids = Annotated[list[str], Meta(min_length=1, max_length=256)]
Form = Annotated[str, Meta(description=_ABSENT_FORM, extra_json_schema={"enum": ["keyed-1", "legacy"]})]
Padding: TypeAlias = Annotated[str, Meta(description="Fills the answer about a private namespace up.")] | UnsetType
Exported = Annotated[
    dict[str, object],
    Meta(
        extra_json_schema={
            "required": ["kind", "id"],
            "properties": {"kind": {"type": "string"}, "id": {"type": "integer"}},
        }
    ),
]
Text = Annotated[str, Meta(description="Shown to its owner and to the node's controller.")]


# ------------------------------------------------------------------------------------------------------- requests


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """The fields by which a body is signed, each of them optional where signatures are."""

    hotkey: Annotated[str, Meta(description="SS58 of the signer.")] | UnsetType = UNSET
    nonce: Annotated[int, Meta(description="Unix milliseconds, 30 s either way.")] | UnsetType = UNSET
    signature: (
        Annotated[str, Meta(description="sr25519 in hex over `{nonce}:{endpoint}:{sha256 of the canonical body}`.")]
        | UnsetType
    ) = UNSET
    signed_for: Annotated[str, Meta(description="SS58 of the one node that may take the request.")] | UnsetType = UNSET


class Named(Signed, frozen=True, kw_only=True):
    """The fields by which a namespace is named, and the right to it shown."""

    namespace: Annotated[str, Meta(description="A private namespace; left out: the public one.")] | UnsetType = UNSET
    namespace_hotkey: str | UnsetType = UNSET
    namespace_sig: str | UnsetType = UNSET
    namespace_timestamp_ms: Annotated[int, Meta(description="60 s either way.")] | UnsetType = UNSET
    namespace_sig_version: (
        Annotated[Literal[2], Meta(description="Left out: version 1, good for the request that it comes with first.")]
        | UnsetType
    ) = UNSET
    namespace_key: (
        Annotated[str, Meta(min_length=16, description="Opens a namespace without a signature.")] | UnsetType
    ) = UNSET


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A text or a vector to store."""

    text: str | UnsetType = UNSET
    raw_embedding: Vector | UnsetType = UNSET
    raw_embedding_b64: Base64 | UnsetType = UNSET
    metadata: dict[str, object] | UnsetType = UNSET
    model_version: str | UnsetType = UNSET


class Ingest(Named, frozen=True, kw_only=True):
    """POST /IngestSynapse: the fields of an Item, and who may see it."""

    text: str | UnsetType = UNSET
    raw_embedding: Vector | UnsetType = UNSET
    raw_embedding_b64: Base64 | UnsetType = UNSET
    metadata: dict[str, object] | UnsetType = UNSET
    model_version: str | UnsetType = UNSET


class IngestBatch(Named, frozen=True, kw_only=True):
    """POST /IngestBatch. What is named and signed holds for all items."""

    items: Annotated[list[Item], Meta(min_length=1, max_length=256)] | UnsetType = UNSET


class Query(Named, frozen=True, kw_only=True):
    """POST /QuerySynapse."""

    query_text: str | UnsetType = UNSET
    query_vector: Vector | UnsetType = UNSET
    query_vector_b64: str | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=1, le=100)] = 10
    filter: dict[str, object] | UnsetType = UNSET


class List(Named, frozen=True, kw_only=True):
    """POST /list."""

    filter: dict[str, object] | UnsetType = UNSET
    limit: Annotated[int, Meta(le=200)] | UnsetType = UNSET
    offset: (
        Annotated[int, Meta(description="Skips records that move up after a deletion; `after` does not.")] | UnsetType
    ) = UNSET
    after: Cursor | UnsetType = UNSET


class LookUp(Named, frozen=True, kw_only=True):
    """POST /LookupBatch."""

    key: str = "_ref"
    values: Annotated[list[str], Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    whole: Annotated[bool, Meta(description="false: CIDs and values, without text and metadata.")] = True
    limit: Annotated[int, Meta(le=500)] | UnsetType = UNSET
    after: Cursor | UnsetType = UNSET


class DeleteBatch(Named, frozen=True, kw_only=True):
    """POST /DeleteBatch."""

    cids: Cids | UnsetType = UNSET


class Delete(Named, frozen=True, kw_only=True):
    """DELETE /retrieve/{cid}: the signed body names the CID of the path."""

    cid: str | UnsetType = UNSET


class Repair(Signed, frozen=True, kw_only=True):
    """POST /RepairSynapse."""

    cid: str | UnsetType = UNSET


class Challenge(Named, frozen=True, kw_only=True):
    """POST /ChallengeSynapse."""

    cid: str | UnsetType = UNSET
    nonce_hex: str | UnsetType = UNSET
    expires_at: int | UnsetType = UNSET
    validator_hotkey_hex: str | UnsetType = UNSET
    version: Literal[1, 2] | UnsetType = UNSET


class Prove(Named, frozen=True, kw_only=True):
    """POST /prove-memory."""

    cid: str | UnsetType = UNSET
    embedding_hash: str | UnsetType = UNSET
    form: Form | UnsetType = UNSET


class PutKeyShare(Named, frozen=True, kw_only=True):
    """POST /KeyShareSynapse."""

    share_index: int | UnsetType = UNSET
    share_hex: str | UnsetType = UNSET
    threshold: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
    replace: bool | UnsetType = UNSET


class GetKeyShare(Named, frozen=True, kw_only=True):
    """POST /KeyShareRetrieve."""


class Attest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /AttestNamespace, signed by fields of its own."""

    namespace: str | UnsetType = UNSET
    owner_hotkey: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    timestamp_ms: int | UnsetType = UNSET


class Export(Signed, frozen=True, kw_only=True):
    """POST /export-stream."""

    after: int | UnsetType = UNSET
    kind: Kind | UnsetType = UNSET


class ExportPage(Export, frozen=True, kw_only=True):
    """POST /export."""

    limit: int | UnsetType = UNSET


class Message(msgspec.Struct, frozen=True):
    """A message to save."""

    role: str
    content: str
    ts: float | str | UnsetType | None = UNSET


class DeleteConversation(Signed, frozen=True, kw_only=True):
    """DELETE /conversations/{conv_id}: the signed body names the one of the path."""

    user_id: str | UnsetType = UNSET
    conv_id: str | UnsetType = UNSET


class SaveChat(DeleteConversation, frozen=True, kw_only=True):
    """POST /chat-history."""

    messages: list[Message] | UnsetType = UNSET


class MakeConversation(DeleteConversation, frozen=True, kw_only=True):
    """POST /conversations."""

    title: str | UnsetType = UNSET


class RenameConversation(DeleteConversation, frozen=True, kw_only=True):
    """PATCH /conversations/{conv_id}: the signed body names the one of the path."""

    title: str | UnsetType = UNSET


# -------------------------------------------------------------------------------------------------------- answers


class Padded(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that may be about a private namespace."""

    padding: Padding = msgspec.field(name="_p", default=UNSET)


class Failure(Padded, frozen=True, kw_only=True):
    """Every error: `error` is for people, `code` for programs."""

    error: str
    code: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
    field: Annotated[str, Meta(description="With code misplaced_field: the field that is refused.")] | UnsetType = UNSET


class Noise(msgspec.Struct, frozen=True):
    """Gaussian noise on private vectors, and its epsilon at `delta`: above 10 or so it protects nothing."""

    sigma: float
    epsilon: float
    delta: float


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """GET /health."""

    status: str = ""
    ready: Annotated[bool, Meta(description="Index and embedder have each answered once.")] = True
    vectors: Annotated[int, Meta(description="Public records.")] = 0
    launch_token: str = ""
    session_id: str = ""
    boot_id: str = ""
    started_at: float = 0.0
    hotkey: str = ""
    uid: Annotated[int | None, Meta(description="On the subnet as last read; null where it has none.")] = None
    embedder: str = ""
    index: Annotated[str, Meta(extra_json_schema={"enum": ["ready", "loading"]})] = "ready"
    dimension: int = 0
    version: str = ""
    noise: Annotated[Noise | None, Meta(description="On private vectors; null: none.")] = None


class NodeStats(msgspec.Struct, frozen=True, kw_only=True):
    """GET /stats. Null is not known to the node either; rates are shares of 1, times milliseconds."""

    status: str = "ok"
    vectors: int = 0
    peers: int | None = None
    uid: int | None = None
    queries_today: int = 0
    p50_latency_ms: float | None = None
    proof_rate: float | None = None
    uptime_pct: float | None = None
    block: int | None = None
    avg_score: float | None = None
    hotkey: str | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a text or vector that was to be stored."""

    cid: str | None = None
    error: str | None = None
    code: str | UnsetType = UNSET
    owner: (
        Annotated[
            str | None,
            Meta(description="SS58 of who may delete it besides the controller; null: it was stored unsigned."),
        ]
        | UnsetType
    ) = UNSET
    owner_reason: (
        Annotated[
            str,
            Meta(
                description="Why it is not the sender's: unsigned, stored_first_unsigned, stored_first_by_other, or "
                "signature_ and what is wrong with it: stale, future, before_start, replayed, wrong, incomplete, "
                "malformed."
            ),
        ]
        | UnsetType
    ) = UNSET
    text_kept: (
        Annotated[
            bool,
            Meta(description="false: another text with the same vector and metadata is there already, and stays."),
        ]
        | UnsetType
    ) = UNSET
    searchable: (
        Annotated[bool, Meta(description="false: it is stored, and will be found once the index has it.")] | UnsetType
    ) = UNSET
    truncated: (
        Annotated[bool, Meta(description="true: the vector is of the first `tokens_used` of the text's `tokens`.")]
        | UnsetType
    ) = UNSET
    tokens: int | UnsetType = UNSET
    tokens_used: int | UnsetType = UNSET


class Ingested(Result, frozen=True, kw_only=True):
    """POST /IngestSynapse."""

    padding: Padding = msgspec.field(name="_p", default=UNSET)


class IngestedBatch(Padded, frozen=True, kw_only=True):
    """POST /IngestBatch: a result for each item, in their order."""

    results: list[Result]
    stored: int = 0
    error: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record as its reader may see it."""

    cid: str
    metadata: Metadata = {}
    text: Text | UnsetType = UNSET


class Retrieved(Record, frozen=True, kw_only=True):
    """GET /retrieve/{cid}."""

    padding: Padding = msgspec.field(name="_p", default=UNSET)


class Hit(Record, frozen=True, kw_only=True):
    """A record that was found; `score` is the cosine."""

    score: Annotated[float, Meta(extra_json_schema={"minimum": -1, "maximum": 1})] = 0.0
    trust_tier: str = ""


class Found(Padded, frozen=True, kw_only=True):
    """POST /QuerySynapse."""

    results: list[Hit] = []
    latency_ms: float = 0.0
    error: str | None = None
    code: str | UnsetType = UNSET


class Commitment(msgspec.Struct, frozen=True, kw_only=True):
    """A root and its count, signed by the node. `built_at` is unix seconds."""

    root_hex: str
    count: int
    built_at: float = 0.0
    hotkey: str = ""
    form: str = ""
    signed: Annotated[str, Meta(description="`engram-commitment:{form}:{namespace}:{root}:{count}:{unix ms}`.")]
    signature: str


class Root(Commitment, frozen=True, kw_only=True):
    """GET /commitment."""

    padding: Padding = msgspec.field(name="_p", default=UNSET)


class Proved(Commitment, frozen=True, kw_only=True):
    """POST /prove-memory."""

    padding: Padding = msgspec.field(name="_p", default=UNSET)
    cid: str = ""
    included: Annotated[bool, Meta(description="Not with the legacy form, which shows presence only.")] | UnsetType = (
        UNSET
    )
    proof: Annotated[str, Meta(description="JSON in a string.")]


class Listed(Record, frozen=True, kw_only=True):
    """A record of a page; its `embedding_hash`, the SHA-256 (hex) that roots cover, where a cursor walks."""

    embedding_hash: str | UnsetType = UNSET


class Listing(Padded, frozen=True, kw_only=True):
    """POST /list: by `offset`, or with `next` and `commitment` by a cursor; `commitment` is null where the namespace
    changes faster than it is read."""

    records: list[Listed]
    count: int = 0
    offset: int | UnsetType = UNSET
    limit: int = 0
    next: str | UnsetType | None = UNSET
    commitment: Commitment | UnsetType | None = UNSET


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was looked up: whole, or by its CID and the value that it was found by."""

    cid: str
    metadata: Metadata | UnsetType = UNSET
    text: Text | UnsetType = UNSET
    value: str | UnsetType = UNSET


class References(Padded, frozen=True, kw_only=True):
    """POST /LookupBatch."""

    records: list[Reference]
    count: int = 0
    next: str | None = None


class DeletedResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a record that was to be deleted."""

    cid: str = ""
    deleted: bool
    error: str | None = None
    code: str | UnsetType = UNSET


class DeletedBatch(Padded, frozen=True, kw_only=True):
    """POST /DeleteBatch: a result for each CID, in their order."""

    results: list[DeletedResult]
    deleted: int = 0
    error: str | None = None


class Deleted(Padded, frozen=True, kw_only=True):
    """DELETE /retrieve/{cid}."""

    deleted: bool
    cid: str = ""


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """POST /RepairSynapse: a public record with its vector."""

    cid: str
    embedding: Vector
    metadata: Metadata = {}


class StorageProof(Padded, frozen=True, kw_only=True):
    """POST /ChallengeSynapse: `embedding_hash` and `proof` in the first form, everything else in the second."""

    embedding_hash: str | UnsetType = UNSET
    version: int | UnsetType = UNSET
    cid: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET
    proof: Annotated[str, Meta(description="64 hex digits.")]
    root_hex: str | UnsetType = UNSET
    count: int | UnsetType = UNSET
    expires_at: int | UnsetType = UNSET
    miner: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    inclusion: Annotated[object, Meta(extra_json_schema={"type": "object"})] = UNSET
    """An `engram.memory.proof.keyed_tree.Shown`."""


class ExportedPage(msgspec.Struct, frozen=True, kw_only=True):
    """POST /export. Documents are named field by field in `engram.memory.upkeep.export_pages`."""

    records: list[Exported]
    count: int = 0
    next: int | None


class ExportedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of POST /export-stream: a document, or the end with its count and root."""

    kind: str


class Kept(Padded, frozen=True, kw_only=True):
    """POST /KeyShareSynapse."""

    stored: bool = False


class KeyShare(Padded, frozen=True, kw_only=True):
    """POST /KeyShareRetrieve."""

    share_index: int
    share_hex: str
    threshold: int
    total: int


class Attested(msgspec.Struct, frozen=True, kw_only=True):
    """POST /AttestNamespace."""

    ok: bool
    namespace: str
    trust_tier: str
    stake_tao: float


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """GET /attestation/{namespace}; `attested_at` is unix seconds."""

    namespace: str
    owner_hotkey: str | UnsetType = UNSET
    trust_tier: str
    stake_tao: float | UnsetType = UNSET
    attested_at: float | UnsetType = UNSET
    attested: bool


class Neuron(msgspec.Struct, frozen=True, kw_only=True):
    """A neuron of the subnet; without an axon its `ip` is 0.0.0.0."""

    uid: int
    hotkey: str
    ip: str
    port: int
    incentive: float


class SubnetView(msgspec.Struct, frozen=True, kw_only=True):
    """GET /metagraph: the subnet as last read; without a chain there are no neurons and no block."""

    neurons: list[Neuron]
    block: int | None


class SavedMessage(msgspec.Struct, frozen=True):
    """A message of a conversation. `ts` is what the client sent, or when it was saved first (unix seconds)."""

    role: str
    content: str
    ts: float | str | None


class ChatHistory(msgspec.Struct, frozen=True, kw_only=True):
    """GET /chat-history/{user_id}."""

    user_id: str
    conv_id: str
    messages: list[SavedMessage]


class SavedChat(msgspec.Struct, frozen=True, kw_only=True):
    """POST /chat-history."""

    ok: bool
    user_id: str
    conv_id: str
    count: int


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation without its messages. Times are unix seconds."""

    conv_id: str
    title: str
    created_at: float
    updated_at: float


class Conversations(msgspec.Struct, frozen=True, kw_only=True):
    """GET /conversations/{user_id}."""

    user_id: str
    conversations: list[Conversation]


class MadeConversation(msgspec.Struct, frozen=True, kw_only=True):
    """POST /conversations."""

    ok: bool
    conv_id: str
    title: str
    created_at: float
    updated_at: float


class RenamedConversation(msgspec.Struct, frozen=True, kw_only=True):
    """PATCH /conversations/{conv_id}."""

    ok: bool
    conv_id: str
    title: str


class DeletedConversation(msgspec.Struct, frozen=True, kw_only=True):
    """DELETE /conversations/{conv_id}."""

    deleted: bool
    conv_id: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """GET /openapi.json."""

    openapi: str
    info: dict[str, object] | UnsetType = UNSET
    paths: dict[str, object] | UnsetType = UNSET
    components: dict[str, object] | UnsetType = UNSET
