"""The gateway's challenge, met by a real node over a real socket, and failed by those that only pretend."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from config.model import StatsSettings
from engram.clock import SystemClock
from engram.hotkeys import Keypair
from engram.http.client import HttpClient, Response
from engram.http.errors import HttpError, NotSent
from engram.stats import Prover
from tests.miner.nodes import NodeProcess, node

GATEWAY = Keypair.generate()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with node(tmp_path_factory.mktemp("node")) as running:
        for text in ("one", "two", "three"):
            running.post("/IngestSynapse", text=text)
        yield running


class Wire:
    """An HTTP client whose answers a test may change on their way."""

    def __init__(self) -> None:
        self.http = HttpClient()
        self.bend: Any = lambda path, answer: answer
        self.paths: list[str] = []

    async def request(self, method: str, url: str, **told: Any) -> Response:
        path = url.rpartition("/")[2]
        self.paths.append(path)
        answer = self.bend(path, await self.http.request(method, url, **told))
        assert isinstance(answer, Response)
        return answer


def prover(wire: Wire) -> Prover:
    http: Any = wire
    return Prover(http, GATEWAY, StatsSettings(), SystemClock(), random.Random(1))


def hotkey_of(running: NodeProcess) -> bytes:
    from engram.hotkeys import ss58

    return ss58.decode(str(running.get("/health")["hotkey"]))


async def outcome(
    running: NodeProcess, bend: Any = lambda path, answer: answer, hotkey: bytes | None = None
) -> bool | None:
    wire = Wire()
    wire.bend = bend
    try:
        return await prover(wire)(f"http://127.0.0.1:{running.port}", hotkey or hotkey_of(running), 3)
    finally:
        await wire.http.aclose()


async def test_an_honest_node_proves_what_it_lists(running: NodeProcess) -> None:
    for _ in range(3):
        assert await outcome(running) is True
    assert running.get("/stats")["proof_rate"] == 1.0


async def test_a_node_with_another_key_than_the_ledgers_proves_nothing(running: NodeProcess) -> None:
    assert await outcome(running, hotkey=GATEWAY.public_key) is False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("signature", "0x" + "00" * 64),
        ("signature", "nonsense"),
        ("root_hex", "11" * 32),
        ("root_hex", "11"),
        ("proof", "22" * 32),
        ("count", 99),
        ("count", -1),
        ("inclusion", {"key": "00", "depth": 0, "siblings": []}),
        ("inclusion", None),
    ],
)
async def test_a_proof_that_is_changed_does_not_hold(running: NodeProcess, field: str, value: object) -> None:
    def bend(path: str, answer: Response) -> Response:
        if path != "ChallengeSynapse":
            return answer
        return msgspec.structs.replace(answer, content=msgspec.json.encode(answer.json() | {field: value}))

    assert await outcome(running, bend) is False


@pytest.mark.parametrize(("status", "expected"), [(503, False), (500, False), (404, None), (429, None)])
async def test_a_refused_challenge_is_failed_unless_the_record_went_or_there_was_no_time(
    running: NodeProcess, status: int, expected: bool | None
) -> None:
    def bend(path: str, answer: Response) -> Response:
        return msgspec.structs.replace(answer, status=status) if path == "ChallengeSynapse" else answer

    assert await outcome(running, bend) is expected


@pytest.mark.parametrize("content", [b'{"records": []}', b'{"records": 1}', b"no json"])
async def test_a_node_that_lists_nothing_is_not_challenged(running: NodeProcess, content: bytes) -> None:
    def bend(path: str, answer: Response) -> Response:
        assert path == "list"
        return msgspec.structs.replace(answer, content=content)

    assert await outcome(running, bend) is None


async def test_a_node_that_is_not_reached_has_failed_nothing(running: NodeProcess) -> None:
    def bend(path: str, answer: Response) -> Response:
        error: HttpError = NotSent("refused")
        raise error

    assert await outcome(running, bend) is None
