"""What a memory node takes and answers, field by field, in the words of the original Engram.

A field that may be left out is UNSET where it is not there; None is a null on the wire, and the two are never the
same. Every answer has the fields whose default is not UNSET; those defaults are for clients, to which an older node or
a miner of the original may not say everything. Numbers are seconds, counts or shares of 1 unless they name a unit.

Requests describe what a node looks at. A node reads bodies as `engram.hotkeys.python_json` does, for signatures cover
their very bytes, and holds the fields against `engram.memory.rules`, whose texts clients rely on.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

T = TypeVar("T")

Maybe: TypeAlias = T | UnsetType
"""A field that may be left out."""


def doc(text: str, **more: Any) -> Meta:
    """Describe a type, as Meta's `description`."""
    return Meta(description=text, **more)


Kind: TypeAlias = Literal["record", "conversation", "key_share", "attestation"]
"""What an export gives, in its order."""

_ABSENT_FORM: Final = "`keyed-1`, the default, or the original's `legacy`."

Metadata: TypeAlias = dict[str, Annotated[object, Meta(extra_json_schema={"type": "string"})]]
"""A node keeps values as text; clients take what miners of the original give."""
Vector: TypeAlias = list[float]
Base64 = Annotated[str, doc("The vector as base64 of f32 little-endian bytes.")]
Cursor = Annotated[str | None, doc("`next` of the page before; null: the beginning.")]
Cids = Annotated[list[str], Meta(min_length=1, max_length=256)]
Form = Annotated[str, doc(_ABSENT_FORM, extra_json_schema={"enum": ["keyed-1", "legacy"]})]
Padding: TypeAlias = Maybe[Annotated[str, doc("Fills the answer about a private namespace up.")]]
Exported = Annotated[
    dict[str, object],
    Meta(
        extra_json_schema={
            "required": ["kind", "id"],
            "properties": {"kind": {"type": "string"}, "id": {"type": "integer"}},
        }
    ),
]
Certificate: TypeAlias = Maybe[
    Annotated[str, doc("By the hotkey, of the session key that signed; left out where the hotkey itself signed.")]
]
Text = Annotated[str, doc("Shown to its owner and to the node's controller.")]
Key: TypeAlias = Annotated[
    str, Meta(max_length=256, description="Names a fact: the record supersedes the earlier ones with this key.")
]
Supersedes: TypeAlias = Annotated[str, doc("The CID of one more record that it supersedes.")]
ExpiresAt: TypeAlias = Annotated[float, doc("Unix seconds from which on searches do not find it.")]
SupersededBy: TypeAlias = Annotated[str, doc("Of a record from an export: the CID of what had superseded it there.")]


def known(value: Maybe[T]) -> T | None:
    """Return the value of a field, None where it was left out."""
    return None if isinstance(value, UnsetType) else value


# ------------------------------------------------------------------------------------------------------- requests


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """The fields by which a body is signed, each of them optional where signatures are."""

    hotkey: Maybe[Annotated[str, doc("SS58 of the signer.")]] = UNSET
    nonce: Maybe[Annotated[int, doc("Unix milliseconds, 30 s either way.")]] = UNSET
    signature: Maybe[
        Annotated[str, doc("sr25519 in hex over `{nonce}:{endpoint}:{sha256 of the canonical body}`.")]
    ] = UNSET
    signed_for: Maybe[Annotated[str, doc("SS58 of the one node that may take the request.")]] = UNSET


