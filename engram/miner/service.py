"""What a node answers: one function per endpoint, from the bytes of a body to an Answer. No HTTP framework here.

Clients of the original rely on HTTP 200 with a filled `error` where what they send breaks a rule; malformed
requests get 400, missing rights 401 or 403, a node that cannot answer now 503 with Retry-After. Never 500.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import final

import msgspec

from engram.clock import Clock
from engram.hotkeys import Keypair
from engram.hotkeys.python_json import JsonValue
from engram.memory import cid as cids
from engram.memory import merkle, proofs, rules
from engram.memory.commitment import Commitment
from engram.memory.embedder import Embedder
from engram.memory.errors import (
    EmbedderUnavailable,
    IndexUnavailable,
    InvalidInput,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    TruthUnavailable,
    WriteUnknown,
)
from engram.memory.model import PUBLIC, Entry, Record
from engram.memory.store import Store
from engram.miner.access import Caller, Gate
from engram.miner.errors import Refused
from engram.miner.statistics import Statistics
from engram.miner.storage import StorageGauge, cost_bytes
from engram.miner.uptime import Uptime

VERSION = "0.1.0"
_RETRY = (("Retry-After", "2"),)


class Answer(msgspec.Struct, frozen=True):
    """What goes back: status, JSON body, extra headers."""

    status: int
    body: dict[str, object]
    headers: tuple[tuple[str, str], ...] = ()


class Identity(msgspec.Struct, frozen=True):
    """Who this node is."""

    session_id: str
    launch_token: str
    boot_id: str
    started_at: float
    netuid: int
    keypair: Keypair


@final
class Service:
    """The parts that answer together."""

    def __init__(
        self,
        *,
        identity: Identity,
        gate: Gate,
        limits: rules.Limits,
        store: Store,
        embedder: Embedder,
        commitment: Commitment,
        storage: StorageGauge,
        statistics: Statistics,
        uptime: Uptime,
        clock: Clock,
        searchable: Callable[[], bool],
    ) -> None:
        self.identity = identity
        self.gate = gate
        self.limits = limits
        self.store = store
        self.embedder = embedder
        self.commitment = commitment
        self.storage = storage
        self.statistics = statistics
        self.uptime = uptime
        self.clock = clock
        self.searchable = searchable


def health(service: Service) -> Answer:
    """GET /health: alive, and which launch this is. `vectors` counts public records."""
    identity = service.identity
    return Answer(
        200,
        {
            "status": "ok",
            "vectors": service.store.count().public,
            "launch_token": identity.launch_token,
            "session_id": identity.session_id,
            "boot_id": identity.boot_id,
            "started_at": identity.started_at,
            "hotkey": identity.keypair.ss58,
            "embedder": service.embedder.state,
            "index": "ready" if service.searchable() else "loading",
            "dimension": service.embedder.dimension,
            "version": VERSION,
        },
    )


def stats(service: Service) -> Answer:
    """GET /stats: the original's fields; null where the node does not know."""
    told = service.statistics
    return Answer(
        200,
        {
            "status": "ok",
            "vectors": service.store.count().public,
            "peers": 0,
            "uid": None,
            "queries_today": told.queries_today,
            "p50_latency_ms": told.p50_latency_ms,
            "proof_rate": told.proof_rate,
            "uptime_pct": service.uptime.percent,
            "block": None,
            "avg_score": None,
            "hotkey": service.identity.keypair.ss58,
        },
    )


async def ingest(service: Service, body: bytes) -> Answer:
    """POST /IngestSynapse: stores a text or a vector. The answer comes when it is durable."""

    def answer(status: int, error: str | None, **more: object) -> Answer:
        return Answer(status, {"cid": None, "error": error, **more}, _RETRY if status == 503 else ())

    async def act() -> Answer:
        caller = service.gate.admit(body, "IngestSynapse")
        namespace = service.gate.namespace(caller)
        checked = rules.check_ingest(caller.fields, service.limits)
        service.storage.admit(cost_bytes(checked, service.limits.dimension))
        embedding = checked.embedding
        if embedding is None:
            (embedding,) = await service.embedder.embed([checked.text or ""])
        cid = cids.compute(embedding, checked.metadata, checked.model_version)
        entry = Entry(namespace, cid, embedding, checked.text, checked.metadata, checked.model_version, caller.signer)
        try:
            await service.store.put(entry)
        except IndexUnavailable:  # durable; the index will follow
            return Answer(200, {"cid": cid, "error": None, "searchable": False})
        return Answer(200, {"cid": cid, "error": None})

    return await _told(act, answer)


