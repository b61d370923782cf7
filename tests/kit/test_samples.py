"""The kit beside the samples of the document that it is made after: the same clients get the same answers from both."""

import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from engram.kit import Miner, MinerSettings, RateLimiter, clear_gpu_memory, get_available_memory
from engram.kit.checklist import LINES
from engram.kit.settings import CallersSection, MinerSection, OfferSection, ServeSection
from engram.kit.testing import Served, serve
from engram.kit.words import misfit
from tests.http.servers import bare
from tests.kit.samples import CHECKLIST, Metagraph, bittensor, document, installed, run_sample, torch
from tests.kit.test_chain import Table
from tests.kit.test_miner import Question, of_seed_002
from tests.proxy.signing import ALICE, BOB, CHARLIE, EVE
from tests.sampling import SEED
from tests.shared import needs_shared

pytestmark = [needs_shared, pytest.mark.shared]

STAKES = {ALICE: (True, 1_001), CHARLIE: (True, 1_000), EVE: (False, 5_000)}
STRANGER = Keypair.from_uri("//nobody")
BODY = b'{"nonce": "n-1"}'
Headers = dict[str, str]


def late(seconds: float) -> Headers:
    return of_seed_002(BODY, ALICE, at_ns=time.time_ns() + int(seconds * 1e9))


def without(name: str) -> Headers:
    headers = of_seed_002(BODY, ALICE)
    del headers[name]
    return headers


def forged(signature: str) -> Headers:
    return of_seed_002(BODY, ALICE) | {"X-Epistula-Signature": signature}


SAME: list[tuple[str, Callable[[], Headers], tuple[int, str]]] = [
    ("a validator", lambda: of_seed_002(BODY, ALICE), (200, "")),
    ("too little stake", lambda: of_seed_002(BODY, CHARLIE), (403, "Not a validator")),
    ("no permit", lambda: of_seed_002(BODY, EVE), (403, "Not a validator")),
    ("not registered", lambda: of_seed_002(BODY, STRANGER), (403, "Not a validator")),
    ("no headers", dict, (401, "Missing Epistula headers")),
    ("no timestamp", lambda: without("X-Epistula-Timestamp"), (401, "Missing Epistula headers")),
    ("no signature", lambda: without("X-Epistula-Signature"), (401, "Missing Epistula headers")),
    ("no hotkey", lambda: without("X-Epistula-Hotkey"), (401, "Missing Epistula headers")),
    ("past", lambda: late(-61), (401, "Timestamp too old")),
    ("future", lambda: late(61), (401, "Timestamp too old")),
    ("another's signature", lambda: forged("00" * 64), (401, "Signature verification failed")),
    ("another body", lambda: of_seed_002(b"{}", ALICE), (401, "Signature verification failed")),
]
"""What both answer: the status, and the text in `detail`."""
OTHERWISE: list[tuple[str, Callable[[], Headers], tuple[int, str], tuple[int, str]]] = [
    # The sample's own `except` swallows its "Invalid signature".
    (
        "no hex",
        lambda: forged("nonsense"),
        (401, "Signature verification failed"),
        (401, "Invalid signature"),
    ),
    (
        "a timestamp that is none",
        lambda: of_seed_002(BODY, ALICE) | {"X-Epistula-Timestamp": "now"},
        (500, ""),
        (401, "Invalid signature"),
    ),
]
"""Where the kit answers otherwise: the sample's answer, then the kit's."""


def kit_miner() -> Miner:
    """A miner that offers what the sample does, to whom the sample does."""
    return Miner(
        MinerSettings(
            miner=MinerSection(hotkey=BOB.ss58),
            serve=ServeSection(port=0, behind_proxy=False),
            callers=CallersSection(chain_endpoint="ws://127.0.0.1:9"),
            offer=OfferSection(
                gpu_type="A100",
                vram_gb=80,
                attestation="command",
                attestation_command=("echo", "proof"),
            ),
        )
    )


async def answer_of(url: str, headers: Headers) -> tuple[int, dict[str, Any]]:
    http = HttpClient()
    answer = await http.request("POST", url + "/cvm", content=BODY, headers=headers)
    await http.aclose()
    return answer.status, answer.json() if answer.status != 500 else {}


def told(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], str(answer[1].get("detail", ""))