class Named(Signed, frozen=True, kw_only=True):
    """The fields by which a namespace is named, and the right to it shown."""

    namespace: Maybe[Annotated[str, doc("A private namespace; left out: the public one.")]] = UNSET
    namespace_hotkey: Maybe[str] = UNSET
    namespace_sig: Maybe[str] = UNSET
    namespace_timestamp_ms: Maybe[Annotated[int, doc("60 s either way.")]] = UNSET
    namespace_sig_version: Maybe[
        Annotated[Literal[2], doc("Left out: version 1, good for the request that it comes with first.")]
    ] = UNSET
    namespace_key: Maybe[Annotated[str, Meta(min_length=16, description="Opens a namespace without a signature.")]] = (
        UNSET
    )


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A text or a vector to store."""

    text: Maybe[str] = UNSET
    raw_embedding: Maybe[Vector] = UNSET
    raw_embedding_b64: Maybe[Base64] = UNSET
    metadata: Maybe[dict[str, object]] = UNSET
    model_version: Maybe[str] = UNSET
    key: Maybe[Key] = UNSET
    supersedes: Maybe[Supersedes] = UNSET
    expires_at: Maybe[ExpiresAt] = UNSET
    superseded_by: Maybe[SupersededBy] = UNSET


class Ingest(Named, frozen=True, kw_only=True):
    """POST /IngestSynapse: the fields of an Item, and who may see it."""

    text: Maybe[str] = UNSET
    raw_embedding: Maybe[Vector] = UNSET
    raw_embedding_b64: Maybe[Base64] = UNSET
    metadata: Maybe[dict[str, object]] = UNSET
    model_version: Maybe[str] = UNSET
    key: Maybe[Key] = UNSET
    supersedes: Maybe[Supersedes] = UNSET
    expires_at: Maybe[ExpiresAt] = UNSET
    superseded_by: Maybe[SupersededBy] = UNSET
    receipt: Annotated[bool, doc("true: the answer has a signed receipt.")] = False


class IngestBatch(Named, frozen=True, kw_only=True):
    """POST /IngestBatch. What is named and signed holds for all items."""

    items: Maybe[Annotated[list[Item], Meta(min_length=1, max_length=256)]] = UNSET


class Query(Named, frozen=True, kw_only=True):
    """POST /QuerySynapse."""

    query_text: Maybe[str] = UNSET
    query_vector: Maybe[Vector] = UNSET
    query_vector_b64: Maybe[str] = UNSET
    top_k: Annotated[int, Meta(ge=1, le=100)] = 10
    filter: Maybe[dict[str, object]] = UNSET
    mode: Maybe[
        Annotated[
            Literal["vector", "words", "hybrid"],
            doc("vector: also by windows of long texts; words: by words; hybrid: both. Left out: by own vectors."),
        ]
    ] = UNSET
    diversity: Maybe[Annotated[float, Meta(ge=0, le=1, description="0: by relevance alone; 1: by variety.")]] = UNSET
    recency: Maybe[Annotated[float, Meta(ge=1, description="Half-life in seconds by which newer ones count more.")]] = (
        UNSET
    )
    history: Annotated[bool, doc("true: superseded and expired records too.")] = False


class List(Named, frozen=True, kw_only=True):
    """POST /list."""

    filter: Maybe[dict[str, object]] = UNSET
    limit: Maybe[Annotated[int, Meta(le=200)]] = UNSET
    offset: Maybe[Annotated[int, doc("Skips records that move up after a deletion; `after` does not.")]] = UNSET
    after: Maybe[Cursor] = UNSET
    key: Maybe[Annotated[str, Meta(max_length=256, description="Only the versions of this key.")]] = UNSET


class LookUp(Named, frozen=True, kw_only=True):
    """POST /LookupBatch."""

    key: str = "_ref"
    values: Maybe[Annotated[list[str], Meta(min_length=1, max_length=256)]] = UNSET
    whole: Annotated[bool, doc("false: CIDs and values, without text and metadata.")] = True
    limit: Maybe[Annotated[int, Meta(le=500)]] = UNSET
    after: Maybe[Cursor] = UNSET


class DeleteBatch(Named, frozen=True, kw_only=True):
    """POST /DeleteBatch."""

    cids: Maybe[Cids] = UNSET


class Delete(Named, frozen=True, kw_only=True):
    """DELETE /retrieve/{cid}: the signed body names the CID of the path."""

    cid: Maybe[str] = UNSET
    receipt: Annotated[bool, doc("true: the answer has a signed receipt.")] = False


class Repair(Signed, frozen=True, kw_only=True):
    """POST /RepairSynapse."""

    cid: Maybe[str] = UNSET


class Challenge(Named, frozen=True, kw_only=True):
    """POST /ChallengeSynapse."""

    cid: Maybe[str] = UNSET
    nonce_hex: Maybe[str] = UNSET
    expires_at: Maybe[int] = UNSET
    validator_hotkey_hex: Maybe[str] = UNSET
    version: Maybe[Literal[1, 2]] = UNSET


class Prove(Named, frozen=True, kw_only=True):
    """POST /prove-memory."""

    cid: Maybe[str] = UNSET
    embedding_hash: Maybe[str] = UNSET
    form: Maybe[Form] = UNSET


class PutKeyShare(Named, frozen=True, kw_only=True):
    """POST /KeyShareSynapse."""

    share_index: Maybe[int] = UNSET
    share_hex: Maybe[str] = UNSET
    threshold: Maybe[int] = UNSET
    total: Maybe[int] = UNSET
    replace: Maybe[bool] = UNSET


class GetKeyShare(Named, frozen=True, kw_only=True):
    """POST /KeyShareRetrieve."""


class Attest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /AttestNamespace, signed by fields of its own."""

    namespace: Maybe[str] = UNSET
    owner_hotkey: Maybe[str] = UNSET
    signature: Maybe[str] = UNSET
    timestamp_ms: Maybe[int] = UNSET


