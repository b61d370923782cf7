"""`engram subnet register` on a terminal: the cost is shown, and burned when somebody has typed that it may be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.hotkeys import Keypair
from tests.cli.chains import served, write_wallet
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import NETUID, LivingChain, funded
from tests.terminal import OnTerminal

STRANGER = Keypair.from_uri("//nobody")
COLDKEY = Keypair.from_uri("//sn450//cold//7")
BALANCE_RAO = 5_000_000_000_000
COMMAND = (sys.executable, "-c", "import sys; from engram.cli import main; sys.exit(main(sys.argv[1:]))")
ROOT = Path(__file__).resolve().parents[2]
SUBMIT = "author_submitExtrinsic"


@pytest.fixture
def chain() -> LivingChain:
    chain = LivingChain()
    funded(chain, COLDKEY.public_key, BALANCE_RAO)
    return chain


@pytest.fixture
def server(chain: LivingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


@pytest.fixture
def register(server: ChainServer, tmp_path: Path) -> list[str]:
    """The command line."""
    write_wallet(tmp_path / "wallets", "stranger", hotkey=STRANGER, coldkey=COLDKEY)
    options = ["--netuid", str(NETUID), "--endpoint", server.url, "--wallet.path", str(tmp_path / "wallets")]
    return [*COMMAND, "subnet", "register", *options, "--wallet.name", "stranger", "--wallet.hotkey", "hot"]


def environ() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)}


def answered(register: list[str], folder: Path, typed: str, chain: LivingChain) -> tuple[int, str]:
    """Types an answer once the question is shown; until then nothing may have been paid."""
    with OnTerminal(register, cwd=folder, environ=environ()) as terminal:
        terminal.until("Pay? [y/N] ")
        assert SUBMIT not in chain.asked
        assert chain.burned == []
        terminal.type(typed)
        return terminal.end()


@pytest.mark.parametrize("typed", ["y\n", "YES\n"])
def test_a_typed_yes_burns_the_cost_that_was_shown(
    typed: str, register: list[str], tmp_path: Path, chain: LivingChain
) -> None:
    burn_rao = chain.get("SubtensorModule", "Burn", NETUID)
    code, shown = answered(register, tmp_path, typed, chain)
    assert code == 0, shown
    question, _, rest = shown.partition(" Pay? [y/N] ")
    assert f"burns {burn_rao / 1e9:.9f} TAO of {BALANCE_RAO / 1e9:.9f}." in question
    assert f"registered as uid {chain.uid(STRANGER.public_key)}" in rest
    assert chain.burned == [(COLDKEY.public_key, STRANGER.public_key)]
    assert chain.get("System", "Account", COLDKEY.public_key)["data"]["free"] == BALANCE_RAO - burn_rao


@pytest.mark.parametrize("typed", ["n\n", "\n", "yellow\n", "j\n", "\x04"], ids=["n", "enter", "yellow", "j", "ctrl-d"])
def test_anything_else_typed_pays_nothing(typed: str, register: list[str], tmp_path: Path, chain: LivingChain) -> None:
    code, shown = answered(register, tmp_path, typed, chain)
    assert code == 1, shown
    assert "nothing was paid" in shown
    assert SUBMIT not in chain.asked
    assert chain.burned == []


def test_a_cost_that_rose_while_nobody_typed_is_not_paid(
    register: list[str], tmp_path: Path, chain: LivingChain
) -> None:
    with OnTerminal(register, cwd=tmp_path, environ=environ()) as terminal:
        terminal.until("Pay? [y/N] ")
        chain.put(chain.get("SubtensorModule", "Burn", NETUID) + 1, "SubtensorModule", "Burn", NETUID)
        terminal.type("y\n")
        code, shown = terminal.end()
    assert code == 1
    assert "the cost has risen" in shown
    assert chain.burned == []


def test_a_password_is_asked_for_by_the_key_file_that_wants_it(
    register: list[str], tmp_path: Path, chain: LivingChain
) -> None:
    coldkey = tmp_path / "wallets" / "stranger" / "coldkey"
    coldkey.write_bytes(b"$NACL, and what nobody deciphers here")
    with OnTerminal([*register, "--yes"], cwd=tmp_path, environ=environ()) as terminal:
        terminal.until(f"password of the key file {coldkey}: ")
        terminal.type("\x03")
        code, shown = terminal.end()
    assert (code, "Traceback" in shown) == (130, False)
    assert SUBMIT not in chain.asked


def test_ctrl_c_at_the_question_pays_nothing(register: list[str], tmp_path: Path, chain: LivingChain) -> None:
    code, shown = answered(register, tmp_path, "\x03", chain)
    assert code == 130, shown
    assert "Traceback" not in shown
    assert SUBMIT not in chain.asked


def test_without_a_terminal_it_pays_only_when_told_so(register: list[str], tmp_path: Path, chain: LivingChain) -> None:
    def piped(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*register, *more],
            input="y\n",
            cwd=tmp_path,
            env=environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    refused = piped()
    assert refused.returncode == 1
    assert "There is no terminal to confirm on: --yes pays" in refused.stderr
    assert chain.burned == []
    agreed = piped("--yes")
    assert agreed.returncode == 0, agreed.stderr
    assert chain.burned == [(COLDKEY.public_key, STRANGER.public_key)]
