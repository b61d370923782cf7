"""Who sent a request: every recorded one, mutated ones, and proofs before, while and after the body is read."""

import base64
import errno
import random
import time
import uuid
from typing import Any

import msgspec
import pytest
import trio

from engram.clock import ManualClock
from engram.hotkeys import epistula, profiles, ss58
from engram.proxy.settings.model import AuthSettings, BodySettings, LimitSettings, ProxySettings
from tests.hotkeys.vectors import BY_ID, VECTORS, senders
from tests.http.harness import Answer, Raw
from tests.http.servers import bare, echo
from tests.proxy.backends import answer, backend
from tests.proxy.harness import AUTH, SERVER, Proxied, calling, proxying, settings_for
from tests.proxy.signing import ALICE, BOB, EVE, head, headers_of, raw, signed
from tests.sampling import NIGHTLY, SEED

TAKEN = ("epistula-v2", "dippy", "apex", "epistula-v1", "x-epistula")
TAKEN_FOR = {"hone-v1": ("hone",)}
"""Both are version 1 by their headers; a miner takes one of them."""


def settings_of(vector: dict[str, Any], port: int) -> ProxySettings:
    auth = AuthSettings(
        miner_hotkey=vector["self_hotkey"],
        chain_endpoint="",
        allowed_senders=tuple(ss58.encode(key) for key in senders(vector)),
        schemes=TAKEN_FOR.get(vector["scheme"], TAKEN),
    )
    return settings_for(port, auth=auth, paths=("/inference", "/train", "/capacity-of-others"))


async def sent(proxied: Proxied, vector: dict[str, Any]) -> Answer:
    """Send a recorded request as it stands; framing headers are ours."""
    framing = ("host", "content-length", "connection", "transfer-encoding")
    lines = [f"{name}: {value}" for name, value in vector["headers"] if name.lower() not in framing]
    body = base64.b64decode(vector["body_b64"])
    method = vector["method"]
    async with calling(proxied) as client:
        length = len(body) if body or method == "POST" else None
        return await client.ask(head(method, vector["path"], length, None, *lines) + body)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["id"]))
async def test_every_recorded_request_gets_its_verdict(vector: dict[str, Any]) -> None:
    async with bare(echo) as server:
        clock = ManualClock(vector["now_ms"] / 1000)
        async with proxying(settings_of(vector, server.port), clock=clock) as proxied:
            proxied.state.plan.verifier._started_ms = 0
            if "after" in vector:
                await sent(proxied, BY_ID[vector["after"]])
            got = await sent(proxied, vector)
            expected = vector["expect"]
            if expected["verdict"] == "accept":
                # GET /capacity and paths without a route are judged too; a proof comes before the route's backend.
                assert got.status in (200, 404, 405), got.body
            elif got.status == 404:
                assert vector["path"] not in ("/inference", "/train", "/capacity")
            else:
                reasons = (expected["reason"], *vector.get("reason_alternatives", ()))
                known = {"not_permitted": "no_authority"}
                assert got.status in (400, 401, 403), got.body
                assert got.json()["code"] in {known.get(reason, reason) for reason in reasons} | {"bad_request"}


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [("apex-no-uuid", "apex"), ("hone-v1-valid-sorted", "hone"), ("hone-v1-valid-unsorted", "hone")],
)
async def test_dialects_pass_as_their_originals_take_them_where_that_is_switched_on(kind: str, scheme: str) -> None:
    vector = BY_ID[kind]
    async with bare(echo) as server:
        strict = settings_of(vector, server.port)
        auth = msgspec.structs.replace(strict.auth, schemes=(scheme,), lenient_schemes=(scheme,))
        settings = msgspec.structs.replace(strict, auth=auth)
        async with proxying(settings, clock=ManualClock(vector["now_ms"] / 1000)) as proxied:
            proxied.state.plan.verifier._started_ms = 0
            got = await sent(proxied, vector)
            assert (got.status, got.body) == (200, base64.b64decode(vector["body_b64"]))
            again = await sent(proxied, vector)
            assert (again.status, again.json()["code"]) == (401, "replay")


MUTATIONS = 10_000 if NIGHTLY else 400