class Export(Signed, frozen=True, kw_only=True):
    """POST /export-stream."""

    after: Maybe[int] = UNSET
    kind: Maybe[Kind] = UNSET


class ExportPage(Export, frozen=True, kw_only=True):
    """POST /export."""

    limit: Maybe[int] = UNSET


class Certify(msgspec.Struct, frozen=True, kw_only=True):
    """POST /certificate."""

    certificate: Annotated[str, Meta(max_length=2_048)]
    sealed: Annotated[str, Meta(max_length=16_384, description="Base64 of secrets sealed to the node's box key.")] = ""


class Message(msgspec.Struct, frozen=True):
    """A message to save."""

    role: str
    content: str
    ts: Maybe[float | str | None] = UNSET


class DeleteConversation(Signed, frozen=True, kw_only=True):
    """DELETE /conversations/{conv_id}: the signed body names the one of the path."""

    user_id: Maybe[str] = UNSET
    conv_id: Maybe[str] = UNSET


class SaveChat(DeleteConversation, frozen=True, kw_only=True):
    """POST /chat-history."""

    messages: Maybe[list[Message]] = UNSET


class MakeConversation(DeleteConversation, frozen=True, kw_only=True):
    """POST /conversations."""

    title: Maybe[str] = UNSET


class RenameConversation(DeleteConversation, frozen=True, kw_only=True):
    """PATCH /conversations/{conv_id}: the signed body names the one of the path."""

    title: Maybe[str] = UNSET


# -------------------------------------------------------------------------------------------------------- answers


