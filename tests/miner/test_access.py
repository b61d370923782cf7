"""Who may use a namespace: a signature that names no operation is good for the request that it came with."""

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engram.clock import ManualClock
from engram.hotkeys import AuthError, Keypair, miner_scheme, verify
from engram.hotkeys.replay_guard import FirstUse
from engram.memory.filters import EVERYTHING
from engram.miner.service import Service
from engram.miner.surface import RETRY
from tests.memory.stores import DIMENSION
from tests.miner import endpoints
from tests.miner.endpoints import Answer
from tests.miner.nodes import encoded, in_namespace, serving, signed

ANNA = Keypair.from_seed(bytes([11]) * 32)
EVE = Keypair.from_seed(bytes([13]) * 32)
UP = [1.0] + [0.0] * (DIMENSION - 1)
SECRET = "kept between us"
SHARE = {"share_index": 1, "share_hex": "ab", "threshold": 2, "total": 3}

Ask = Callable[[Service, dict[str, Any], str], Awaitable[Answer]]


def posted(ask: Callable[[Service, bytes], Awaitable[Answer]], **fields: Any) -> Ask:
    """A request with a body, that names the CID where it has none."""

    async def asked(service: Service, named: dict[str, Any], cid: str) -> Answer:
        return await ask(
            service, encoded({**{key: cid if value == "CID" else value for key, value in fields.items()}, **named})
        )

    return asked


async def retrieved(service: Service, named: dict[str, Any], cid: str) -> Answer:
    return await endpoints.retrieve(service, cid, {key: str(value) for key, value in named.items()})


async def rooted(service: Service, named: dict[str, Any], cid: str) -> Answer:
    return await endpoints.commitment(service, {key: str(value) for key, value in named.items()})


CHALLENGE = {"cid": "CID", "nonce_hex": "11" * 32, "expires_at": 4_000_000_000}
READS: dict[str, Ask] = {
    "query": posted(endpoints.query, query_vector=UP),
    "list": posted(endpoints.listing),
    "walk": posted(endpoints.listing, after=None),
    "look up": posted(endpoints.look_up, key="text", values=[SECRET]),
    "challenge": posted(endpoints.challenge, **CHALLENGE),
    "prove": posted(endpoints.prove_memory, cid="CID"),
    "share": posted(endpoints.get_key_share),
    "retrieve": retrieved,
    "root": rooted,
}
WRITES: dict[str, Ask] = {
    "ingest": posted(endpoints.ingest, raw_embedding=UP, metadata={"of": "another"}),
    "batch": posted(endpoints.ingest_batch, items=[{"raw_embedding": UP}]),
    "delete batch": posted(endpoints.delete_batch, cids=["CID"]),
    "put share": posted(endpoints.put_key_share, **{**SHARE, "share_hex": "cd"}),
}
EVERY = READS | WRITES


async def settled(service: Service, now_ms: int) -> str:
    """A record and a share of Anna's; returns the CID."""
    told = {"raw_embedding": UP, "metadata": {"text": SECRET}, "namespace": "notes"}
    answer = await endpoints.ingest(service, signed(ANNA, "IngestSynapse", told, now_ms))
    share = {**SHARE, "namespace": "notes"}
    assert (await endpoints.put_key_share(service, signed(ANNA, "KeyShareSynapse", share, now_ms))).status == 200
    return str(answer.body["cid"])


def refusal(answer: Answer) -> tuple[int, object]:
    return answer.status, answer.body.get("code")


@pytest.mark.parametrize("then", EVERY)
async def test_a_version_1_signature_read_on_its_way_opens_nothing_else(tmp_path: Path, then: str) -> None:
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock, tenants="anyone") as service:
        cid = await settled(service, now_ms)
        before = await service.store.page(f"{ANNA.public_key.hex()}:notes", EVERYTHING, 10, 0)
        for number, first in enumerate(EVERY):
            if first == then or first in WRITES:
                continue
            named = in_namespace(ANNA, "notes", now_ms + number)
            assert (await EVERY[first](service, named, cid)).status == 200, first
            stolen = await EVERY[then](service, named, cid)
            assert refusal(stolen) == (403, "namespace_signature_used"), (first, then)
            assert SECRET not in str(stolen.body)
        assert await service.store.page(f"{ANNA.public_key.hex()}:notes", EVERYTHING, 10, 0) == before


async def test_a_version_1_signature_of_a_write_shows_nothing_to_who_has_read_it(tmp_path: Path) -> None:
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock, tenants="anyone") as service:
        cid = await settled(service, now_ms)
        named = in_namespace(ANNA, "notes", now_ms)
        assert (await WRITES["ingest"](service, named, cid)).body["error"] is None
        for then, ask in EVERY.items():
            if then != "ingest":
                assert refusal(await ask(service, named, cid)) == (403, "namespace_signature_used"), then
        other = posted(endpoints.ingest, raw_embedding=UP, metadata={"of": "eve"})
        assert refusal(await other(service, named, cid)) == (403, "namespace_signature_used")


@pytest.mark.parametrize("read", READS)
async def test_the_very_same_read_may_come_again(tmp_path: Path, read: str) -> None:
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock, tenants="anyone") as service:
        cid = await settled(service, now_ms)
        named = in_namespace(ANNA, "notes", now_ms)
        assert [(await READS[read](service, named, cid)).status for _ in range(3)] == [200] * 3