async def test_mutated_headers_are_refused_and_never_a_fault() -> None:
    """No mutation is a 500, and none that changes a signed value passes."""
    rng, body = random.Random(SEED), b'{"x": 1}'
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied, calling(proxied) as client:
        stream = client
        for _ in range(MUTATIONS):
            good = headers_of(body)
            name = rng.choice(list(good))
            value = mutated(rng, good[name])
            bad = {**good, name: value}
            got = await stream.ask(raw("POST", "/inference", body, bad))
            assert got.status < 500, (name, value)
            if value != good[name]:
                assert got.status in (400, 401, 403), (name, value, got.body)
            if got.headers.get("connection") == "close":
                await stream.stream.aclose()
                stream = type(client)(await trio.open_tcp_stream("127.0.0.1", proxied.port))
        await stream.stream.aclose()


def mutated(rng: random.Random, value: str) -> str:
    """The value with something changed, dropped, doubled or added; visible characters only, none at its ends."""
    at = rng.randrange(len(value))
    other = chr(rng.randrange(33, 127))
    changed = rng.choice(
        [
            value[:at] + other + value[at + 1 :],
            value[:at] + value[at + 1 :],
            value[:at] + value[at] + value[at:],
            value + other,
            other + value,
            value.swapcase(),
            "",
            value[::-1],
            f"{value},{value}",
            value * 2,
            "9" * rng.randrange(1, 400),
        ]
    )
    # Hex digits of a signature and a uuid mean the same in either case.
    return (
        value
        if changed.lower() == value.lower() and not value.isdigit() and ("-" in value or value[:2] == "0x")
        else changed
    )


LINE_MUTATIONS = 10_000 if NIGHTLY else 250
STRANGE = (
    "Epistula-Extra: 1",
    "Epistula_Uuid: 1",
    "X-Epistula-Uuid: 1",
    "Connection: Epistula-Uuid",
    "Transfer-Encoding: chunked",
    "Content-Length: 8",
    "Content-Length: 9",
    "Content-Digest: sha-256=:AAAA:",
    "Expect: nothing",
    "Idempotency-Key:",
    "Range: bytes=0-1",
    "Upgrade: h2c",
    "X-Forwarded-For: 203.0.113.7",
    "No colon",
    " folded",
    "Na me: x",
    ": no name",
    "\xff: x",
    "X: \x00",
)
"""Lines that may be added: some are refused, none is a fault, and none changes what was signed."""


async def test_mutated_lines_are_refused_where_they_touch_a_proof_and_are_never_a_fault() -> None:
    """Names changed, lines dropped, doubled, added, in another order or in other letters."""
    rng, body = random.Random(SEED), b'{"x": 1}'
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied:
        stream = Raw(await trio.open_tcp_stream("127.0.0.1", proxied.port))
        for turn in range(LINE_MUTATIONS):
            good = headers_of(body)
            how = rng.choice(list(VERDICTS)) if turn >= len(VERDICTS) else list(VERDICTS)[turn]
            lines = mutated_lines(rng, list(good.items()), how)
            request = head("POST", "/inference", len(body), None, *lines) + body
            got = await stream.ask(request)
            assert got.status in VERDICTS[how], (how, lines, got)
            if got.status == 200:
                assert got.body == body, lines
            if got.headers.get("connection") == "close":
                await stream.stream.aclose()
                stream = Raw(await trio.open_tcp_stream("127.0.0.1", proxied.port))
        await stream.stream.aclose()


REFUSED = (400, 401, 403)
VERDICTS = {
    "renamed": REFUSED,
    "dropped": REFUSED,
    "twice": REFUSED,
    "twice, differing": REFUSED,
    "joined": REFUSED,
    "added": (200, 400, 401, 403, 417),
    "letters": (200,),
    "order": (200,),
}