async def query(service: Service, body: bytes) -> Answer:
    """POST /QuerySynapse: the nearest records of the public or of a private namespace, by cosine."""
    arrived = time.perf_counter()

    def latency_ms() -> float:
        return round((time.perf_counter() - arrived) * 1000, 3)

    def answer(status: int, error: str | None, **more: object) -> Answer:
        told = {"results": [], "latency_ms": latency_ms(), "error": error, **more}
        return Answer(status, told, _RETRY if status == 503 else ())

    async def act() -> Answer:
        caller = service.gate.admit(body, "QuerySynapse")
        namespace = service.gate.namespace(caller)
        checked = rules.check_query(caller.fields, service.limits)
        vector = checked.embedding
        if vector is None:
            (vector,) = await service.embedder.embed([checked.text or ""])
        hits = await service.store.query(namespace, vector, checked.top_k, checked.conditions)
        service.statistics.query_answered(latency_ms())
        results = [
            {**_shown(service, hit.record, caller), "score": round(hit.score, 6), "trust_tier": "anonymous"}
            for hit in hits
        ]
        return answer(200, None, results=results)

    return await _told(act, answer)


async def listing(service: Service, body: bytes) -> Answer:
    """POST /list: a page of the public or of a private namespace, oldest first."""

    async def act() -> Answer:
        caller = service.gate.admit(body, "list")
        namespace = service.gate.namespace(caller)
        checked = rules.check_list(caller.fields)
        page = await service.store.page(namespace, checked.conditions, checked.limit, checked.offset)
        shown = [_shown(service, record, caller) for record in page]
        return Answer(200, {"records": shown, "count": len(shown), "offset": checked.offset, "limit": checked.limit})

    return await _told(act, _plain)


async def retrieve(service: Service, cid: str, parameters: Mapping[str, str]) -> Answer:
    """GET /retrieve/{cid}: one record. A private one needs the namespace's four fields as query parameters."""

    async def act() -> Answer:
        caller = Caller(_typed(parameters), None)
        namespace = service.gate.namespace(caller)
        return Answer(200, _shown(service, await _found(service, namespace, cid), caller))

    return await _told(act, _plain)


async def delete(service: Service, cid: str, body: bytes) -> Answer:
    """DELETE /retrieve/{cid}: takes a record out; signed as DeleteSynapse over a body that names the `cid`."""

    async def act() -> Answer:
        caller = service.gate.admit(body, "DeleteSynapse")
        namespace = service.gate.namespace(caller)
        owner = None
        if namespace == PUBLIC:
            owner = (await _found(service, namespace, cid)).owner
        service.gate.require_controller_or(owner, caller)
        if caller.fields.get("cid") != cid:
            raise Refused(401, "cid_not_signed", "The signed body must name the cid that is deleted.")
        try:
            if not await service.store.delete(namespace, cid):
                raise NotFound
        except IndexUnavailable:  # durable; hits are joined with the truth, so it shows nowhere already
            pass
        return Answer(200, {"deleted": True, "cid": cid})

    return await _told(act, _plain)


async def challenge(service: Service, body: bytes) -> Answer:
    """POST /ChallengeSynapse: proves that the hash of a vector is held, in the form existing validators check."""

    async def act() -> Answer:
        caller = service.gate.admit(body, "ChallengeSynapse")
        namespace = service.gate.namespace(caller)
        fields = caller.fields
        nonce = _hex32(fields, "nonce_hex")
        validator = _hex32(fields, "validator_hotkey_hex") if fields.get("validator_hotkey_hex") else bytes(32)
        expires_at = fields.get("expires_at")
        if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
            raise InvalidRequest("expires_at must be unix seconds.")
        if expires_at < service.clock.now():
            raise Refused(400, "expired", "The challenge has expired.")
        try:
            record = await _found(service, namespace, _string(fields, "cid"))
        except TruthUnavailable:
            service.statistics.proof_failed()
            raise
        proof = proofs.storage_proof(record.embedding, nonce, validator)
        service.statistics.proof_given()
        return Answer(200, {"embedding_hash": proofs.embedding_hash(record.embedding), "proof": proof})

    return await _told(act, _plain)


