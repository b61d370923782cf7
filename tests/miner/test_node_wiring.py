"""What a node is told to use outside itself: an embedding server, and a chain that is asked at more than one place."""

import json
import random
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors import ChildSpec, Context, Job, SupervisorSpec, open_system
from config.model import MinerSettings
from engram.memory.embed.minilm import MiniLmEmbedder
from engram.memory.errors import IndexUnavailable, MemoryAreaError
from engram.miner.embedding import make_embedder
from engram.miner.errors import NodeError
from engram.nodes import launch
from engram.nodes.launch import EmbedderLaunch, LaunchFileError
from engram.roles import miner
from tests.fakes.chain import ChainDouble, ChainServer
from tests.fakes.responder import Answer, Asked, Responder
from tests.miner.nodes import NodeProcess, node

LAUNCH = launch.LaunchFile(
    session_id="s", launch_token="t", port=1, data_dir="d", hotkey_file="h", controller_public_key="00" * 32
)
OPENAI = MinerSettings(
    embedder="openai", embedding_url="http://127.0.0.1:9/v1", embedding_model="small", embedding_dimension=3
)


def test_the_launch_file_wins_over_the_settings() -> None:
    assert make_embedder(LAUNCH, OPENAI).name == "small"
    told = launch.LaunchFile(**{**_fields(), "embedder": EmbedderLaunch(kind="hash")})
    assert make_embedder(told, OPENAI).dimension == 384


def _fields() -> dict[str, Any]:
    return {name: getattr(LAUNCH, name) for name in LAUNCH.__struct_fields__}


def test_weights_are_downloaded_only_where_the_settings_say_so(tmp_path: Path) -> None:
    for weights, downloaded in (("installed", False), ("hub", True)):
        settings = MinerSettings(weights=weights, cache_dir=str(tmp_path))  # type: ignore[arg-type]  # both are words
        made = make_embedder(LAUNCH, settings)
        assert isinstance(made, MiniLmEmbedder)
        assert (launch.embedder_of(settings).hub_url is not None) == downloaded


def test_an_embedding_server_that_is_half_told_is_refused() -> None:
    with pytest.raises(LaunchFileError, match="embedding_dimension"):
        make_embedder(LAUNCH, MinerSettings(embedder="openai", embedding_url="http://x", embedding_model="m"))


def test_a_key_that_is_none_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    with pytest.raises(NodeError, match="OPENAI_API_KEY") as refused:
        make_embedder(LAUNCH, OPENAI)
    assert "two words" not in str(refused.value)
    assert not isinstance(refused.value, MemoryAreaError)


@pytest.mark.serial
async def test_a_node_asks_the_embedding_server_that_its_settings_name(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def embedding(asked: Asked) -> Answer:
        texts = json.loads(asked.body)["input"]
        data = [{"index": i, "embedding": [1.0, float(len(text)), 0.0]} for i, text in enumerate(texts)]
        return 200, {"content-type": "application/json"}, json.dumps({"data": data}).encode()

    server = Responder(embedding)
    url = await nursery.start(server.run)
    settings = MinerSettings(
        embedder="openai", embedding_url=f"{url}/v1", embedding_model="small", embedding_dimension=3
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")

    def use() -> dict[str, Any]:
        with node(tmp_path, embedder=None, miner=settings) as running:
            assert running.get("/health")["dimension"] == 3
            assert running.post("/IngestSynapse", text="four")["error"] is None
            assert "sk-from" not in running.log() + running.launch_file.read_text()
            return running.post("/QuerySynapse", query_text="tour")

    (hit,) = (await trio.to_thread.run_sync(use))["results"]
    assert hit["score"] == pytest.approx(1.0)
    assert server.asked[0].headers["authorization"] == "Bearer sk-from-the-environment"


@pytest.mark.serial
@pytest.mark.parametrize("honest", [True, False])
async def test_a_chain_is_believed_when_two_of_its_endpoints_agree(
    tmp_path: Path, nursery: trio.Nursery, honest: bool
) -> None:
    first, second = ChainServer(ChainDouble("first")), ChainServer(ChainDouble("second"))
    if not honest:
        second.double.metagraphs["0xc201"] = lambda scale: scale[:-1] + bytes([scale[-1] ^ 1])
    urls = [await nursery.start(server.run) for server in (first, second)]

    def use(running: NodeProcess) -> dict[str, Any]:
        give_up = time.monotonic() + 15
        while time.monotonic() < give_up:
            told = running.get("/metagraph")
            if told["block"] is not None or "chain_endpoints_differ" in running.log():
                return told
            time.sleep(0.02)
        raise AssertionError(running.log())

    def run() -> dict[str, Any]:
        with node(tmp_path, chain_endpoints=tuple(urls)) as running:
            return use(running)

    told = await trio.to_thread.run_sync(run)
    assert (told["block"], bool(told["neurons"])) == ((1100, True) if honest else (None, False))
    assert all(server.double.asked for server in (first, second))


async def test_an_index_that_cannot_run_for_an_hour_does_not_end_the_node(autojump_clock: MockClock) -> None:
    async def fails(context: Context) -> None:
        context.ready()
        raise IndexUnavailable("the disk is full")

    (store,) = [child for child in miner.tree(Mock(), Mock()).children if child.id == "store"]
    assert isinstance(store, ChildSpec)
    store = msgspec.structs.replace(store, start=lambda: Job(fails))
    async with open_system(SupervisorSpec("node", [store]), rng=random.Random(1)):
        with trio.move_on_after(3_600) as hour:
            await trio.sleep_forever()
    assert hour.cancelled_caught