class Padded(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that may be about a private namespace."""

    padding: Padding = msgspec.field(name="_p", default=UNSET)


class Failure(Padded, frozen=True, kw_only=True):
    """Every error: `error` is for people, `code` for programs."""

    error: str
    code: Maybe[str] = UNSET
    request_id: Maybe[str] = UNSET
    field: Maybe[Annotated[str, doc("With code misplaced_field: the field that is refused.")]] = UNSET


class Noise(msgspec.Struct, frozen=True):
    """Gaussian noise on private vectors, and its epsilon at `delta`: above 10 or so it protects nothing."""

    sigma: float
    epsilon: float
    delta: float


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """GET /health."""

    status: str = ""
    ready: Annotated[bool, doc("Index and embedder have each answered once.")] = True
    vectors: Annotated[int, doc("Public records.")] = 0
    launch_token: str = ""
    session_id: str = ""
    boot_id: str = ""
    started_at: float = 0.0
    hotkey: str = ""
    uid: Annotated[int | None, doc("On the subnet as last read; null where it has none.")] = None
    embedder: str = ""
    index: Annotated[str, Meta(extra_json_schema={"enum": ["ready", "loading"]})] = "ready"
    dimension: int = 0
    version: str = ""
    protocol: Annotated[int, doc("What the node speaks with its gateway; 1 where it is not there.")] = 1
    noise: Annotated[Noise | None, doc("On private vectors; null: none.")] = None


class Introduced(msgspec.Struct, frozen=True, kw_only=True):
    """GET /identity. `key` signs for the node: its hotkey, or a session key that `certificate` ties to the hotkey."""

    protocol: int = 1
    hotkey: str
    key: str
    box_key: Annotated[str, doc("64 hex digits (X25519); empty where the node has its hotkey.")] = ""
    session_id: str
    launch_token: str
    signature: Annotated[str, doc("128 hex digits: by `key`, over the nonce and these fields.")]
    certificate: Annotated[str | None, doc("null: the hotkey itself signs, or none has come yet.")] = None


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """POST /certificate."""

    accepted: bool


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


class SignedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the node claims about a record that it stored or deleted; see `engram.memory.proof.receipts`."""

    searchable: Annotated[bool, doc("A search finds the record now.")]
    root_hex: Annotated[str, doc("The root over the namespace, after the record was stored or deleted.")]
    count: int
    at_ms: int
    signed: Annotated[
        str,
        doc(
            "`engram-receipt-1:{stored or deleted}:{namespace}:{cid}:{owner}:{sha256 of the key}:{searchable or "
            "not-searchable}:{root}:{count}:{unix ms}`; owner and key are empty where there is none."
        ),
    ]
    signature: Annotated[str, doc("By the hotkey; where there is a certificate, by its session key.")]
    certificate: Certificate = UNSET
    proof: Annotated[str, doc("JSON in a string: that the record is under the root, or that it is not.")]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a text or vector that was to be stored."""

    cid: str | None = None
    error: str | None = None
    code: Maybe[str] = UNSET
    owner: Maybe[
        Annotated[str | None, doc("SS58 of who may delete it besides the controller; null: it was stored unsigned.")]
    ] = UNSET
    owner_reason: Maybe[
        Annotated[
            str,
            doc(
                "Why it is not the sender's: unsigned, stored_first_unsigned, stored_first_by_other, or signature_ and "
                "what is wrong with it: stale, future, before_start, replayed, wrong, incomplete, malformed."
            ),
        ]
    ] = UNSET
    text_kept: Maybe[
        Annotated[bool, doc("false: another text with the same vector and metadata is there already, and stays.")]
    ] = UNSET
    searchable: Maybe[Annotated[bool, doc("false: it is stored, and will be found once the index has it.")]] = UNSET
    current: Maybe[
        Annotated[bool, doc("Where key, supersedes or expires_at was sent, and holds: whether searches find it.")]
    ] = UNSET
    truncated: Maybe[Annotated[bool, doc("true: the vector is of the first `tokens_used` of the text's `tokens`.")]] = (
        UNSET
    )
    tokens: Maybe[int] = UNSET
    tokens_used: Maybe[int] = UNSET
    tokens_searchable: Maybe[
        Annotated[int, doc("How many of them a search with `mode` finds now: the rest follows, at most 7,664 in all.")]
    ] = UNSET
    superseded_by: Maybe[Annotated[str, doc("It is there already, superseded by this CID: give it a key anew.")]] = (
        UNSET
    )


class Ingested(Result, frozen=True, kw_only=True):
    """POST /IngestSynapse."""

    receipt: Maybe[
        Annotated[SignedReceipt | None, doc("Where one was asked for; null: it is stored, and cannot be signed now.")]
    ] = UNSET
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
    text: Maybe[Text] = UNSET
    key: Maybe[Key] = UNSET
    supersedes: Maybe[Supersedes] = UNSET
    expires_at: Maybe[ExpiresAt] = UNSET
    superseded_by: Maybe[Annotated[str, doc("The CID of the record that superseded it.")]] = UNSET


class Retrieved(Record, frozen=True, kw_only=True):
    """GET /retrieve/{cid}."""

    windows: Maybe[
        Annotated[
            Literal["there", "to come", "none"],
            doc("With `windows=true`: whether searches with a mode find a long text whole; none: it has none."),
        ]
    ] = UNSET
    padding: Padding = msgspec.field(name="_p", default=UNSET)


class Hit(Record, frozen=True, kw_only=True):
    """A record that was found; `score` is the cosine, of its best window where `mode` looks at windows."""

    score: Annotated[float, Meta(extra_json_schema={"minimum": -1, "maximum": 1})] = 0.0
    relevance: Maybe[Annotated[float, doc("What the hits are ordered by; only with mode, diversity or recency.")]] = (
        UNSET
    )
    trust_tier: str = ""


class Found(Padded, frozen=True, kw_only=True):
    """POST /QuerySynapse."""

    results: list[Hit] = []
    latency_ms: float = 0.0
    error: str | None = None
    code: Maybe[str] = UNSET


class Commitment(msgspec.Struct, frozen=True, kw_only=True):
    """A root and its count, signed by the node. `built_at` is unix seconds."""

    root_hex: str
    count: int
    built_at: float = 0.0
    hotkey: str = ""
    form: str = ""
    signed: Annotated[str, doc("`engram-commitment:{form}:{namespace}:{root}:{count}:{unix ms}`.")]
    signature: Annotated[str, doc("By the hotkey; where there is a certificate, by its session key.")]
    certificate: Certificate = UNSET


class Root(Commitment, frozen=True, kw_only=True):
    """GET /commitment."""

    padding: Padding = msgspec.field(name="_p", default=UNSET)


class Proved(Commitment, frozen=True, kw_only=True):
    """POST /prove-memory."""

    padding: Padding = msgspec.field(name="_p", default=UNSET)
    cid: str = ""
    included: Maybe[Annotated[bool, doc("Not with the legacy form, which shows presence only.")]] = UNSET
    proof: Annotated[str, doc("JSON in a string.")]


class Listed(Record, frozen=True, kw_only=True):
    """A record of a page; its `embedding_hash`, the SHA-256 (hex) that roots cover, where a cursor walks."""

    embedding_hash: Maybe[str] = UNSET


class Listing(Padded, frozen=True, kw_only=True):
    """POST /list: by `offset`, or with `next` and `commitment` by a cursor; `commitment` is null where the namespace
    changes faster than it is read."""

    records: list[Listed]
    count: int = 0
    offset: Maybe[int] = UNSET
    limit: int = 0
    next: Maybe[str | None] = UNSET
    commitment: Maybe[Commitment | None] = UNSET


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was looked up: whole, or by its CID and the value that it was found by."""

    cid: str
    metadata: Maybe[Metadata] = UNSET
    text: Maybe[Text] = UNSET
    value: Maybe[str] = UNSET


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
    code: Maybe[str] = UNSET


class DeletedBatch(Padded, frozen=True, kw_only=True):
    """POST /DeleteBatch: a result for each CID, in their order."""

    results: list[DeletedResult]
    deleted: int = 0
    error: str | None = None


class Deleted(Padded, frozen=True, kw_only=True):
    """DELETE /retrieve/{cid}."""

    deleted: bool
    cid: str = ""
    receipt: Maybe[
        Annotated[SignedReceipt | None, doc("Where one was asked for; null: it is deleted, and cannot be signed now.")]
    ] = UNSET


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """POST /RepairSynapse: a public record with its vector."""

    cid: str
    embedding: Vector
    metadata: Metadata = {}


class StorageProof(Padded, frozen=True, kw_only=True):
    """POST /ChallengeSynapse: `embedding_hash` and `proof` in the first form, everything else in the second."""

    embedding_hash: Maybe[str] = UNSET
    version: Maybe[int] = UNSET
    cid: Maybe[str] = UNSET
    namespace: Maybe[str] = UNSET
    proof: Annotated[str, doc("64 hex digits.")]
    root_hex: Maybe[str] = UNSET
    count: Maybe[int] = UNSET
    expires_at: Maybe[int] = UNSET
    miner: Maybe[str] = UNSET
    signature: Maybe[str] = UNSET
    certificate: Certificate = UNSET
    inclusion: Annotated[object, Meta(extra_json_schema={"type": "object"})] = UNSET
    """An `engram.memory.proof.keyed_tree.Shown`."""


class Possession(msgspec.Struct, frozen=True, kw_only=True):
    """A StorageProof of the second form, to those who check it."""

    proof: str
    root_hex: str
    count: int
    signature: str
    certificate: Certificate = UNSET
    inclusion: object


class ExportedPage(msgspec.Struct, frozen=True, kw_only=True):
    """POST /export. Documents are named field by field in `engram.memory.upkeep.export_pages`."""

    records: list[Exported]
    count: int = 0
    next: int | None


class ExportedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of POST /export-stream: a document with its own fields, or the end."""

    kind: str


class ExportEnd(ExportedLine, frozen=True, kw_only=True):
    """The last line: how many documents came, and the root over all that the node holds; null with the reason in
    `error` where records are damaged."""

    count: int
    commitment: Commitment | None = None
    error: Maybe[str] = UNSET


class Kept(Padded, frozen=True, kw_only=True):
    """POST /KeyShareSynapse."""

    stored: bool = False


class KeyShare(Padded, frozen=True, kw_only=True):
    """POST /KeyShareRetrieve."""

    share_index: Annotated[int, Meta(ge=1, le=255)]
    share_hex: Annotated[str, Meta(min_length=2, max_length=131_072)]
    threshold: Annotated[int, Meta(ge=2, le=255)]
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
    owner_hotkey: Maybe[str] = UNSET
    trust_tier: str
    stake_tao: Maybe[float] = UNSET
    attested_at: Maybe[float] = UNSET
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
    info: Maybe[dict[str, object]] = UNSET
    paths: Maybe[dict[str, object]] = UNSET
    components: Maybe[dict[str, object]] = UNSET
