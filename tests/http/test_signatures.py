"""Signatures in front of an application, on a real socket: every profile, every recorded request, every refusal."""

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
import trio
from quart import request

from config.model import HttpSettings
from engram.clock import ManualClock
from engram.hotkeys import Keypair, ReplayStore, Scheme, SignedRequest, Verifier, epistula, profiles, sign_headers, ss58
from engram.http.asgi import Message, Scope
from engram.http.signatures import KEY, SignatureGate, demand_signatures
from engram.telemetry.metrics import Metrics
from tests.hotkeys.vectors import BY_ID, OTHERS, VECTORS, senders
from tests.http.harness import SETTINGS, Answer, Raw, connect, get, make_app, serving

NOW_MS = 1_700_000_000_000
ALICE, BOB, EVE = (Keypair.from_seed(hashlib.sha256(name).digest()) for name in (b"alice", b"bob", b"eve"))
BODY = b'{"work":1}'
UUID = "11111111-2222-4000-b333-00000000000{}"


class Guarded(msgspec.Struct):
    """A server whose verifier a test may exchange."""

    raw: Raw
    verifier: list[Verifier]
    clock: ManualClock
    handled: list[str]
    metrics: Metrics

    async def ask(
        self, headers: Sequence[tuple[str, str]], body: bytes = BODY, method: str = "POST", path: str = "/work"
    ) -> Answer:
        lines = [f"{name}: {value}" for name, value in headers]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines, "", ""])
        return await self.raw.ask(head.encode("latin-1") + body, method)


def signed_request() -> SignedRequest:
    """The signer of the request that Quart answers now."""
    scope: Any = request.scope
    return cast(SignedRequest, scope[KEY])


@asynccontextmanager
async def guarded(
    *schemes: Scheme, settings: HttpSettings = SETTINGS, bound: int = 100, started_ms: int = 0
) -> AsyncIterator[Guarded]:
    clock, handled = ManualClock(NOW_MS / 1000), list[str]()
    app = make_app(settings, clock)

    @app.route("/<path:path>", methods=["GET", "POST", "DELETE"])
    async def work(path: str) -> dict[str, str]:
        handled.append(path)
        return {"by": signed_request().hotkey, "scheme": signed_request().scheme}

    @app.get("/")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    verifier = Verifier(
        schemes,
        started_ms=started_ms,
        replays=ReplayStore(bound=bound),
        self_key=BOB.public_key,
        permitted=lambda key: key != EVE.public_key,
    )
    holder = [verifier]
    app.edge.put_behind(
        lambda inner: SignatureGate(
            inner,
            lambda scope: None if scope["path"] == "/" else holder[0],
            clock=clock,
            surface="test",
            metrics=app.metrics,
            use=app.limit_hotkey,
        )
    )
    async with serving(app, settings) as running, connect(running) as raw:
        yield Guarded(raw, holder, clock, handled, app.metrics)


