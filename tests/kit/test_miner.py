"""A kit miner over real sockets: who may call, what fits, and what clients of the originals read."""

import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
import pytest

from engram.hotkeys import Keypair
from engram.http.errors import ApiError
from engram.kit import Caller, Miner, MinerSettings
from engram.kit.settings import CallersSection, MinerSection, ServeSection
from engram.kit.signing import signed
from engram.kit.testing import Served, serve

pytestmark = pytest.mark.rules

MINER = Keypair.generate()
VALIDATOR = Keypair.generate()


class Question(msgspec.Struct, forbid_unknown_fields=True):
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]
    top_k: int = 1


class Answer(msgspec.Struct):
    text: str
    caller: str


def miner(*, behind_proxy: bool = True, per_minute: int = 600, allowed: tuple[str, ...] = ()) -> Miner:
    made = Miner(
        MinerSettings(
            miner=MinerSection(hotkey=MINER.ss58),
            serve=ServeSection(port=0, behind_proxy=behind_proxy, requests_per_minute_per_caller=per_minute),
            callers=CallersSection(allowed=allowed),
        )
    )

    @made.post("/inference")
    async def inference(caller: Caller, request: Question) -> Answer:
        """Answer backwards."""
        if request.query == "refuse":
            raise ApiError(422, "no_such_model", "there is no such model")
        if request.query == "fail":
            raise RuntimeError("a fault")
        return Answer(request.query[::-1], caller.hotkey)

    @made.get("/models")
    async def models(caller: Caller) -> list[str]:
        """List the models."""
        return ["reverse"]

    return made


Use = Callable[[Served], Awaitable[None]]


async def served(use: Use, made: Miner | None = None) -> None:
    await serve(made or miner(), [VALIDATOR], use)


def of_seed_002(body: bytes, key: Keypair, *, at_ns: int | None = None) -> dict[str, str]:
    """The headers that the sample client of that document makes."""
    timestamp = str(time.time_ns() if at_ns is None else at_ns)
    message = f"{timestamp}.{hashlib.sha256(body).hexdigest()}"
    return {
        "X-Epistula-Timestamp": timestamp,
        "X-Epistula-Signature": key.sign(message.encode()).hex(),
        "X-Epistula-Hotkey": key.ss58,
    }


async def test_a_validator_gets_the_answer_and_is_known_to_the_handler() -> None:
    async def use(to: Served) -> None:
        answer = await to.post("/inference", {"query": "abc"}, signed_by=VALIDATOR)
        assert (answer.status, answer.json()) == (200, {"text": "cba", "caller": VALIDATOR.ss58})

    await served(use)


async def test_the_sample_client_with_x_epistula_headers_works_unchanged_and_reads_its_texts() -> None:
    async def use(to: Served) -> None:
        body = b'{"query": "abc"}'
        good = of_seed_002(body, VALIDATOR)
        answer = await to.post("/inference", body, headers=good)
        assert (answer.status, answer.json()["text"]) == (200, "cba")

        async def detail(headers: dict[str, str]) -> tuple[int, str]:
            refused = await to.post("/inference", body, headers=headers)
            return refused.status, refused.json()["detail"]

        fresh = of_seed_002(body, VALIDATOR)
        late, early = (of_seed_002(body, VALIDATOR, at_ns=time.time_ns() + sign * 61_000_000_000) for sign in (-1, 1))
        assert await detail({**fresh, "X-Epistula-Signature": "00" * 64}) == (401, "Signature verification failed")
        assert await detail({**fresh, "X-Epistula-Signature": "nonsense"}) == (401, "Invalid signature")
        assert await detail(late) == (401, "Timestamp too old")
        assert await detail(early) == (401, "Timestamp too old")
        del fresh["X-Epistula-Signature"]
        assert await detail(fresh) == (401, "Missing Epistula headers")
        assert await detail(of_seed_002(body, Keypair.generate())) == (403, "Not a validator")

    await served(use)


async def test_where_x_epistula_alone_is_taken_a_request_without_headers_lacks_those() -> None:
    async def use(to: Served) -> None:
        refused = await to.post("/cvm", b"{}")
        assert (refused.status, refused.json()["detail"]) == (401, "Missing Epistula headers")

    section = CallersSection(schemes=("x-epistula",))
    settings = MinerSettings(miner=MinerSection(hotkey=MINER.ss58), serve=ServeSection(port=0), callers=section)
    await serve(Miner(settings), [VALIDATOR], use)


async def test_the_same_request_is_answered_once() -> None:
    async def use(to: Served) -> None:
        body = b'{"query": "abc"}'
        headers = signed(body, VALIDATOR, MINER.public_key)
        assert (await to.post("/inference", body, headers=headers)).status == 200
        again = await to.post("/inference", body, headers=headers)
        assert (again.status, again.json()["code"]) == (401, "replay")

    await served(use)


async def test_a_request_for_another_miner_is_refused() -> None:
    async def use(to: Served) -> None:
        body = b'{"query": "abc"}'
        headers = signed(body, VALIDATOR, Keypair.generate().public_key)
        refused = await to.post("/inference", body, headers=headers)
        assert (refused.status, refused.json()["code"]) == (401, "signed_for_mismatch")

    await served(use)


