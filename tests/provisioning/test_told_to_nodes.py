"""What of the gateway's settings its nodes are told."""

from typing import Literal

import pytest

from config.model import ChainSettings, MinerSettings, Settings
from engram.provisioning.backend_factory import make_backends
from engram.provisioning.local import LocalBackend, LocalSettings
from tests.provisioning.conftest import MakePorts


def test_nodes_are_told_the_chain_and_the_embedding_server(
    backend_ports: MakePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    def told(source: Literal["rpc", "recorded"], embedder: Literal["openai", "hash"]) -> LocalSettings:
        chain = ChainSettings(source=source, endpoints=("http://a", "http://b"))
        miner = MinerSettings(
            embedder=embedder, embedding_url="http://c/v1", embedding_model="m", embedding_dimension=3
        )
        backend = make_backends(backend_ports(Settings(chain=chain, miner=miner))).of("local")
        assert isinstance(backend, LocalBackend)
        return backend._settings  # pyright: ignore[reportPrivateUsage]

    asking = told("rpc", "openai")
    assert asking.common.chain_endpoints == ("http://a", "http://b")
    assert (asking.common.embedder.url, asking.common.embedder.dimension) == ("http://c/v1", 3)
    assert asking.environment["OPENAI_API_KEY"] == "sk-secret"
    alone = told("recorded", "hash")
    assert alone.common.chain_endpoints == ()
    assert "OPENAI_API_KEY" not in alone.environment