@pytest.fixture
def sample_miner() -> dict[str, Any]:
    """Pattern A of the document, as it is written; its names."""
    metagraph = Metagraph({key.ss58: (permit, float(stake)) for key, (permit, stake) in STAKES.items()})
    with installed(bittensor=bittensor(metagraph)):
        return run_sample('@app.post("/cvm")', MY_NETUID=11)


async def test_a_client_of_the_sample_miner_is_answered_by_the_kit_in_the_same_way(
    sample_miner: dict[str, Any],
) -> None:
    chain = Table()
    for key, (permit, stake) in STAKES.items():
        chain.put(key, permit=permit, weighted=stake)

    async def use(to: Served) -> None:
        async with bare(sample_miner["app"]) as theirs:
            url = f"http://127.0.0.1:{theirs.port}"
            for name, headers, expected in SAME:
                sample, kit = await answer_of(url, headers()), await answer_of(to.url, headers())
                # The kit takes other schemes as well, and without a header of any it does not know which was meant.
                meant = (401, "Authorization header required") if name == "no headers" else expected
                assert (name, told(sample), told(kit)) == (name, expected, meant)
                if expected[0] == 200:
                    assert sample[1].keys() <= kit[1].keys()
                    offered = sample_miner["CVMInfo"](**kit[1])
                    assert (offered.gpu_type, offered.vram_gb, offered.bid_per_hour) == ("A100", 80, 0.5)
                    assert offered.attestation == "proof"
            for name, headers, theirs_said, ours_said in OTHERWISE:
                sample, kit = await answer_of(url, headers()), await answer_of(to.url, headers())
                assert (name, told(sample), told(kit)) == (name, theirs_said, ours_said)

    await serve(kit_miner(), [], use, chain=chain)


async def test_health_is_answered_as_the_sample_does(sample_miner: dict[str, Any]) -> None:
    async def use(to: Served) -> None:
        async with bare(sample_miner["app"]) as theirs:
            http = HttpClient()
            answers = [
                await http.request("GET", f"{url}/health") for url in (f"http://127.0.0.1:{theirs.port}", to.url)
            ]
            await http.aclose()
        assert [(each.status, each.json()) for each in answers] == [(200, {"status": "ok"})] * 2

    await serve(kit_miner(), [], use)


def test_the_limiter_allows_what_the_samples_does() -> None:
    at = SimpleNamespace(now=0)
    theirs_of = run_sample("class RateLimiter")
    theirs_of["time"] = SimpleNamespace(time=lambda: at.now)
    rng = random.Random(SEED)
    for _ in range(50):
        most, window = rng.randint(1, 4), rng.randint(1, 20)
        theirs, ours = theirs_of["RateLimiter"](most, window), RateLimiter(most, window, now=lambda: float(at.now))
        for _ in range(100):
            at.now += rng.choice((0, 0, 1, 2, 7))
            caller = rng.choice("ab")
            assert theirs.is_allowed(caller) is ours.is_allowed(caller)


@pytest.mark.parametrize(
    ("query", "text"),
    [("", "Missing query"), ("a" * 10_001, "Query too long"), (["a"], "Query must be string")],
)
def test_what_does_not_fit_is_told_in_the_samples_words(query: object, text: str) -> None:
    validate = run_sample("def validate_request")["validate_request"]
    assert validate(SimpleNamespace(query=query)) == (False, text)
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(msgspec.json.encode({"query": query}), type=Question)
    assert misfit(str(refused.value)).detail == text
    assert validate(SimpleNamespace(query="a" * 10_000)) == (True, "")


@pytest.mark.parametrize("available", [True, False])
def test_memory_is_released_and_told_as_by_the_sample(available: bool) -> None:
    calls: list[str] = []
    with installed(torch=torch(calls, available=available)):
        theirs = run_sample("def clear_gpu_memory")
        theirs["clear_gpu_memory"]()
        clear_gpu_memory()
        assert calls == ["empty_cache", "synchronize"] * (2 if available else 0)
        assert get_available_memory() == theirs["get_available_memory"]() == (79.0 if available else 0)


def test_the_checklist_has_the_documents_eight_lines_by_their_words() -> None:
    assert tuple(CHECKLIST.findall(document())) == LINES