async def commitment(service: Service) -> Answer:
    """GET /commitment: the root over all public records as they are now, signed by the node."""
    tree = await service.commitment.tree()
    built_at = service.clock.now()
    signed = f"engram-commitment:{tree.root.hex()}:{len(tree)}:{int(built_at * 1000)}"
    keypair = service.identity.keypair
    return Answer(
        200,
        {
            "root_hex": tree.root.hex(),
            "count": len(tree),
            "built_at": built_at,
            "hotkey": keypair.ss58,
            "signed": signed,
            "signature": "0x" + keypair.sign(signed.encode()).hex(),
        },
    )


async def prove_memory(service: Service, body: bytes) -> Answer:
    """POST /prove-memory: the inclusion proof of a public record under the root that /commitment gives."""

    async def act() -> Answer:
        fields = service.gate.admit(body, "prove-memory").fields
        cid = _string(fields, "cid")
        leaf = merkle.leaf(cid, _string(fields, "embedding_hash"))
        tree = await service.commitment.tree()
        proof = tree.prove(leaf)
        if proof is None:
            raise NotFound
        encoded = msgspec.json.encode(proof).decode()
        return Answer(200, {"root_hex": tree.root.hex(), "cid": cid, "proof": encoded})

    return await _told(act, _plain)


async def _told(act: Callable[[], Awaitable[Answer]], answer: Callable[..., Answer]) -> Answer:
    """Turns what can go wrong into the endpoint's own form of an error."""
    try:
        return await act()
    except InvalidInput as error:
        return answer(200, str(error))
    except QuotaExceeded as error:
        return answer(200, str(error), code="over_quota")
    except InvalidRequest as error:
        return answer(400, str(error), code="malformed")
    except Refused as error:
        return answer(error.status, str(error), code=error.code)
    except NotFound:
        return answer(404, "not found", code="not_found")
    except EmbedderUnavailable as error:
        return answer(503, str(error), code="embedder_unavailable")
    except (TruthUnavailable, IndexUnavailable) as error:
        return answer(503, f"{error}; try again.", code="store_unavailable")
    except WriteUnknown as error:
        return answer(503, f"{error}; it may have been stored: try again, nothing is stored twice.", code="unknown")


def _plain(status: int, error: str | None, **more: object) -> Answer:
    status = 400 if status == 200 else status  # these endpoints have no 200 with an error
    return Answer(status, {"error": error, **more}, _RETRY if status == 503 else ())


async def _found(service: Service, namespace: str, cid: str) -> Record:
    record = await service.store.get(namespace, cid) if cids.is_cid(cid) else None
    if record is None:
        raise NotFound
    return record


def _shown(service: Service, record: Record, caller: Caller) -> dict[str, object]:
    """What a caller sees of a record. The text that a public record was made from is for the controller and for
    whoever stored it: what is meant for everybody is put in the metadata, as with the original."""
    shown: dict[str, object] = {"cid": record.cid, "metadata": record.metadata}
    private = record.namespace != PUBLIC  # then the caller is the controller
    theirs = caller.signer is not None and caller.signer in (service.gate.controller, record.owner)
    if record.text is not None and (private or theirs):
        shown["text"] = record.text
    return shown


def _typed(parameters: Mapping[str, str]) -> dict[str, JsonValue]:
    stamp = parameters.get("namespace_timestamp_ms")
    typed: dict[str, JsonValue] = {**parameters}
    if stamp is not None and stamp.isascii() and stamp.isdigit() and len(stamp) <= 16:
        typed["namespace_timestamp_ms"] = int(stamp)
    return typed


def _string(fields: Mapping[str, JsonValue], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise InvalidRequest(f"{name} must be a string of ASCII characters.")
    return value


def _hex32(fields: Mapping[str, JsonValue], name: str) -> bytes:
    text = _string(fields, name).removeprefix("0x")
    try:
        decoded = bytes.fromhex(text)
    except ValueError:
        decoded = b""
    if len(decoded) != 32:
        raise InvalidRequest(f"{name} must be 64 hex digits.")
    return decoded
