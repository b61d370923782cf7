"""Requests to every endpoint of a node as its people, and those who are none of them, might make them."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from engram.hotkeys import Keypair, miner_scheme
from tests.miner.isolation_model import GETS, OPEN, SPACED, Endpoint, Shown, cid_of, embedding
from tests.miner.nodes import CONTROLLER, encoded

PEOPLE = {
    "host": CONTROLLER,
    "anna": Keypair.from_seed(bytes([11]) * 32),
    "bert": Keypair.from_seed(bytes([12]) * 32),
    "eve": Keypair.from_seed(bytes([13]) * 32),
}
PATHS: dict[Endpoint, tuple[str, str, str]] = {
    "ingest": ("POST", "/IngestSynapse", "IngestSynapse"),
    "batch": ("POST", "/IngestBatch", "IngestBatch"),
    "query": ("POST", "/QuerySynapse", "QuerySynapse"),
    "windows": ("POST", "/QuerySynapse", "QuerySynapse"),
    "words": ("POST", "/QuerySynapse", "QuerySynapse"),
    "hybrid": ("POST", "/QuerySynapse", "QuerySynapse"),
    "list": ("POST", "/list", "list"),
    "retrieve": ("GET", "/retrieve/{cid}", "retrieve"),
    "delete": ("DELETE", "/retrieve/{cid}", "DeleteSynapse"),
    "challenge": ("POST", "/ChallengeSynapse", "ChallengeSynapse"),
    "challenge2": ("POST", "/ChallengeSynapse", "ChallengeSynapse"),
    "prove": ("POST", "/prove-memory", "prove-memory"),
    "root": ("GET", "/commitment", "commitment"),
    "whole": ("GET", "/commitment", "commitment"),
    "legacy root": ("GET", "/commitment", "commitment"),
    "put share": ("POST", "/KeyShareSynapse", "KeyShareSynapse"),
    "get share": ("POST", "/KeyShareRetrieve", "KeyShareRetrieve"),
    "walk": ("POST", "/list", "list"),
    "look up": ("POST", "/LookupBatch", "LookupBatch"),
    "delete batch": ("POST", "/DeleteBatch", "DeleteBatch"),
    "repair": ("POST", "/RepairSynapse", "RepairSynapse"),
    "export": ("POST", "/export", "export"),
    "export stream": ("POST", "/export-stream", "export-stream"),
    "save chat": ("POST", "/chat-history", "SaveChat"),
    "chat": ("GET", "/chat-history/u", "chat-history"),
    "chats": ("GET", "/conversations/u", "conversations"),
    "make chat": ("POST", "/conversations", "MakeConversation"),
    "rename chat": ("PATCH", "/conversations/c", "RenameConversation"),
    "delete chat": ("DELETE", "/conversations/c", "DeleteConversation"),
    "attest": ("POST", "/AttestNamespace", "AttestNamespace"),
    "attestation": ("GET", "/attestation/{name}", ""),
    "health": ("GET", "/health", ""),
    "stats": ("GET", "/stats", ""),
    "metagraph": ("GET", "/metagraph", ""),
    "metrics": ("GET", "/metrics", ""),
}
"""Method, path and the name by which it is signed."""

RIGHT = ("body", "v1", "v2", "v1+body", "v2+body", "key")
WRONG = ("none", "forged v1", "forged v2", "forged body", "stale v1", "stale v2", "crossed v2", "elsewhere body")
_PARAMETERS: dict[Endpoint, dict[str, str]] = {"whole": {"scope": "all"}, "legacy root": {"form": "legacy"}}
LONGER_THAN_ITS_VECTOR = 150
"""Characters of a stored text: its end is found by windows."""
_IN_PATH: dict[Endpoint, dict[str, str]] = {"chat": {"user_id": "u"}, "chats": {"user_id": "u"}}


class Draft(msgspec.Struct, frozen=True):
    """What somebody wants: `way` is how they show their right, `contents` and `cid` what it is about."""

    actor: str
    endpoint: Endpoint
    way: str
    name: str | None
    contents: tuple[int, ...]
    cid: str
    stamp: int
    """Unix milliseconds; no two requests share one. It numbers the signatures too."""


class Sent(msgspec.Struct, frozen=True):
    """A request as it goes out. `actor` is whose right it carries."""

    actor: str
    method: str
    path: str
    query: str
    body: bytes
    shown: Shown


def made(draft: Draft, stolen: Sent | None = None) -> Sent:
    """The request of a draft; with the namespace signature of another request, if one was stolen."""
    spaced = draft.endpoint in SPACED
    name = draft.name if spaced or draft.endpoint in ("attest", "attestation") else None
    secret = f"text {draft.stamp} of {draft.actor}"
    share = f"{draft.stamp:016x}"
    fields = _fields(draft, secret, share)
    shown = Shown(endpoint=draft.endpoint, name=name, cid=draft.cid, contents=draft.contents, text=secret, share=share)
    if draft.endpoint == "attest":
        fields, shown = _attesting(draft, shown)
    elif draft.endpoint not in OPEN:
        fields, shown = _named(draft, fields, shown, stolen) if name is not None else (fields, shown)
        fields, shown = _signed(draft, fields, shown)
    method, path, _ = PATHS[draft.endpoint]
    path = path.format(cid=draft.cid, name=draft.name or "notes")
    sent_by_path = set(_IN_PATH.get(draft.endpoint, {})) | ({"cid"} if draft.endpoint == "retrieve" else set())
    query, body = "", b""
    if draft.endpoint in GETS:
        query = urlencode({key: str(value) for key, value in fields.items() if key not in sent_by_path})
    elif method != "GET":
        body = encoded(fields)
    wire = b"%s %s?%s %s" % (method.encode(), path.encode(), query.encode(), body)
    shown = msgspec.structs.replace(
        shown, wire=wire, name=draft.name or "notes" if "attest" in draft.endpoint else name
    )
    return Sent(stolen.actor if stolen else draft.actor, method, path, query, body, shown)


def _fields(draft: Draft, secret: str, share: str) -> dict[str, Any]:
    def item(content: int) -> dict[str, Any]:
        return {"text": f"{content} {secret}".ljust(LONGER_THAN_ITS_VECTOR), "metadata": {"content": content}}

    match draft.endpoint:
        case "ingest":
            return item(draft.contents[0])
        case "batch":
            return {"items": [item(content) for content in draft.contents]}
        case "query":
            return {"query_vector": embedding(draft.contents[0]), "top_k": 100}
        case "windows":
            return {"query_vector": embedding(draft.contents[0]), "top_k": 100, "mode": "vector", "diversity": 0.4}
        case "words" | "hybrid":
            ranked = {"mode": draft.endpoint, "recency": 60}
            return {"query_vector": embedding(draft.contents[0]), "query_text": secret, "top_k": 100, **ranked}
        case "list" | "get share" | "export" | "export stream" | "root":
            return {}
        case "walk":
            return {"after": None}
        case "look up":
            return {"key": "content", "values": [str(content) for content in draft.contents]}
        case "delete batch":
            return {"cids": [cid_of(content) for content in draft.contents]}
        case "challenge" | "challenge2":
            version = 2 if draft.endpoint == "challenge2" else 1
            expires = draft.stamp // 1000 + 60
            return {"cid": draft.cid, "nonce_hex": "11" * 32, "expires_at": expires, "version": version}
        case "put share":
            return {"share_index": 1, "share_hex": share, "threshold": 2, "total": 3}
        case "save chat":
            said = {"role": "user", "content": secret, "ts": 1}
            return {"user_id": "u", "conv_id": "c", "messages": [said]}
        case "make chat" | "rename chat" | "delete chat":
            return {"user_id": "u", "conv_id": "c", "title": "talk"}
        case "chat":
            return {"user_id": "u", "conv_id": "c"}
        case "chats":
            return {"user_id": "u"}
        case _:
            return {"cid": draft.cid, **_PARAMETERS.get(draft.endpoint, {})}


def _named(draft: Draft, fields: dict[str, Any], shown: Shown, stolen: Sent | None) -> tuple[dict[str, Any], Shown]:
    """The fields with what shows a right to the namespace."""
    name, keypair, way = draft.name or "", PEOPLE[draft.actor], draft.way
    if stolen is not None:
        taken = {key: value for key, value in _all_fields(stolen).items() if key.startswith("namespace")}
        there = stolen.shown
        shown = msgspec.structs.replace(shown, namer=there.namer, stamp=there.stamp, name_is_wrong=there.name_is_wrong)
        return {**fields, **taken}, shown
    wrong = way.startswith(("forged", "stale", "crossed"))
    stamp = draft.stamp - 100_000 if way.startswith("stale") else draft.stamp
    endpoint = "other" if way.startswith("crossed") else PATHS[draft.endpoint][2]
    if "v1" in way:
        fields = {**fields, **miner_scheme.sign_namespace(keypair, name, stamp)}
        shown = msgspec.structs.replace(shown, namer=draft.actor, stamp=draft.stamp, name_is_wrong=wrong)
    elif "v2" in way:
        fields = dict(miner_scheme.sign_namespace_request(keypair, endpoint, name, fields, stamp))
        shown = msgspec.structs.replace(shown, namer=draft.actor, bound=draft.stamp, name_is_wrong=wrong)
    elif way == "key":
        fields = {**fields, "namespace": name, "namespace_key": f"the namespace key of {draft.actor}"}
        shown = msgspec.structs.replace(shown, key=f"key:{draft.actor}")
    else:
        fields = {**fields, "namespace": name}
    if way in ("forged v1", "forged v2"):
        fields["namespace_hotkey"] = PEOPLE["bert" if draft.actor == "anna" else "anna"].ss58
    return fields, shown


def _signed(draft: Draft, fields: dict[str, Any], shown: Shown) -> tuple[dict[str, Any], Shown]:
    """The fields with the signature of the whole of them, where the way has one."""
    if "body" not in draft.way:
        return fields, shown
    if draft.way == "elsewhere body":
        fields = {**fields, "signed_for": PEOPLE["bert"].ss58}
    fields = dict(miner_scheme.sign_body(PEOPLE[draft.actor], PATHS[draft.endpoint][2], fields, draft.stamp))
    shown = msgspec.structs.replace(
        shown, signer=draft.actor, body=draft.stamp, elsewhere=draft.way == "elsewhere body"
    )
    if draft.way == "forged body":
        fields["hotkey"] = PEOPLE["bert" if draft.actor == "anna" else "anna"].ss58
        shown = msgspec.structs.replace(shown, signer=None, body=0, body_is_wrong=True)
    return fields, shown


def _attesting(draft: Draft, shown: Shown) -> tuple[dict[str, Any], Shown]:
    wrong = draft.way.startswith(("forged", "stale"))
    stamp = draft.stamp - 100_000 if draft.way.startswith("stale") else draft.stamp
    fields = dict(miner_scheme.sign_attestation(PEOPLE[draft.actor], draft.name or "notes", stamp))
    if draft.way.startswith("forged"):
        fields["owner_hotkey"] = PEOPLE["bert" if draft.actor == "anna" else "anna"].ss58
    return fields, msgspec.structs.replace(shown, namer=draft.actor, name_is_wrong=wrong)


def _all_fields(sent: Sent) -> dict[str, Any]:
    if not sent.query:
        return dict(msgspec.json.decode(sent.body))
    fields: dict[str, Any] = dict(parse_qsl(sent.query))
    return fields | {"namespace_timestamp_ms": int(fields["namespace_timestamp_ms"])}
