"""A walk past every endpoint of a node, and what of each answer a client may rely on, byte for byte but for chance."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import trio

from engram.clock import ManualClock
from engram.hotkeys import Keypair, miner_scheme
from engram.http.asgi import AsgiApp
from tests.memory.stores import DIMENSION
from tests.miner.nodes import CONTROLLER, NODE, STRANGER

UP: Final = [1.0] + [0.0] * (DIMENSION - 1)
ABSENT: Final = "v1::" + "0" * 64
KEY: Final = "0123456789abcdef"
CHANCE: Final = frozenset({"signature", "request_id", "latency_ms", "p50_latency_ms", "uptime_pct"})
"""Fields whose values no two runs share."""

Noted = dict[str, Any]
Fields = Mapping[str, Any]


async def call(app: AsgiApp, method: str, target: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Answer one request by an ASGI application: status, headers, body."""
    path, _, query = target.partition("?")
    status, headers, content = 0, dict[str, str](), bytearray()

    sent = False

    async def receive() -> Any:
        nonlocal sent
        if sent:
            await trio.sleep_forever()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update((name.decode(), value.decode()) for name, value in message["headers"])
        else:
            content.extend(message["body"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"node"), (b"content-length", str(len(body)).encode())],
        "client": ("192.0.2.1", 1),
        "server": ("node", 80),
        "state": {},
    }
    await app(scope, receive, send)
    return status, headers, bytes(content)