def mutated_lines(rng: random.Random, lines: list[tuple[str, str]], how: str) -> list[str]:
    """The lines of a signed request with one of them changed."""
    at = rng.choice([at for at, (name, _) in enumerate(lines) if name != "Epistula-Version"])  # which is not signed
    name, value = lines[at]
    match how:
        case "renamed":
            place = rng.randrange(len(name))
            other = rng.choice([each for each in "!#$%&'*+.^_`|~0aZ" if each.lower() != name[place].lower()])
            lines[at] = (name[:place] + other + name[place + 1 :], value)
        case "dropped":
            del lines[at]
        case "twice":
            lines.insert(rng.randrange(len(lines) + 1), (name, value))
        case "twice, differing":
            lines.insert(rng.randrange(len(lines) + 1), (name.upper(), value[::-1] + "0"))
        case "joined":
            lines[at] = (name, f"{value}, {value}")
        case "letters":
            lines[at] = (name.swapcase(), value)
        case "order":
            rng.shuffle(lines)
        case _:
            assert how == "added"
    texts = [f"{name}: {value}" for name, value in lines]
    if how == "added":
        texts.insert(rng.randrange(len(texts) + 1), rng.choice(STRANGE))
    return texts


@pytest.mark.parametrize("doubled", ["Epistula-Request-Signature", "Epistula-Signed-By", "Epistula-Uuid"])
async def test_a_header_that_is_there_twice_empty_or_missing_is_not_believed(doubled: str) -> None:
    body = b"{}"
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied, calling(proxied) as client:
        good = headers_of(body)
        twice = await client.ask(raw("POST", "/inference", body, good, f"{doubled}: {good[doubled]}"))
        assert (twice.status, twice.json()["code"]) == (401, "duplicate_header")
        empty = await client.ask(raw("POST", "/inference", body, headers_of(body) | {doubled: ""}))
        assert empty.status == 401
        missing = {name: value for name, value in headers_of(body).items() if name != doubled}
        assert (await client.ask(raw("POST", "/inference", body, missing))).status == 401


async def test_a_request_for_another_miner_is_refused_before_its_body_is_read() -> None:
    body = b"x" * 50_000_000
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied, calling(proxied) as client:
        await client.send(head("POST", "/inference", len(body), headers_of(body, to=EVE.public_key)))
        got = await client.read()
        assert (got.status, got.json()["detail"]) == (401, "Invalid signed_for address")
        assert got.headers["connection"] == "close"
        ended = await proxied.end()
        assert (ended.code, ended.received_bytes) == ("wrong_receiver", 0)
        counted = proxied.state.metrics.render().decode()
        assert 'engram_proxy_auth_total{reason="signed_for_mismatch",result="refused"} 1.0' in counted


async def test_a_stranger_cannot_use_up_what_a_validator_may_do() -> None:
    """Until its signature is proven a request counts for its address alone."""
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=6)
    body = b"{}"
    async with (
        bare(echo) as server,
        proxying(settings_for(server.port, limits=limits)) as proxied,
        calling(proxied) as client,
    ):
        for _ in range(50):
            claims = headers_of(body) | {"Epistula-Request-Signature": "0x" + "ab" * 64}
            assert (await client.ask(raw("POST", "/inference", body, claims))).status == 401
        assert len(proxied.state.admission.key_rates) == 0
        assert (await client.ask(signed("/inference", body))).status == 200


async def test_a_gigabyte_from_a_stranger_is_refused_at_its_first_byte() -> None:
    body = b"x" * 1_000
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied, calling(proxied) as client:
        headers = headers_of(body, digest=True) | {"Epistula-Request-Signature": "0x" + "ab" * 64}
        await client.send(head("POST", "/train", 100_000_000, headers, "Expect: 100-continue"))
        got = await client.read()
        assert (got.status, got.json()["code"]) == (401, "bad_signature")
        assert (await proxied.end()).received_bytes == 0


async def test_the_last_part_of_a_body_is_held_back_until_its_digest_is_right() -> None:
    body = b"x" * 1_000_000
    seen = bytearray()
    ended = trio.Event()

    async def collecting(stream: trio.SocketStream) -> None:
        while chunk := await stream.receive_some(65_536):
            seen.extend(chunk)
        ended.set()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, collecting, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with proxying(settings_for(port)) as proxied, calling(proxied) as client:
            other = body[:-1] + b"y"
            got = await client.ask(head("POST", "/train", len(body), headers_of(body, digest=True)) + other)
            assert (got.status, got.json()["code"]) == (400, "bad_digest")
            with trio.fail_after(5):
                await ended.wait()
        nursery.cancel_scope.cancel()
    assert b"y" not in seen.partition(b"\r\n\r\n")[2], "the backend never had the whole body"
    assert len(seen) > 500_000


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 262_144, 262_145, 3_000_000])
@pytest.mark.parametrize("digest", [False, True], ids=["spooled", "streamed"])
async def test_bodies_of_any_size_arrive_whole(size: int, digest: bool) -> None:
    body = random.Random(size).randbytes(size)
    async with bare(echo) as server, proxying(settings_for(server.port)) as proxied, calling(proxied) as client:
        got = await client.ask(signed("/inference", body, digest=digest))
        assert (got.status, got.body == body) == (200, True)
        await proxied.end()
        assert proxied.state.spool.held == 0


