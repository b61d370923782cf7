"""A memory node's endpoints: one row each.

Who may call what is in the bodies and queries themselves: `signed_as` is the operation that their signatures name, and
`engram.miner.authority` says which fields of authority it understands. What breaks a rule of the original's is
answered with 200 and a filled `error` (`rule_status`), for its clients rely on it.
"""

from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

from engram import __version__
from engram.api import node_model as model
from engram.api import openapi
from engram.api.route import Example, NoBody, Parameter, Response, Route

A = TypeVar("A")
Q = TypeVar("Q")

_SIGNING: Final = model.Signed.__struct_fields__
_NAMING: Final = (*model.Named.__struct_fields__[len(_SIGNING) :], *_SIGNING)
_REFUSED: Final = (Response(0, "Refused (4xx), or not now (503).", model.Failure),)


def _row(
    name: str,
    method: Literal["GET", "POST", "PATCH", "DELETE"],
    path: str,
    summary: str,
    request: type[Q],
    answer: type[A],
    *,
    signed_as: str = "",
    query: tuple[str, ...] = (),
    private: bool = False,
    failed: Example | None = None,
    rule_status: int = 400,
    stream: str = "",
    probe: bool = False,
) -> Route[Q, A]:
    return Route(
        name,
        method,
        path,
        summary,
        request,
        Response(200, "Done.", answer),
        _REFUSED,
        parameters=tuple(Parameter(name, "query") for name in query),
        stream=stream,
        failed=failed or {},
        rule_status=rule_status,
        signed_as=signed_as,
        private=private,
        body_required=False,
        hot=not probe,
        probe=probe,
    )


def _posted(
    name: str,
    path: str,
    summary: str,
    request: type[Q],
    answer: type[A],
    *,
    private: bool = True,
    failed: Example | None = None,
    rule_status: int = 400,
    stream: str = "",
) -> Route[Q, A]:
    """Return a POST row whose body is signed under the name of its path."""
    return _row(
        name,
        "POST",
        path,
        summary,
        request,
        answer,
        signed_as=path[1:],
        private=private,
        failed=failed,
        rule_status=rule_status,
        stream=stream,
    )