class Walk:
    """Calls a node, and notes what it answered."""

    def __init__(self, app: AsgiApp, clock: ManualClock) -> None:
        self.noted: list[Noted] = []
        self._app = app
        self._stamp_ms = int(clock.now() * 1000)

    async def all(self) -> list[Noted]:
        """Calls every endpoint in its good and its bad ways."""
        await self._what_is_open()
        cid = await self._records({})
        await self._records({"namespace": "notes"})
        await self._opened_by_a_key()
        await self._proofs(cid)
        await self._shares_and_attestations()
        await self._conversations()
        await self._exports(cid)
        await self._deletions(cid)
        await self._broken()
        return self.noted

    async def refusals(self) -> list[Noted]:
        """Calls every endpoint that takes a body without a signature."""
        for path in POSTED:
            for fields in _each({}, {"namespace": "notes"}):
                await self._plain("POST", path, fields)
        await self._plain("GET", "/commitment")
        await self._plain("GET", "/commitment?namespace=notes")
        await self._plain("GET", f"/retrieve/{ABSENT}?namespace=notes")
        return self.noted

    async def _what_is_open(self) -> None:
        for path in ("/health", "/stats", "/metagraph", "/openapi.json", "/commitment", "/attestation/notes"):
            for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
                await self._plain(method, path)
        for path in ("/", "/nothing", "/health/", "/ListSynapse", "/IngestSynapse/", "/retrieve/", "/retrieve//a"):
            await self._plain("GET", path)
            await self._plain("POST", path, {})

    async def _records(self, named: Fields) -> str:
        cid = json.loads(await self._signed("/IngestSynapse", {"text": "a", "metadata": {"n": 1}, **named}))["cid"]
        for fields in _each(
            {"text": "A", "metadata": {"n": 1}},
            {"raw_embedding": UP, "metadata": {"_ref": "r"}},
            {"raw_embedding_b64": "AAAA"},
            {"raw_embedding": [1.0]},
            {"text": 5},
            {"text": "x" * 9_000},
            {"text": "a", "metadata": 5},
            {"text": "a", "metadata": {"m": "x" * 5_000}},
            {"text": "a", "owner": "me"},
            {},
        ):
            await self._signed("/IngestSynapse", {**fields, **named})
        items = [{"text": "c"}, {"raw_embedding": UP}, {"raw_embedding": [1.0]}, {}, 5, {"text": "é" * 100}]
        for fields in _each({"items": items}, {"items": []}, {"items": 5}, {}, {"items": [{"namespace": "x"}]}):
            await self._signed("/IngestBatch", {**fields, **named})
        for fields in _each(
            {"query_text": "a"},
            {"query_vector": UP, "top_k": 1, "filter": {"n": 1}},
            {"query_vector": UP, "filter": {"n": {"$gt": 1}}},
            {"query_vector": [1.0]},
            {"query_text": "a", "top_k": 101},
            {"query_text": "a", "top_k": "x"},
            {},
        ):
            await self._signed("/QuerySynapse", {**fields, **named})
        for fields in _each({}, {"limit": 1, "after": None}, {"limit": 2, "offset": 1}, {"filter": {"n": 1}}):
            await self._signed("/list", {**fields, **named})
        for fields in _each(
            {"after": "x"}, {"after": None, "offset": 1}, {"limit": "x"}, {"limit": 201}, {"offset": -1}
        ):
            await self._signed("/list", {**fields, **named})
        for fields in _each({"values": ["r"]}, {"key": "n", "values": ["1"], "whole": False, "limit": 1}):
            await self._signed("/LookupBatch", {**fields, **named})
        for fields in _each(
            {}, {"values": []}, {"values": [1]}, {"values": ["r"], "whole": 1}, {"values": ["r"], "key": 1}
        ):
            await self._signed("/LookupBatch", {**fields, **named})
        for one in (cid, ABSENT, "x"):
            await self._queried(f"/retrieve/{one}", "retrieve", {"cid": one, **named}, "cid")
        return str(cid)

    async def _opened_by_a_key(self) -> None:
        opened = {"namespace": "by_key", "namespace_key": KEY}
        await self._plain("POST", "/IngestSynapse", {"text": "a", **opened})
        await self._plain("POST", "/QuerySynapse", {"query_text": "a", **opened})
        await self._plain("POST", "/list", {"namespace": "by_key"})
        await self._plain("POST", "/list", {"namespace": "by_key", "namespace_key": "short"})
        await self._plain("POST", "/list", {"namespace_key": KEY})
        await self._plain("POST", "/list", {"namespace": "by-key", "namespace_key": KEY})
        await self._plain("POST", "/list", {"namespace": 5})

    async def _proofs(self, cid: str) -> None:
        asked = {"cid": cid, "nonce_hex": "11" * 32, "expires_at": self._stamp_ms // 1000 + 60}
        for named in _each({}, {"namespace": "notes"}):
            for changed in _each(
                {},
                {"version": 2},
                {"version": 3},
                {"version": 2, "expires_at": 2**33},
                {"expires_at": 1},
                {"expires_at": "x"},
                {"nonce_hex": "x"},
                {"cid": ABSENT},
                {"cid": 5},
            ):
                await self._signed("/ChallengeSynapse", {**asked, **changed, **named})
            for fields in _each(
                {"cid": cid},
                {"cid": ABSENT},
                {"cid": "x"},
                {},
                {"cid": cid, "embedding_hash": "00"},
                {"cid": cid, "embedding_hash": "00", "form": "legacy"},
                {"cid": cid, "form": "legacy"},
                {"cid": cid, "form": "x"},
            ):
                await self._signed("/prove-memory", {**fields, **named})
            for parameters in _each({}, {"form": "legacy"}, {"scope": "all"}, {"scope": "x"}, {"form": "x"}):
                await self._queried("/commitment", "commitment", {**parameters, **named}, "")
        await self._plain("GET", "/commitment?form=legacy")
        await self._plain("GET", "/commitment?scope=all")
        await self._plain("GET", "/commitment?owner=x")

    async def _shares_and_attestations(self) -> None:
        share = {"share_index": 1, "share_hex": "ab", "threshold": 2, "total": 3}
        mine = {"namespace": "vault"}
        await self._signed("/KeyShareRetrieve", mine)
        await self._signed("/KeyShareSynapse", {**share, **mine})
        await self._signed("/KeyShareSynapse", {**share, **mine, "share_hex": "cd"})
        await self._signed("/KeyShareSynapse", {**share, **mine, "share_hex": "cd", "replace": True})
        for changed in _each({"share_hex": "x"}, {"share_index": 0}, {"threshold": 4}, {"replace": 1}, {"total": None}):
            await self._signed("/KeyShareSynapse", {**share, **mine, **changed})
        await self._signed("/KeyShareRetrieve", mine)
        await self._signed("/KeyShareRetrieve", {})
        await self._plain("POST", "/KeyShareRetrieve", mine)
        for keypair in (STRANGER, CONTROLLER):
            await self._plain("POST", "/AttestNamespace", miner_scheme.sign_attestation(keypair, "notes", self._next()))
        await self._plain("POST", "/AttestNamespace", miner_scheme.sign_attestation(STRANGER, "no-name", self._next()))
        for fields in _each({}, {"namespace": 5}, {"namespace": "n"}, {"namespace": "n", "namespace_key": KEY}):
            await self._plain("POST", "/AttestNamespace", fields)
        await self._plain("GET", "/attestation/notes")
        await self._plain("GET", "/attestation/a%2Fb")

    async def _conversations(self) -> None:
        chat = {"user_id": "u", "conv_id": "c"}
        await self._signed("/conversations", {**chat, "title": "t"}, "MakeConversation")
        await self._signed("/chat-history", {**chat, "messages": [{"role": "user", "content": "hi"}]}, "SaveChat")
        await self._signed("/chat-history", {**chat, "messages": [{"role": "user"}]}, "SaveChat")
        await self._signed("/chat-history", {**chat, "messages": 5}, "SaveChat")
        await self._signed("/chat-history", {"user_id": 5, "messages": []}, "SaveChat")
        await self._signed("/chat-history", {"user_id": "u", "messages": []}, "SaveChat")
        await self._plain("POST", "/chat-history", {**chat, "messages": []})
        await self._queried("/chat-history/u", "chat-history", chat, "user_id")
        await self._queried("/chat-history/v", "chat-history", {"user_id": "v"}, "user_id")
        await self._queried("/conversations/u", "conversations", {"user_id": "u"}, "user_id")
        await self._plain("GET", "/conversations/u")
        await self._plain("GET", "/chat-history/u?conv_id=c")
        for title in ("u", 5, ""):
            await self._signed("/conversations/c", {**chat, "title": title}, "RenameConversation", "PATCH")
        await self._signed("/conversations/d", {**chat, "title": "u"}, "RenameConversation", "PATCH")
        await self._signed("/conversations/d", {**chat, "conv_id": "d"}, "DeleteConversation", "DELETE")
        await self._signed("/conversations/c", chat, "DeleteConversation", "DELETE")
        await self._plain("PUT", "/conversations/c", chat)
        await self._plain("GET", "/chat-history")
        await self._plain("DELETE", "/chat-history/u", chat)

    async def _exports(self, cid: str) -> None:
        for fields in _each({}, {"limit": 1}, {"kind": "conversation"}, {"kind": "key_share"}, {"kind": "attestation"}):
            await self._signed("/export", fields)
            await self._signed("/export-stream", fields)
        for fields in _each({"after": -1}, {"kind": "x"}, {"limit": True}, {"namespace": "notes"}):
            await self._signed("/export", fields)
            await self._signed("/export-stream", fields)
        for path in ("/export", "/export-stream"):
            await self._signed(path, {}, keypair=STRANGER)
            await self._plain("POST", path, {})
        for fields in _each({"cid": cid}, {"cid": ABSENT}, {"cid": 5}, {}, {"cid": cid, "namespace": "notes"}):
            await self._signed("/RepairSynapse", fields)

    async def _deletions(self, cid: str) -> None:
        for named in _each({"namespace": "notes"}, {}):
            for keypair in (STRANGER, CONTROLLER):
                await self._signed("/DeleteBatch", {"cids": [ABSENT, "x"], **named}, keypair=keypair)
                for one in (cid, ABSENT):
                    path = f"/retrieve/{one}"
                    await self._signed(path, {"cid": one, **named}, "DeleteSynapse", "DELETE", keypair)
            for fields in _each({"cids": []}, {"cids": 5}, {}):
                await self._signed("/DeleteBatch", {**fields, **named})
            await self._signed(f"/retrieve/{cid}", {**named}, "DeleteSynapse", "DELETE")
        await self._plain("POST", "/DeleteBatch", {"cids": [cid]})
        await self._plain("DELETE", f"/retrieve/{cid}", {"cid": cid})

    async def _broken(self) -> None:
        bodies = [b"", b"[]", b"null", b"{", b'{"a":NaN}', b'{"a":1,"a":2}', b"\xff", b"[" * 3_000]
        for path in POSTED:
            for body in bodies:
                await self._noted("POST", path, body)
            await self._plain("POST", path, {"hotkey": CONTROLLER.ss58, "nonce": 1, "signature": "00" * 64})
            await self._plain("POST", path, {"namespace": "notes", "signed_for": NODE.ss58})
            await self._plain("POST", path, {"signed_for": STRANGER.ss58})
            await self._plain("POST", path, {"private": True})
            await self._plain("POST", f"{path}?namespace=notes", {})
            await self._plain("GET", path)
        for path in ("/conversations/c", f"/retrieve/{ABSENT}"):
            for body in bodies:
                await self._noted("DELETE", path, body)

    async def _signed(
        self, path: str, fields: Fields, endpoint: str = "", method: str = "POST", keypair: Keypair = CONTROLLER
    ) -> bytes:
        named = endpoint or path[1:]
        body = json.dumps(miner_scheme.sign_body(keypair, named, fields, self._next())).encode()
        who = "stranger" if keypair is STRANGER else "controller"
        return await self._noted(method, path, body, f"{who} {_short(fields)}")

    async def _queried(self, path: str, endpoint: str, fields: Fields, in_path: str) -> None:
        body = miner_scheme.sign_body(CONTROLLER, endpoint, fields, self._next())
        query = urlencode({name: value for name, value in body.items() if name != in_path})
        await self._noted("GET", f"{path}?{query}", b"", f"controller {_short(fields)}", shown=path)

    async def _plain(self, method: str, path: str, fields: Fields | None = None) -> bytes:
        body = b"" if fields is None else json.dumps(dict(fields)).encode()
        kept = {name: value for name, value in (fields or {}).items() if name not in ("signature", "timestamp_ms")}
        return await self._noted(method, path, body, "" if fields is None else _short(kept))

    async def _noted(self, method: str, path: str, body: bytes, what: str | None = None, shown: str = "") -> bytes:
        status, headers, content = await call(self._app, method, path, body)
        text = f"{method} {shown or path} {_cut(repr(body)) if what is None else what}"
        note: Noted = {"request": text.strip(), "status": status}
        kept = {name: value for name, value in headers.items() if name not in ("x-request-id", "content-length")}
        if kept.pop("content-type", "") not in ("", "application/json"):
            kept["content-type"] = headers["content-type"]
        if kept:
            note["headers"] = kept
        if path != "/openapi.json" and method != "HEAD" and content:
            lines = [_steady(json.loads(line), len(content)) for line in content.splitlines()]
            note["body"] = lines if kept.get("content-type") else lines[0]
        self.noted.append(note)
        return content

    def _next(self) -> int:
        self._stamp_ms += 1
        return self._stamp_ms


POSTED: Final = (
    "/IngestSynapse",
    "/IngestBatch",
    "/QuerySynapse",
    "/ChallengeSynapse",
    "/RepairSynapse",
    "/KeyShareSynapse",
    "/KeyShareRetrieve",
    "/AttestNamespace",
    "/list",
    "/LookupBatch",
    "/DeleteBatch",
    "/prove-memory",
    "/export",
    "/export-stream",
    "/chat-history",
    "/conversations",
)


def _each(*fields: Fields) -> tuple[Fields, ...]:
    return fields


def _steady(value: Any, size: int) -> Any:
    """A body as every run has it: chance blotted out, padding as the size that it makes up, numbers of vectors as how
    many there are."""
    if isinstance(value, dict):
        return {name: _field(name, each, size) for name, each in value.items()}
    if isinstance(value, list):
        return [_steady(each, size) for each in value]
    return value


def _field(name: str, value: Any, size: int) -> Any:
    if name == "_p":
        return f"padded to {size}"
    if name in CHANCE:
        return None if value is None else type(value).__name__
    if name == "embedding":
        return f"{len(value)} numbers"
    return _steady(value, size)


def _short(fields: Fields) -> str:
    return _cut(json.dumps({name: "UP" if value == UP else value for name, value in fields.items()}))


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:159] + "…"