async def test_a_full_disk_is_503_and_nothing_falls_back_to_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    body = b"x" * 5_000
    bodies = BodySettings(memory_bytes=1_000)
    async with bare(echo) as server, proxying(settings_for(server.port, bodies=bodies)) as proxied:
        for call in ("pwrite", "open"):
            with monkeypatch.context() as patched:
                patched.setattr(f"engram.proxy.exchange.spool.os.{call}", full)
                patched.setattr("engram.proxy.exchange.spool.tempfile.mkstemp", full)
                async with calling(proxied) as client:
                    got = await client.ask(signed("/train", body))
            assert (got.status, got.json()["code"]) == (503, "spool_full")
            assert got.json()["error"] == "the disk takes no more", "a stranger learns nothing of this machine"
            assert (await proxied.end()).detail == "No space left on device"
        assert (proxied.state.spool.held, proxied.state.spool.held_in_memory) == (0, 0)
        async with calling(proxied) as client:
            assert (await client.ask(signed("/train", body))).body == body


async def test_bodies_share_the_memory_and_go_to_files_when_it_is_used_up() -> None:
    body = b"x" * 60_000
    bodies = BodySettings(memory_bytes=100_000, memory_bytes_in_all=150_000)
    async with backend("wait", answer()) as servers, proxying(settings_for(servers.port, bodies=bodies)) as proxied:
        spool = proxied.state.spool
        async with calling(proxied) as one, calling(proxied) as two:
            await one.send(signed("/train", body))
            await servers.began.wait()
            assert (spool.held_in_memory, spool.held) == (60_000, 0)
            await two.send(signed("/train", body))
            with trio.fail_after(5):
                while servers.requests < 2:
                    await trio.lowlevel.checkpoint()
            assert (spool.held_in_memory, spool.held) == (60_000, 60_000), "an address has half of it"
            assert "engram_proxy_body_memory_bytes" in proxied.state.metrics.render().decode()
            servers.go_on.set()
            assert ((await one.read()).status, (await two.read()).status) == (200, 200)
        await proxied.ended(2)
        assert (spool.held_in_memory, spool.held) == (0, 0)


async def test_a_body_that_carries_its_signature_is_refused_where_memory_is_used_up() -> None:
    bodies = BodySettings(memory_bytes_in_all=1_000)
    auth = msgspec.structs.replace(AUTH, schemes=("epistula-v1",))
    body, headers = epistula.sign_v1(ALICE, {"x": "y" * 600}, now_ns=time.time_ns(), receiver=BOB.public_key)
    async with (
        bare(echo) as server,
        proxying(settings_for(server.port, bodies=bodies, auth=auth)) as proxied,
        calling(proxied) as client,
    ):
        got = await client.ask(raw("POST", "/inference", body, headers))
        assert (got.status, got.json()["code"]) == (503, "spool_full")
        assert proxied.state.spool.held_in_memory == 0


async def test_our_own_requests_are_passed_on_while_they_arrive() -> None:
    body = b"x" * 300_000
    ours = epistula.sign_request(ALICE, body, uuid=str(uuid.uuid4()), receiver=BOB.public_key, now_ns=time.time_ns())
    async with backend("hang") as servers, proxying(settings_for(servers.port)) as proxied, calling(proxied) as client:
        await client.send(head("POST", "/train", len(body), ours) + body[:70_000])
        with trio.fail_after(5):
            await servers.began.wait()
        assert proxied.state.spool.held == 0
    assert "Content-Digest" not in epistula.sign_request(
        ALICE, b"", uuid=str(uuid.uuid4()), receiver=BOB.public_key, now_ns=time.time_ns()
    )