HEALTH: Final = _row("health", "GET", "/health", "Whether the node is up.", NoBody, model.Health, probe=True)
IDENTITY: Final = _row(
    "identity",
    "GET",
    "/identity",
    "By which key it signs, signed together with the nonce (64 hex digits).",
    NoBody,
    model.Introduced,
    query=("nonce_hex",),
)
CERTIFY: Final = _posted(
    "certify",
    "/certificate",
    "Take the certificate of its session key, which only its hotkey can sign.",
    model.Certify,
    model.Certified,
    private=False,
)
STATS: Final = _row("stats", "GET", "/stats", "Its work and its place.", NoBody, model.NodeStats, probe=True)
INGEST: Final = _posted(
    "ingest",
    "/IngestSynapse",
    "Store a text or a vector.",
    model.Ingest,
    model.Ingested,
    failed={"cid": None, "error": None},
    rule_status=200,
)
INGEST_BATCH: Final = _posted(
    "ingestBatch",
    "/IngestBatch",
    "Store up to 256 texts or vectors; a result for each.",
    model.IngestBatch,
    model.IngestedBatch,
    failed={"error": None, "results": []},
)
QUERY: Final = _posted(
    "query",
    "/QuerySynapse",
    "Find the nearest records by cosine.",
    model.Query,
    model.Found,
    failed={"results": [], "latency_ms": 0.0, "error": None},
    rule_status=200,
)
LIST: Final = _posted("list", "/list", "A page of a namespace.", model.List, model.Listing)
LOOK_UP: Final = _posted(
    "lookupBatch",
    "/LookupBatch",
    "Records whose metadata have one of up to 256 references.",
    model.LookUp,
    model.References,
)
DELETE_BATCH: Final = _posted(
    "deleteBatch",
    "/DeleteBatch",
    "Take up to 256 records out (signed); a result for each.",
    model.DeleteBatch,
    model.DeletedBatch,
    failed={"error": None, "results": []},
)
RETRIEVE: Final = _row(
    "retrieve",
    "GET",
    "/retrieve/{cid...}",
    "One record.",
    NoBody,
    model.Retrieved,
    signed_as="retrieve",
    query=("windows", *_NAMING),
    private=True,
)
DELETE: Final = _row(
    "delete",
    "DELETE",
    "/retrieve/{cid...}",
    "Take a record out (signed as DeleteSynapse).",
    model.Delete,
    model.Deleted,
    signed_as="DeleteSynapse",
    private=True,
)
REPAIR: Final = _posted(
    "repair",
    "/RepairSynapse",
    "A public record with its vector.",
    model.Repair,
    model.Repaired,
    private=False,
)
CHALLENGE: Final = _posted(
    "challenge",
    "/ChallengeSynapse",
    "Prove storage; by version 2 with the vector's bytes.",
    model.Challenge,
    model.StorageProof,
)
COMMITMENT: Final = _row(
    "commitment",
    "GET",
    "/commitment",
    "The signed root over a namespace.",
    NoBody,
    model.Root,
    signed_as="commitment",
    query=("form", "scope", *_NAMING),
    private=True,
)
PROVE_MEMORY: Final = _posted(
    "proveMemory",
    "/prove-memory",
    "Prove that a record is under the root, or that it is not.",
    model.Prove,
    model.Proved,
)
EXPORT: Final = _posted(
    "export",
    "/export",
    "Everything, page by page, for the controller: records, or what `kind` names.",
    model.ExportPage,
    model.ExportedPage,
    private=False,
)
EXPORT_STREAM: Final = _posted(
    "exportStream",
    "/export-stream",
    "The same in one answer, a JSON document a line; the last has kind end.",
    model.Export,
    model.ExportedLine,
    stream="application/x-ndjson",
    private=False,
)
PUT_KEY_SHARE: Final = _posted(
    "putKeyShare", "/KeyShareSynapse", "Keep a share of a namespace's key.", model.PutKeyShare, model.Kept
)
GET_KEY_SHARE: Final = _posted(
    "getKeyShare", "/KeyShareRetrieve", "Give the share back.", model.GetKeyShare, model.KeyShare
)
ATTEST: Final = _posted(
    "attest",
    "/AttestNamespace",
    "Stand for a namespace with one's stake.",
    model.Attest,
    model.Attested,
    private=False,
)
ATTESTATION: Final = _row(
    "attestation", "GET", "/attestation/{namespace...}", "Who stands for a namespace.", NoBody, model.Attestation
)
METAGRAPH: Final = _row("metagraph", "GET", "/metagraph", "The subnet as last read.", NoBody, model.SubnetView)
CHAT_HISTORY: Final = _row(
    "chatHistory",
    "GET",
    "/chat-history/{user_id...}",
    "A conversation (signed as chat-history).",
    NoBody,
    model.ChatHistory,
    signed_as="chat-history",
    query=("conv_id", *_SIGNING),
)
SAVE_CHAT: Final = _row(
    "saveChat",
    "POST",
    "/chat-history",
    "Keep a conversation's last 200 messages (signed as SaveChat).",
    model.SaveChat,
    model.SavedChat,
    signed_as="SaveChat",
)
CONVERSATIONS: Final = _row(
    "conversations",
    "GET",
    "/conversations/{user_id...}",
    "A user's conversations (signed as conversations).",
    NoBody,
    model.Conversations,
    signed_as="conversations",
    query=_SIGNING,
)
MAKE_CONVERSATION: Final = _row(
    "makeConversation",
    "POST",
    "/conversations",
    "Begin a conversation (signed as MakeConversation).",
    model.MakeConversation,
    model.MadeConversation,
    signed_as="MakeConversation",
)
RENAME_CONVERSATION: Final = _row(
    "renameConversation",
    "PATCH",
    "/conversations/{conv_id...}",
    "Give a conversation another title (signed as RenameConversation).",
    model.RenameConversation,
    model.RenamedConversation,
    signed_as="RenameConversation",
)
DELETE_CONVERSATION: Final = _row(
    "deleteConversation",
    "DELETE",
    "/conversations/{conv_id...}",
    "Forget a conversation (signed as DeleteConversation).",
    model.DeleteConversation,
    model.DeletedConversation,
    signed_as="DeleteConversation",
)
OPENAPI: Final = _row("openapi", "GET", "/openapi.json", "This document.", NoBody, model.Document)

ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    HEALTH,
    IDENTITY,
    CERTIFY,
    STATS,
    INGEST,
    INGEST_BATCH,
    QUERY,
    LIST,
    LOOK_UP,
    DELETE_BATCH,
    RETRIEVE,
    DELETE,
    REPAIR,
    CHALLENGE,
    COMMITMENT,
    PROVE_MEMORY,
    EXPORT,
    EXPORT_STREAM,
    PUT_KEY_SHARE,
    GET_KEY_SHARE,
    ATTEST,
    ATTESTATION,
    METAGRAPH,
    CHAT_HISTORY,
    SAVE_CHAT,
    CONVERSATIONS,
    MAKE_CONVERSATION,
    RENAME_CONVERSATION,
    DELETE_CONVERSATION,
    OPENAPI,
)


@lru_cache(maxsize=1)
def openapi_document() -> bytes:
    """Return the document as JSON; it never changes within a process."""
    return openapi.document(ROUTES, {"title": "Engram memory node", "version": __version__})
