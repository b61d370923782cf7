"""`engram miner-check URL` against a miner in a process of its own, and a chain on a real socket."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.hotkeys import Keypair
from engram.hotkeys import wallet as wallets
from engram.kit.scaffold import create
from tests.cli.chains import served, write_wallet
from tests.cli.conftest import Run
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import LivingChain, funded
from tests.kit.projects import running

MINER = Keypair.from_uri("//sn450//hot//7")
NEW = Keypair.from_uri("//a new miner")
VALIDATOR = Keypair.from_uri("//Alice")
COLDKEY = Keypair.from_uri("//sn450//cold//7")
Check = Any


@pytest.fixture(scope="module")
def miner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its URL and its project."""
    folder = tmp_path_factory.mktemp("projects") / "mine"
    create(folder, netuid=450, port=8091, hotkey=MINER.ss58)
    with running(folder, "--port", "0", "--allow", VALIDATOR.ss58) as url:
        yield url, folder


@pytest.fixture
def chain() -> LivingChain:
    return LivingChain()


@pytest.fixture
def server(chain: LivingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


@pytest.fixture
def check(run: Run, server: ChainServer, miner: tuple[str, Path], here: Path) -> Check:
    """Run the command; returns its exit code, the state of each line, and standard error."""
    url, project = miner
    for name, hotkey in (("mine", MINER), ("new", NEW)):
        write_wallet(here / "wallets", name, hotkey=hotkey, coldkey=COLDKEY)
    key = here / "validator"
    wallets.write_hotkey_file(key, VALIDATOR)

    def command(*more: str, admitted: bool = True, wallet: str = "mine") -> tuple[int, dict[str, tuple[str, str]], str]:
        options = ["--netuid", "450", "--endpoint", server.url, "--wallet.path", str(here / "wallets")]
        options += ["--wallet.name", wallet, "--wallet.hotkey", "hot", "--project", str(project), "--json"]
        if admitted:
            options += ["--validator-key", str(key)]
        ran = run("miner-check", url, *options, *more)
        lines = json.loads(ran.out) if ran.out else []
        return ran.code, {line["line"]: (line["state"], line["words"]) for line in lines}, ran.err

    return command


REGISTER = "Register hotkey on target subnet"
COMMIT = "Commit endpoint info to chain (if needed)"
SIGNATURES = "Handle request validation and Epistula signature verification"


def test_nothing_is_registered_or_committed_by_itself(check: Check, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    code, lines, _ = check("--hotkey", NEW.ss58)
    assert code == 1
    assert lines[REGISTER] == ("to do", "engram miner-check … --netuid 450 --register --max-cost TAO")
    assert lines[COMMIT][0] == "to do"
    assert chain.burned == []


def test_it_registers_when_that_is_asked_for_and_once(check: Check, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    _, _, err = check("--hotkey", NEW.ss58, "--register", "--max-cost", "1", wallet="new")
    assert chain.burned == [(COLDKEY.public_key, NEW.public_key)]
    assert "burns 0.100000000 TAO" in err
    check("--register", "--max-cost", "1")
    assert len(chain.burned) == 1, "a hotkey that is registered is not paid for again"


def test_it_registers_no_other_key_than_the_wallets(check: Check, chain: LivingChain) -> None:
    code, _, err = check("--hotkey", NEW.ss58, "--register", "--max-cost", "1")
    assert (code, chain.burned) == (1, [])
    assert "name the wallet" in err


def test_it_commits_the_address_that_was_looked_at_or_any_text(
    check: Check, miner: tuple[str, Path], chain: LivingChain
) -> None:
    address = miner[0].partition("://")[2]
    code, lines, err = check("--commit-endpoint")
    assert lines[COMMIT] == ("good", f"{address} is committed, and was looked at"), err
    assert (lines[REGISTER], lines[SIGNATURES][0]) == (("good", "uid 7 on subnet 450"), "good")
    assert code == 1, "the source is not published yet"
    code, _, err = check("--commit", "s3://bucket/inbox")
    assert (code, "commits once an epoch" in err) == (1, True)
    held = chain.get("Commitments", "CommitmentOf", 450, MINER.public_key)
    chain.put(held | {"block": 1}, "Commitments", "CommitmentOf", 450, MINER.public_key)
    _, lines, _ = check("--commit", "s3://bucket/inbox")
    assert lines[COMMIT][0] == "to do"
    assert "s3://bucket/inbox is committed" in lines[COMMIT][1]


def test_a_committed_address_is_looked_at_whatever_else_answers(check: Check, miner: tuple[str, Path]) -> None:
    by_name = f"localhost:{miner[0].rpartition(':')[2]}"
    _, lines, err = check("--commit-endpoint", "--external-address", by_name)
    assert lines[COMMIT] == ("good", f"{by_name} is committed, and was looked at"), err


def test_a_committed_address_that_is_dead_is_a_line_to_do(check: Check) -> None:
    _, lines, err = check("--commit-endpoint", "--external-address", "127.0.0.1:1")
    assert lines[COMMIT][0] == "to do", err
    assert lines[COMMIT][1].startswith("127.0.0.1:1 is committed, and as seen from here is not this miner: answers: ")


def test_gpus_that_are_wanted_and_not_there_are_a_line_to_do(check: Check) -> None:
    _, lines, _ = check("--gpu", "count>=1")
    assert lines["Implement commodity provision logic"][0] == "to do"
    assert lines["Implement commodity provision logic"][1].startswith("GPUs: ")


def test_it_pays_no_more_than_it_may(check: Check, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    code, lines, err = check("--hotkey", NEW.ss58, "--register", "--max-cost", "0.05", wallet="new")
    assert (code, lines, chain.burned) == (1, {}, [])
    assert "costs 0.100000000 TAO, more than the limit of 0.05; nothing was paid" in err


def test_a_key_that_the_miner_does_not_admit_says_which_option_names_one(check: Check) -> None:
    _, lines, _ = check(admitted=False)
    assert lines[SIGNATURES][0] == "to do"
    assert "--validator-key" in lines[SIGNATURES][1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name the miner's URL, or --local"),
        (["http://127.0.0.1:1", "--local"], "name the miner's URL, or --local"),
        (["http://127.0.0.1:1", "--register"], "say how much at most by --max-cost"),
        (["--local"], "miner.py is not there"),
        (["--local", "--gpu", "speed>9"], "--gpu: "),
        (["http://127.0.0.1:1", "--hotkey", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_anything_is_done(run: Run, words: list[str], said: str) -> None:
    ran = run("miner-check", *words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_miner_that_does_not_answer_is_a_line_to_do(check: Check, run: Run, server: ChainServer, here: Path) -> None:
    ran = run(
        "miner-check",
        "http://127.0.0.1:1",
        "--hotkey",
        MINER.ss58,
        "--netuid",
        "450",
        "--endpoint",
        server.url,
        "--json",
    )
    assert ran.code == 1
    words = {line["line"]: line["words"] for line in json.loads(ran.out)}
    assert "http://127.0.0.1:1 does not answer" in words["Add logging and monitoring"]