async def test_spooled_bodies_share_a_quota_and_give_it_back() -> None:
    body = b"x" * 400_000
    bodies = BodySettings(memory_bytes=1_000, spool_bytes=1_000_000)
    async with backend("wait", answer()) as servers, proxying(settings_for(servers.port, bodies=bodies)) as proxied:
        async with calling(proxied) as one, calling(proxied) as two:
            await one.send(signed("/train", body))
            await servers.began.wait()
            assert proxied.state.spool.held == 400_000
            got = await two.ask(signed("/train", body))
            assert (got.status, got.json()["code"]) == (503, "spool_full"), "an address has half of it"
            servers.go_on.set()
            assert (await one.read()).status == 200
        await proxied.ended(2)
        assert proxied.state.spool.held == 0


async def test_two_addresses_cannot_use_up_the_room_of_a_third() -> None:
    bodies = BodySettings(memory_bytes=1_000, spool_bytes=1_000_000)
    server = msgspec.structs.replace(SERVER, trusted_proxies=("127.0.0.1/32",))
    async with (
        backend("wait", answer()) as servers,
        proxying(settings_for(servers.port, bodies=bodies, server=server)) as proxied,
        calling(proxied) as one,
        calling(proxied) as two,
        calling(proxied) as three,
    ):

        def upload(address: str, size: int) -> bytes:
            body = b"x" * size
            return raw("POST", "/train", body, headers_of(body), f"X-Forwarded-For: {address}")

        for client, address, size, held in ((one, "192.0.2.1", 450_000, 450_000), (two, "192.0.2.2", 250_000, 700_000)):
            await client.send(upload(address, size))
            with trio.fail_after(5):
                while servers.requests < (1 if client is one else 2):
                    await trio.lowlevel.checkpoint()
            assert proxied.state.spool.held == held
        async with calling(proxied) as more:
            assert (await more.ask(upload("192.0.2.2", 100_000))).status == 503
        await three.send(upload("192.0.2.3", 140_000))
        with trio.fail_after(5):
            while servers.requests < 3:
                await trio.lowlevel.checkpoint()
        servers.go_on.set()
        assert [(await client.read()).status for client in (one, two, three)] == [200, 200, 200]


async def test_a_get_whose_body_was_dropped_on_its_way_is_believed_where_that_is_configured() -> None:
    async with bare(echo) as server:
        plain = settings_for(server.port)
        with_braces = msgspec.structs.replace(plain, auth=msgspec.structs.replace(AUTH, get_body_candidates=("", "{}")))
        for settings, expected in ((plain, 401), (with_braces, 200)):
            async with proxying(settings) as proxied, calling(proxied) as client:
                signed_over_braces = headers_of(b"{}", scheme=epistula.DIPPY, method="GET")
                got = await client.ask(raw("GET", "/capacity", b"", signed_over_braces))
                assert got.status == expected
                got = await client.ask(raw("GET", "/capacity", b"", headers_of(b"", scheme=epistula.DIPPY)))
                assert got.status == 200


async def test_texts_of_the_x_epistula_dialect_are_those_of_its_template() -> None:
    body = b"{}"
    auth = msgspec.structs.replace(AUTH, schemes=("x-epistula",))
    scheme = profiles.STRICT["x-epistula"]
    async with (
        bare(echo) as server,
        proxying(settings_for(server.port, auth=auth)) as proxied,
        calling(proxied) as client,
    ):
        good = headers_of(body, scheme=scheme)
        assert (await client.ask(raw("POST", "/inference", body, good))).status == 200

        async def detail(headers: dict[str, str]) -> tuple[int, object]:
            got = await client.ask(raw("POST", "/inference", body, headers))
            return got.status, got.json()["detail"]

        partly = {"X-Epistula-Signature": good["X-Epistula-Signature"]}
        assert await detail(partly) == (401, "Missing Epistula headers")
        for ago_s in (61, -61):
            assert await detail(headers_of(body, scheme=scheme, ago_s=ago_s)) == (401, "Timestamp too old")
        assert await detail(headers_of(b"[]", scheme=scheme)) == (401, "Signature verification failed")
        assert await detail(good | {"X-Epistula-Signature": "zz"}) == (401, "Invalid signature")
