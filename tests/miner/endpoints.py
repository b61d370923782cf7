"""A node's endpoints as the tests call them: by its own table and surface, without a server."""

import json
import time
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from engram.api import node
from engram.api.route import Route
from engram.hotkeys import Keypair, miner_scheme
from engram.http import exchange
from engram.http.asgi import Scope
from engram.http.exchange import Exchange
from engram.http.request import Answer as Encoded
from engram.http.request import Handler, Request, Stream
from engram.miner.app import bind
from engram.miner.service import Service
from tests.miner.nodes import STAMPS, encoded, in_namespace

SHARE = {"share_index": 2, "share_hex": "c0ffee", "threshold": 2, "total": 3}

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True):
    """What came back, decoded."""

    status: int
    body: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


class _Handlers:
    def __init__(self) -> None:
        self.by_path: dict[tuple[str, str], Handler] = {}

    def add(self, method: str, path: str, handler: Handler, *, hot: bool = False, in_parts: bool = False) -> None:
        self.by_path[method, path] = handler

    def add_probe(self, path: str, handler: Handler) -> None:
        self.by_path["GET", path] = handler

    def add_fixed(self, path: str, answer: Encoded) -> None:
        raise NotImplementedError(path)


async def call(
    service: Service,
    route: Route[Any, Any],
    body: bytes = b"",
    parameters: Mapping[str, str] | None = None,
    **path: str,
) -> Answer | Stream:
    handlers = _Handlers()
    bind(handlers, service)
    current = Exchange("id", "client")
    current.body = body
    query = urlencode(parameters or {}).encode()
    scope: Scope = {
        "method": route.method,
        "raw_path": b"",
        "query_string": query,
        "headers": [],
        exchange.KEY: current,
    }
    answered = await handlers.by_path[route.method, route.path](Request(scope, path))
    if isinstance(answered, Encoded):
        return Answer(answered.status, json.loads(answered.body), answered.headers)
    return answered


async def answered(
    service: Service,
    route: Route[Any, Any],
    body: bytes = b"",
    parameters: Mapping[str, str] | None = None,
    **path: str,
) -> Answer:
    given = await call(service, route, body, parameters, **path)
    assert isinstance(given, Answer)
    return given


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Runs what waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stopped:
        result: T = stopped.value
        return result
    raise AssertionError("it waits for something")


def health(service: Service) -> Answer:
    return at_once(answered(service, node.HEALTH))


def stats(service: Service) -> Answer:
    return at_once(answered(service, node.STATS))


async def metagraph(service: Service) -> Answer:
    return await answered(service, node.METAGRAPH)


async def ingest(service: Service, body: bytes) -> Answer:
    return await answered(service, node.INGEST, body)


async def ingest_batch(service: Service, body: bytes) -> Answer:
    return await answered(service, node.INGEST_BATCH, body)


async def query(service: Service, body: bytes) -> Answer:
    return await answered(service, node.QUERY, body)


async def listing(service: Service, body: bytes) -> Answer:
    return await answered(service, node.LIST, body)


async def look_up(service: Service, body: bytes) -> Answer:
    return await answered(service, node.LOOK_UP, body)


async def delete_batch(service: Service, body: bytes) -> Answer:
    return await answered(service, node.DELETE_BATCH, body)


async def retrieve(service: Service, cid: str, parameters: Mapping[str, str]) -> Answer:
    return await answered(service, node.RETRIEVE, parameters=parameters, cid=cid)


async def delete(service: Service, cid: str, body: bytes) -> Answer:
    return await answered(service, node.DELETE, body, cid=cid)


async def repair(service: Service, body: bytes) -> Answer:
    return await answered(service, node.REPAIR, body)


async def challenge(service: Service, body: bytes) -> Answer:
    return await answered(service, node.CHALLENGE, body)


async def commitment(service: Service, parameters: Mapping[str, str] | None = None) -> Answer:
    return await answered(service, node.COMMITMENT, parameters=parameters)


async def prove_memory(service: Service, body: bytes) -> Answer:
    return await answered(service, node.PROVE_MEMORY, body)


async def export(service: Service, body: bytes) -> Answer:
    return await answered(service, node.EXPORT, body)


async def export_stream(service: Service, body: bytes) -> Answer | Stream:
    return await call(service, node.EXPORT_STREAM, body)


async def put_key_share(service: Service, body: bytes) -> Answer:
    return await answered(service, node.PUT_KEY_SHARE, body)


async def get_key_share(service: Service, body: bytes) -> Answer:
    return await answered(service, node.GET_KEY_SHARE, body)


async def attest(service: Service, body: bytes) -> Answer:
    return await answered(service, node.ATTEST, body)


async def attestation(service: Service, namespace: str) -> Answer:
    return await answered(service, node.ATTESTATION, namespace=namespace)


async def chat_history(service: Service, user_id: str, parameters: Mapping[str, str]) -> Answer:
    return await answered(service, node.CHAT_HISTORY, parameters=parameters, user_id=user_id)


async def save_chat(service: Service, body: bytes) -> Answer:
    return await answered(service, node.SAVE_CHAT, body)


async def list_conversations(service: Service, user_id: str, parameters: Mapping[str, str]) -> Answer:
    return await answered(service, node.CONVERSATIONS, parameters=parameters, user_id=user_id)


async def make_conversation(service: Service, body: bytes) -> Answer:
    return await answered(service, node.MAKE_CONVERSATION, body)


async def rename_conversation(service: Service, conv_id: str, body: bytes) -> Answer:
    return await answered(service, node.RENAME_CONVERSATION, body, conv_id=conv_id)


async def delete_conversation(service: Service, conv_id: str, body: bytes) -> Answer:
    return await answered(service, node.DELETE_CONVERSATION, body, conv_id=conv_id)


def opened(answer: Answer) -> dict[str, object]:
    """The body of a good answer without its padding."""
    assert answer.status == 200, answer
    return {key: value for key, value in answer.body.items() if key != "_p"}


async def deposit(service: Service, keypair: Keypair, name: str, **changed: object) -> Answer:
    fields: dict[str, Any] = {**SHARE, **changed}
    body = miner_scheme.sign_namespace_request(keypair, "KeyShareSynapse", name, fields, STAMPS.next())
    return await put_key_share(service, encoded(body))


async def fetch(service: Service, keypair: Keypair, name: str) -> Answer:
    return await get_key_share(service, encoded(in_namespace(keypair, name)))


def attested(keypair: Keypair, name: str, now_ms: int | None = None) -> bytes:
    return encoded(miner_scheme.sign_attestation(keypair, name, now_ms or time.time_ns() // 10**6))


def chat_parameters(keypair: Keypair, endpoint: str, **fields: Any) -> dict[str, str]:
    body = miner_scheme.sign_body(keypair, endpoint, fields, STAMPS.next())
    return {key: str(value) for key, value in body.items() if key != "user_id"}
