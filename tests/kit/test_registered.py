"""A miner whose file names a chain starts with a registered hotkey alone, and registers none by itself."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.hotkeys import Keypair
from engram.kit.scaffold import create
from tests.cli.chains import served
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import LivingChain
from tests.kit.projects import command, engram, running
from tests.proxy.signing import BOB

REGISTERED = Keypair.from_uri("//sn450//hot//7")


@pytest.fixture
def chain() -> LivingChain:
    return LivingChain()


@pytest.fixture
def server(chain: LivingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


def miner(folder: Path, chain_url: str, hotkey: Keypair) -> Path:
    """A project on the recorded subnet, whose file names a chain."""
    create(folder, netuid=450, port=8091, hotkey=hotkey.ss58)
    settings = (folder / "miner.toml").read_text().replace('chain_endpoint = ""', f'chain_endpoint = "{chain_url}"')
    (folder / "miner.toml").write_text(settings)
    return folder


def start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return command(sys.executable, "miner.py", "--port", "0", *options, folder=folder)


def test_a_miner_that_is_not_registered_names_what_registers_it_and_pays_nothing(
    tmp_path: Path, server: ChainServer, chain: LivingChain
) -> None:
    folder = miner(tmp_path / "mine", f"{server.url}/a-key-of-the-endpoint", BOB)
    ended = start(folder)
    assert (ended.returncode, chain.burned) == (2, [])
    assert (
        f"the hotkey {BOB.ss58} is not registered on subnet 450 of {server.url}: `engram subnet register"
        in ended.stderr
    )
    assert "a-key-of-the-endpoint" not in ended.stderr
    assert "author_submitExtrinsic" not in chain.asked


def test_a_registered_miner_serves(tmp_path: Path, server: ChainServer) -> None:
    with running(miner(tmp_path / "mine", server.url, REGISTERED), "--port", "0") as url:
        assert url


@pytest.mark.heavy
def test_the_look_on_this_machine_needs_no_registered_hotkey(tmp_path: Path, server: ChainServer) -> None:
    shown = engram("miner-check", "--local", folder=miner(tmp_path / "mine", server.url, BOB))
    assert shown.returncode == 0, shown.stdout + shown.stderr