async def test_the_proxy_on_this_machine_names_the_caller_that_it_has_proven() -> None:
    async def use(to: Served) -> None:
        stranger = Keypair.generate()
        answer = await to.post("/inference", {"query": "ab"}, headers={"X-Epistula-Caller": stranger.ss58})
        assert (answer.status, answer.json()["caller"]) == (200, stranger.ss58)
        wrong = await to.post("/inference", {"query": "ab"}, headers={"X-Epistula-Caller": "nobody"})
        assert (wrong.status, wrong.json()["code"]) == (401, "malformed")

    await served(use)


async def test_a_request_with_a_signature_of_its_own_is_judged_by_that_whatever_caller_it_names() -> None:
    async def use(to: Served) -> None:
        body = b'{"query": "ab"}'
        named = {"X-Epistula-Caller": VALIDATOR.ss58}
        stranger = signed(body, Keypair.generate(), MINER.public_key)
        refused = await to.post("/inference", body, headers=stranger | named)
        assert (refused.status, refused.json()["code"]) == (403, "no_authority")
        answer = await to.post("/inference", body, headers=signed(body, VALIDATOR, MINER.public_key) | named)
        assert (answer.status, answer.json()["caller"]) == (200, VALIDATOR.ss58)

    await served(use)


async def test_without_a_proxy_a_named_caller_is_not_believed() -> None:
    async def use(to: Served) -> None:
        refused = await to.post("/inference", {"query": "ab"}, headers={"X-Epistula-Caller": VALIDATOR.ss58})
        assert (refused.status, refused.json()["code"]) == (401, "missing_header")
        assert refused.json()["detail"] == "Authorization header required"

    await served(use, miner(behind_proxy=False))


@pytest.mark.parametrize(
    ("body", "detail", "field"),
    [
        (b"{}", "Missing query", "query"),
        (b'{"query": ""}', "Missing query", "query"),
        (b'{"query": "' + b"a" * 10_001 + b'"}', "Query too long", "query"),
        (b'{"query": 5}', "Query must be string", "query"),
        (b'{"query": "a", "top_k": "x"}', "Top_k must be an integer", "top_k"),
        (b"nonsense", "The body is not JSON", None),
        (b"\xff\xfe", "The body is not JSON", None),
        (b'{"query": ' * 50_000, "Query must be string", "query"),
    ],
    ids=["missing", "empty", "long", "number", "other", "words", "bytes", "deep"],
)
async def test_what_does_not_fit_is_refused_with_its_field(body: bytes, detail: str, field: str | None) -> None:
    async def use(to: Served) -> None:
        refused = await to.post("/inference", body, signed_by=VALIDATOR)
        said = refused.json()
        assert (refused.status, said["detail"], said.get("field")) == (400, detail, field)

    await served(use)


async def test_a_handlers_refusal_is_the_answer_and_its_fault_is_a_500_with_an_id() -> None:
    async def use(to: Served) -> None:
        refused = await to.post("/inference", {"query": "refuse"}, signed_by=VALIDATOR)
        assert (refused.status, refused.json()["detail"]) == (422, "there is no such model")
        failed = await to.post("/inference", {"query": "fail"}, signed_by=VALIDATOR)
        assert failed.status == 500
        assert failed.json()["request_id"] in failed.headers["x-request-id"]
        assert "a fault" not in failed.content.decode()

    await served(use)


async def test_a_caller_that_asks_too_often_is_refused_until_the_minute_is_over() -> None:
    async def use(to: Served) -> None:
        statuses = [(await to.post("/inference", {"query": "a"}, signed_by=VALIDATOR)).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]

    await served(use, miner(per_minute=3))


async def test_the_offer_is_honest_where_there_is_no_gpu() -> None:
    async def use(to: Served) -> None:
        for body in (b"", b"{}", b'{"nonce": "n-1", "else": 1}'):
            answer = await to.post("/cvm", body, signed_by=VALIDATOR)
            offer = answer.json()
            assert (answer.status, offer["bid_per_hour"]) == (200, 0.5)
            assert (offer["gpu_type"], offer["vram_gb"], offer["gpu_count"]) == (None, None, 0)
            assert (offer["attestation"], offer["attestation_reason"]) == (None, "no attestation is configured")

    await served(use)


async def test_a_get_handler_takes_the_caller_alone_and_health_needs_none() -> None:
    async def use(to: Served) -> None:
        models = await to.get("/models", headers=signed(b"", VALIDATOR, MINER.public_key))
        assert models.json() == ["reverse"]
        assert (await to.get("/models")).status == 401
        assert (await to.get("/health")).json() == {"status": "ok"}

    await served(use)


def test_a_handler_without_types_is_refused_when_it_is_written() -> None:
    made = miner()
    with pytest.raises(TypeError, match=r"ask must be `async def ask\(caller: Caller, request: YourStruct\)"):

        @made.post("/ask")
        async def ask(caller, request):  # type: ignore[no-untyped-def]
            return None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("inference", "'inference' is no path: write one as /inference"),
        ("/", "'/' is no path"),
        ("/a/<name>", "is no path"),
        ("/a?b=c", "is no path"),
        ("/cvm", "POST /cvm is answered already"),
        ("/inference", "POST /inference is answered already"),
    ],
)
def test_a_path_that_is_none_or_is_taken_is_refused_when_it_is_written(path: str, words: str) -> None:
    made = miner()

    async def ask(caller: Caller, request: Question) -> Answer:
        raise NotImplementedError

    with pytest.raises(ValueError, match=re.escape(words)):
        made.post(path)(ask)