async def test_a_write_is_taken_once_so_that_nothing_deleted_returns_with_it(tmp_path: Path) -> None:
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock, tenants="anyone") as service:
        sent = encoded({"raw_embedding": UP, **in_namespace(ANNA, "notes", now_ms)})
        cid = str((await endpoints.ingest(service, sent)).body["cid"])
        gone = signed(ANNA, "DeleteSynapse", {"cid": cid, "namespace": "notes"}, now_ms)
        assert (await endpoints.delete(service, cid, gone)).status == 200
        assert refusal(await endpoints.ingest(service, sent)) == (403, "replayed")
        assert (await retrieved(service, in_namespace(ANNA, "notes", now_ms + 1), cid)).status == 404


async def test_a_request_that_was_refused_leaves_no_signature_to_be_used(tmp_path: Path) -> None:
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock, tenants="anyone", require_signature=True) as service:
        await settled(service, now_ms)
        for changed in ({}, {"signed_for": ANNA.ss58}):
            named = {**in_namespace(ANNA, "notes", now_ms), **changed}
            assert (await endpoints.listing(service, encoded(named))).status == 401
            stolen = {key: value for key, value in named.items() if key != "signed_for"}
            answer = await endpoints.listing(service, signed(EVE, "list", stolen, now_ms + len(changed)))
            assert refusal(answer) == (403, "namespace_signature_used")


async def test_clients_that_sign_twice_in_one_millisecond_are_both_served(tmp_path: Path) -> None:
    """As those in JavaScript do, which stamp with Date.now() and send without waiting."""
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock, tenants="anyone") as service:
        for number in range(5):
            told = {"raw_embedding": UP, "metadata": {"n": number}, **in_namespace(ANNA, "notes", now_ms)}
            assert (await endpoints.ingest(service, encoded(told))).body["error"] is None


async def test_a_signature_spelled_in_another_way_is_the_same_signature(tmp_path: Path) -> None:
    clock = ManualClock()
    now_ms = int(clock.now() * 1000)
    async with serving(tmp_path, clock=clock, tenants="anyone") as service:
        cid = await settled(service, now_ms)
        named = in_namespace(ANNA, "notes", now_ms)
        assert (await READS["list"](service, named, cid)).status == 200
        digits = named["namespace_sig"].removeprefix("0x")
        for spelling in (digits, digits.upper(), "0x" + digits.upper()):
            stolen = await READS["query"](service, {**named, "namespace_sig": spelling}, cid)
            assert refusal(stolen) == (403, "namespace_signature_used")


def test_no_other_signature_can_be_made_of_one(tmp_path: Path) -> None:
    """What the rule rests on: it tells requests apart by their signatures, not by what was signed."""
    message = b"engram-ns:notes:1712345678123"
    signature = ANNA.sign(message)
    changed = [bytearray(signature) for _ in range(512)]
    for bit, one in enumerate(changed):
        one[bit // 8] ^= 1 << bit % 8
    assert not any(verify(ANNA.public_key, message, bytes(one)) for one in changed)
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") & ((1 << 255) - 1)
    larger = [scalar + times * order for times in range(1, 8)]
    encodings = [signature[:32] + (each | 1 << 255).to_bytes(32, "little") for each in larger if each < 1 << 255]
    assert encodings
    assert not any(verify(ANNA.public_key, message, each) for each in encodings)


def test_what_has_no_room_is_refused_for_now_and_nothing_is_forgotten_for_it() -> None:
    now_ms = 1_750_000_000_000
    uses = FirstUse(window_ms=miner_scheme.NAMESPACE_WINDOW_MS, bound=3, per_sender=3)

    def use(number: int, body: bytes, later_ms: int = 0) -> str:
        fields = miner_scheme.sign_namespace(ANNA, "notes", now_ms + later_ms) if number else kept
        one = miner_scheme.verify_namespace(fields, now_ms + later_ms)
        try:
            uses.accept(one, str(fields["namespace_sig"]), "list", body, now_ms=now_ms + later_ms, repeatable=True)
        except AuthError as refused:
            return refused.code
        return "admitted"

    kept = miner_scheme.sign_namespace(ANNA, "notes", now_ms)
    assert use(0, b"one") == "admitted"
    assert [use(number, b"two") for number in (1, 2)] == ["busy"] * 2
    assert [use(0, b"one"), use(0, b"two")] == ["admitted", "bound_elsewhere"]
    assert use(3, b"two", 200_000) == "admitted"


async def test_a_node_that_has_no_room_says_when_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, tenants="anyone") as service:
        monkeypatch.setattr(service.gate, "_first_uses", FirstUse(window_ms=60_000, bound=1, per_sender=1))
        answer = await endpoints.listing(service, encoded(in_namespace(ANNA, "notes")))
        assert refusal(answer) == (503, "busy")
        assert answer.headers == RETRY


async def test_a_large_body_is_never_verified_on_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    verify_request = miner_scheme.verify_namespace_request

    def noted(*arguments: Any) -> Any:
        threads.append(threading.get_ident())
        return verify_request(*arguments)

    monkeypatch.setattr(miner_scheme, "verify_namespace_request", noted)
    async with serving(tmp_path, tenants="anyone") as service:
        now_ms = int(service.clock.now() * 1000)
        fields: dict[str, Any] = {"filter": {"large": "x" * 20_000}}
        named = miner_scheme.sign_namespace_request(ANNA, "list", "notes", fields, now_ms)
        assert (await endpoints.listing(service, encoded(named))).status == 200
        assert (await endpoints.listing(service, encoded({**named, "limit": 1}))).status == 403
    assert len(threads) == 2
    assert threading.get_ident() not in threads
