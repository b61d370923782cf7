"""The tree of a worker, and what keeps one from starting."""

import re
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import trio
from structlog.testing import capture_logs

from config.model import Settings, WorkerSettings
from engram.clock import SystemClock
from engram.hotkeys import Keypair, WalletFileError, wallet
from engram.http.client import HttpClient
from engram.roles import worker
from engram.roles.registration import chain_of, require_worker_registered
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import LivingChain
from tests.roles.test_trees import drawn, shared

TREE = """
root                      one_for_one
  ledger
  loop_lag                disable
  ops
  worker
"""
ALICE, STRANGER = Keypair.from_uri("//Alice"), Keypair.from_uri("//nobody")


def test_the_tree_of_a_worker() -> None:
    assert drawn(worker.tree(shared(), MagicMock())) == TREE


def test_the_worker_stops_before_all_that_it_needs() -> None:
    children = [child.id for child in worker.tree(shared(), MagicMock()).children]
    assert (children[0], children[-1]) == ("ledger", "worker")


def test_the_hotkey_is_the_wallets_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".bittensor" / "wallets" / "miner" / "hotkeys" / "first"
    wallet.write_hotkey_file(own, ALICE)
    assert worker.hotkey_of(WorkerSettings(wallet_name="miner", hotkey_name="first")) == ALICE
    assert worker.WorkerRole(Settings(worker=WorkerSettings(hotkey_file=str(own))), tmp_path).keypair == ALICE
    with pytest.raises(WalletFileError, match="miner/hotkeys/second"):
        worker.hotkey_of(WorkerSettings(wallet_name="miner", hotkey_name="second"))


async def test_a_hotkey_that_is_not_registered_is_named_with_what_registers_it() -> None:
    chain, http = LivingChain(), HttpClient()
    async with trio.open_nursery() as nursery:
        server = ChainServer(chain)
        await nursery.start(server.run)
        at = WorkerSettings(network=server.url, netuid=450, wallet_name="miner", hotkey_name="first")
        text = f"is not registered on subnet 450 of {server.url}: `engram subnet register --network {server.url}"
        with pytest.raises(ValueError, match=re.escape(text)):
            await require_worker_registered(at, STRANGER.public_key, http, SystemClock())
        with capture_logs() as logs:
            await require_worker_registered(at, ALICE.public_key, http, SystemClock())
        assert logs == []
        nursery.cancel_scope.cancel()
    await http.aclose()


async def test_nothing_is_asked_where_no_network_is_named() -> None:
    await require_worker_registered(WorkerSettings(), ALICE.public_key, MagicMock(), MagicMock())


async def test_a_chain_that_does_not_answer_keeps_no_worker_from_starting() -> None:
    http = HttpClient()
    with capture_logs() as logs:
        at = WorkerSettings(network="ws://127.0.0.1:1")
        await require_worker_registered(at, ALICE.public_key, http, SystemClock())
    assert [line["event"] for line in logs] == ["registration_unknown"]
    await http.aclose()


def test_a_network_is_a_name_or_an_url() -> None:
    assert chain_of(WorkerSettings(network="test")).network == "test"
    assert chain_of(WorkerSettings(network="wss://a.example")).endpoints == ("wss://a.example",)