def signed(
    scheme: Scheme,
    by: Keypair = ALICE,
    *,
    method: str = "POST",
    number: int = 0,
    to: Keypair = BOB,
    at_ms: int = NOW_MS,
) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of a request of this scheme; `number` tells those of one moment apart."""
    now_ns = (at_ms + (number if scheme.unit.per_second >= 1_000 else number * 1_000)) * 1_000_000
    if "body-signature" in scheme.headers:
        body, headers = epistula.sign_v1(by, None, now_ns=now_ns, receiver=to.public_key)
        return list(headers.items()), body
    body = b"" if method == "GET" else BODY
    headers = sign_headers(
        scheme,
        by,
        now_ns=now_ns,
        method=method,
        raw_path=b"/work",
        body=body,
        uuid=UUID.format(number) if "uuid" in scheme.required else "",
        receiver=to.public_key if "receiver" in scheme.required else None,
    )
    return list(headers.items()), body


SCHEMES = list(profiles.STRICT.values())


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
async def test_each_profile_is_believed_once_and_refused_with_its_reason(scheme: Scheme) -> None:
    async with guarded(scheme) as server:
        headers, body = signed(scheme)
        believed = await server.ask(headers, body)
        assert (believed.status, believed.json()) == (200, {"by": ALICE.ss58, "scheme": scheme.name})
        cases = {
            "replay": signed(scheme),
            "stale": signed(scheme, at_ms=NOW_MS - scheme.past_ms - 1_000),
            "future": signed(scheme, at_ms=NOW_MS + scheme.future_ms + 1_000),
            "missing_header": ([], body),
            "bad_signature": (signed(scheme, number=1)[0], body[:-1] + b" }"),
            "not_permitted": signed(scheme, EVE),
        }
        if scheme.name == "gateway":
            cases.pop("bad_signature")  # Version 1 does not cover the body.
        if "receiver" in scheme.required:
            cases["signed_for_mismatch"] = signed(scheme, to=EVE)
        for reason, (lines, content) in cases.items():
            refused = await server.ask(lines, content)
            assert (refused.code, refused.status) == (reason, 403 if reason == "not_permitted" else 401), reason
            assert ("clock_skew_ms" in refused.json()) == (reason not in ("missing_header", "not_permitted"))
            assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert server.handled == ["work"]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
async def test_a_full_memory_is_told_as_503_and_a_later_try_is_believed(scheme: Scheme) -> None:
    async with guarded(scheme, bound=2) as server:
        for number, status in ((0, 200), (1, 200), (2, 503)):
            answer = await server.ask(*signed(scheme, number=number))
            assert answer.status == status
        assert (answer.code, answer.headers["retry-after"]) == ("busy", "5")
        assert (await server.ask(*signed(scheme))).code == "replay"
        server.clock.advance((scheme.past_ms + scheme.future_ms) / 1000 + 3)
        later = NOW_MS + scheme.past_ms + scheme.future_ms + 3_000
        assert (await server.ask(*signed(scheme, number=2, at_ms=later))).status == 200


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
async def test_each_recorded_request_gets_its_verdict_over_http(vector: dict[str, Any]) -> None:
    schemes = [profiles.STRICT[name] for name in ("epistula-v2", "dippy", "epistula-v1", "x-epistula")]
    async with guarded() as server:
        server.verifier[0] = Verifier(
            schemes,
            started_ms=0,
            replays=ReplayStore(),
            self_key=ss58.decode(vector["self_hotkey"]),
            permitted=senders(vector).__contains__,
        )
        if "after" in vector:
            assert (await recorded(server, BY_ID[vector["after"]])).status == 200
        answer = await recorded(server, vector)
        expected = vector["expect"]
        if expected["verdict"] == "accept":
            assert answer.status == 200, answer.body
        else:
            assert answer.code in (expected["reason"], *vector.get("reason_alternatives", ()))
            assert answer.status == (403 if answer.code == "not_permitted" else 401)


async def recorded(server: Guarded, vector: dict[str, Any]) -> Answer:
    server.clock.jump(vector["now_ms"] / 1000 - server.clock.now())
    body = base64.b64decode(vector["body_b64"])
    headers = [
        (name, value)
        for name, value in vector["headers"]
        if name.lower() not in ("content-length", "host", "transfer-encoding", "connection")
    ]
    return await server.ask(headers, body, vector["method"], vector["path"])


@pytest.mark.parametrize("vector", [each for each in OTHERS.values() if "headers" in each], ids=lambda each: each["id"])
async def test_recorded_requests_of_other_schemes_get_theirs(vector: dict[str, Any]) -> None:
    names = ("chutes-miner", "chutes-validator", "gateway")
    async with guarded() as server:
        server.verifier[0] = Verifier(
            [profiles.STRICT[name] for name in names],
            started_ms=0,
            replays=ReplayStore(),
            self_key=Keypair.from_uri("//Bob").public_key,
        )
        server.clock.jump(vector["now_ms"] / 1000 - server.clock.now())
        body = base64.b64decode(vector.get("payload_b64", ""))
        method, path = vector.get("method", "POST"), vector.get("path", "/work")
        answer = await server.ask(list(vector["headers"].items()), body, method, path)
        if vector["expect"] == "accept":
            assert answer.status == 200
        else:
            assert (answer.status, answer.code) == (401, "bad_signature")


async def test_dialects_may_be_served_at_once_and_share_their_memory() -> None:
    async with guarded(epistula.V2, epistula.DIPPY) as server:
        headers, body = signed(epistula.V2)
        assert (await server.ask(headers, body)).status == 200
        moved = {name: value for name, value in headers if name != "Epistula-Version"}
        moved["Authorization"] = "Epistula " + moved.pop("Epistula-Request-Signature")
        assert (await server.ask(list(moved.items()), body)).code == "replay"
        assert (await server.ask(headers, body, path="/elsewhere")).code == "replay"


async def test_reading_may_be_repeated_where_the_scheme_says_so() -> None:
    for scheme in SCHEMES:
        if "body-signature" in scheme.headers:
            continue
        async with guarded(scheme) as server:
            headers, _ = signed(scheme, method="GET")
            statuses = [(await server.ask(headers, b"", "GET")).status for _ in range(2)]
            assert statuses == [200, 200 if scheme.repeatable else 401], scheme.name


async def test_of_many_replays_at_once_one_is_believed() -> None:
    clock = ManualClock(NOW_MS / 1000)
    settings = msgspec.structs.replace(SETTINGS, max_body_bytes=2_000_000)
    app = make_app(settings, clock)
    entered = list[str]()

    @app.post("/work")
    async def work() -> dict[str, str]:
        entered.append(signed_request().hotkey)
        return {}

    demand_signatures(app, Verifier([epistula.V2], started_ms=0, replays=ReplayStore(), self_key=BOB.public_key), clock)
    body = b"x" * 1_000_000  # Judged in a thread.
    headers = sign_headers(
        epistula.V2, ALICE, now_ns=NOW_MS * 1_000_000, body=body, uuid=UUID.format(1), receiver=BOB.public_key
    )
    head = "\r\n".join(
        ["POST /work HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *map(": ".join, headers.items()), "", ""]
    )
    statuses = list[int]()
    async with serving(app, settings) as running:

        async def send() -> None:
            async with connect(running) as raw:
                statuses.append((await raw.ask(head.encode() + body, "POST")).status)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(send)
    assert sorted(statuses) == [200] + [401] * 5
    assert entered == [ALICE.ss58]


async def test_only_the_named_paths_need_no_signature() -> None:
    app = make_app()

    @app.route("/<path:path>")
    async def work(path: str) -> dict[str, str]:
        return {"path": path}

    @app.get("/")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    clock = ManualClock()
    demand_signatures(
        app, Verifier([epistula.V2], started_ms=0, replays=ReplayStore()), clock, unsigned=["/", "/status"]
    )
    async with serving(app) as running, connect(running) as raw:
        for path, status in (
            ("/", 200),
            ("/?a=/work", 200),
            ("/status", 200),
            ("/%73tatus", 200),
            ("/status/", 401),
            ("//", 404),
            ("/./", 401),
            ("/status/../work", 401),
            ("/status%2Fwork", 404),
            ("/status%00", 404),
            ("/work", 401),
        ):
            assert (await raw.ask(get(path))).status == status, path


async def test_a_key_that_calls_too_often_is_told_to_wait() -> None:
    settings = msgspec.structs.replace(SETTINGS, requests_per_minute_per_hotkey=6)
    async with guarded(epistula.X_EPISTULA, settings=settings) as server:
        statuses = [(await server.ask(*signed(epistula.X_EPISTULA, number=number))).status for number in range(11)]
        assert statuses == [200] * 10 + [429]
        unsigned = await server.ask([])
        assert unsigned.status == 401


async def test_what_the_process_before_may_have_taken_is_refused() -> None:
    async with guarded(epistula.V2, started_ms=NOW_MS) as server:
        assert (await server.ask(*signed(epistula.V2))).code == "before_start"


async def test_refusals_are_counted_by_their_reason() -> None:
    async with guarded(epistula.V2) as server:
        await server.ask([])
        assert b'engram_auth_refused_total{code="missing_header",surface="test"} 1.0' in server.metrics.render()


async def test_a_websocket_is_closed_since_nothing_is_known_of_who_opens_it() -> None:
    sent: list[Any] = []

    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the application was run")

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    app = make_app()
    gate = SignatureGate(never, lambda scope: None, clock=ManualClock(), surface="test", metrics=app.metrics)
    scope: Scope = {"type": "websocket", "path": "/"}
    await gate(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
