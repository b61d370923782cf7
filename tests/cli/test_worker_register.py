"""`engram run worker --register --max-cost TAO`: registered when that is asked for, and never by itself."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.hotkeys import Keypair
from tests.cli.chains import served, write_wallet
from tests.cli.conftest import Run
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import LivingChain, funded

ROOT = Path(__file__).resolve().parents[2]
NEW, COLDKEY = Keypair.from_uri("//a new worker"), Keypair.from_uri("//sn450//cold//7")
FUNDS_RAO = 5_000_000_000_000
SETTINGS = """[worker]
orchestrator_url = "http://127.0.0.1:9"
inference_url = "http://127.0.0.1:9/inference"
network = "{network}"
netuid = 450
wallet_name = "mine"
hotkey_name = "hot"
"""


@pytest.fixture
def chain() -> LivingChain:
    chain = LivingChain()
    funded(chain, COLDKEY.public_key, FUNDS_RAO)
    return chain


@pytest.fixture
def server(chain: LivingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


@pytest.fixture
def settings(here: Path, server: ChainServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a worker whose wallet's hotkey is not registered."""
    monkeypatch.setenv("HOME", str(here))
    write_wallet(here / ".bittensor" / "wallets", "mine", hotkey=NEW, coldkey=COLDKEY)
    file = here / "worker.toml"
    file.write_text(SETTINGS.format(network=server.url))
    return file


def test_a_worker_is_registered_and_starts(settings: Path, chain: LivingChain) -> None:
    reading, writing = os.pipe()
    words = ["run.py", "worker", "--profile", "local", "--config", str(settings), "--data-dir", str(settings.parent)]
    words += ["--ops-port", "0", "--ready-fd", str(writing), "--register", "--max-cost", "1"]
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, pass_fds=(writing,), stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert line, said
    assert "ops_url" in json.loads(line)
    assert "Registering on subnet 450 burns 0.100000000 TAO." in said
    assert chain.burned == [(COLDKEY.public_key, NEW.public_key)]


def test_a_worker_is_not_registered_by_itself(run: Run, settings: Path, chain: LivingChain) -> None:
    ran = run("run", "worker", "--profile", "local", "--config", str(settings), "--ops-port", "0")
    assert (ran.code, chain.burned) == (2, [])
    assert "so does this command with `--register --max-cost TAO`" in ran.err


def test_a_cost_above_the_limit_is_not_paid(run: Run, settings: Path, chain: LivingChain) -> None:
    ran = run("run", "worker", "--profile", "local", "--config", str(settings), "--register", "--max-cost", "0.05")
    assert (ran.code, chain.burned) == (1, [])
    assert "more than the limit of 0.05; nothing was paid" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["worker", "--register"], "say how much at most by --max-cost"),
        (["worker", "--max-cost", "1"], "--max-cost says what --register may pay at most"),
        (["facilitator", "--register", "--max-cost", "1"], "engram run worker --register"),
        (["worker", "--register", "--max-cost", "1", "--set", "worker.network="], "--register needs worker.network"),
        (["worker", "--register", "--max-cost", "1", "--set", "worker.hotkey_name=other"], "hotkeys/other"),
    ],
)
def test_what_cannot_be_registered_is_refused_before_anything_is_paid(
    words: list[str], said: str, run: Run, settings: Path, chain: LivingChain
) -> None:
    ran = run("run", *words, "--profile", "local", "--config", str(settings))
    assert ran.code in (1, 2)
    assert said in ran.err
    assert chain.burned == []
