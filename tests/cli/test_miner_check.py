"""`engram miner-check URL` against a miner in a process of its own, and a chain on a real socket."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.chain.registry.registrations import parse_text
from engram.cli.failures import CommandFailed
from engram.cli.miner.committing import endpoint_of
from engram.hotkeys import Keypair
from engram.hotkeys import wallet as wallets
from engram.kit.checklist import LINES
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

    def command(
        *more: str, admitted: bool = True, wallet: str = "mine", project: Path = project
    ) -> tuple[int, dict[str, tuple[str, str]], str]:
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
    assert (code, chain.burned) == (2, [])
    assert "name the wallet" in err


@pytest.mark.parametrize("words", [("--commit-endpoint", "--allow-private"), ("--commit", "s3://bucket/inbox")])
def test_it_commits_under_no_other_key_than_the_miners_and_pays_nothing_before(
    check: Check, chain: LivingChain, words: tuple[str, ...]
) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    before = chain.get("Commitments", "CommitmentOf", 450, MINER.public_key)
    code, lines, err = check("--hotkey", NEW.ss58, *words)
    assert (code, lines) == (2, {})
    assert "name the wallet" in err
    code, lines, _ = check(*words, wallet="new")  # miner.toml names the hotkey of the wallet `mine`
    assert (code, lines, chain.burned) == (2, {}, [])
    assert chain.get("Commitments", "CommitmentOf", 450, MINER.public_key) == before
    assert "author_submitExtrinsic" not in chain.asked


def test_it_commits_the_address_that_was_looked_at_or_any_text(
    check: Check, miner: tuple[str, Path], chain: LivingChain
) -> None:
    address = miner[0].partition("://")[2]
    code, lines, err = check("--commit-endpoint", "--allow-private")
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


def test_all_eight_lines_are_green_once_all_is_done(check: Check, miner: tuple[str, Path], tmp_path: Path) -> None:
    published = tmp_path / "published"
    shutil.copytree(miner[1], published)
    readme = published / "README.md"
    readme.write_text(readme.read_text().replace("<https://…>", "https://git.example.org/mine"))
    code, lines, err = check("--commit-endpoint", "--allow-private", project=published)
    assert (code, tuple(lines), {state for state, _ in lines.values()}) == (0, LINES, {"good"}), (lines, err)
    assert lines[LINES[-1]][1].endswith("; +0.0000 and +0.000000 since block 1021"), "what the last epoch changed"


def test_a_committed_address_is_looked_at_whatever_else_answers(check: Check, miner: tuple[str, Path]) -> None:
    by_name = f"localhost:{miner[0].rpartition(':')[2]}"
    _, lines, err = check("--commit-endpoint", "--allow-private", "--external-address", by_name)
    assert lines[COMMIT] == ("good", f"{by_name} is committed, and was looked at"), err


def test_a_committed_address_that_is_dead_is_a_line_to_do(check: Check) -> None:
    _, lines, err = check("--commit", "127.0.0.1:1", "--allow-private")
    assert lines[COMMIT][0] == "to do", err
    assert lines[COMMIT][1].startswith("127.0.0.1:1 is committed, and as seen from here is not this miner: answers: ")


def test_an_address_is_committed_only_once_the_miner_was_seen_at_it(check: Check, chain: LivingChain) -> None:
    before = chain.get("Commitments", "CommitmentOf", 450, MINER.public_key)
    code, lines, err = check("--commit-endpoint", "--allow-private", "--external-address", "127.0.0.1:1")
    assert (code, lines) == (1, {})
    assert "127.0.0.1:1 was not committed; as seen from here it is not this miner: answers: " in err
    assert "(--commit 127.0.0.1:1 commits it all the same)" in err
    assert chain.get("Commitments", "CommitmentOf", 450, MINER.public_key) == before
    assert "author_submitExtrinsic" not in chain.asked


def test_an_address_that_nobody_can_reach_is_refused_before_anything_is_paid(check: Check, chain: LivingChain) -> None:
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    paying = ("--hotkey", NEW.ss58, "--register", "--max-cost", "1", "--commit-endpoint")
    code, lines, err = check(*paying, wallet="new")
    assert (code, lines, chain.burned) == (2, {}, [])
    assert "Address 127.0.0.1 cannot be reached from the internet (--allow-private commits it)" in err
    code, lines, err = check(*paying[:-1], "--commit", "x" * 129, wallet="new")
    assert (code, lines, chain.burned) == (2, {}, [])
    assert "--commit: 129 bytes; a commitment has 1 to 128" in err


def test_an_address_that_is_committed_and_that_nobody_can_reach_is_to_do(check: Check) -> None:
    _, lines, err = check("--commit-endpoint", "--allow-private")
    assert lines[COMMIT][0] == "good", err
    code, lines, _ = check()
    assert (code, lines[COMMIT][0]) == (1, "to do")
    assert "address: 127.0.0.1 cannot be reached from the internet" in lines[COMMIT][1]


@pytest.mark.parametrize(
    ("url", "external", "text"),
    [
        ("https://miner.example.org", None, "miner.example.org:443"),
        ("https://miner.example.org/", None, "miner.example.org:443"),
        ("http://miner.example.org", None, "miner.example.org:80"),
        ("https://miner.example.org:8080", None, "miner.example.org:8080"),
        ("https://[2606:4700::1]:8080/", None, "[2606:4700::1]:8080"),
        ("http://127.0.0.1:8091/base", "13.89.38.129:9999", "13.89.38.129:9999"),
    ],
)
def test_what_is_committed_is_a_host_and_a_port(url: str, external: str | None, text: str) -> None:
    assert endpoint_of(url, external, allow_private=False) == text
    assert parse_text(text).text == text, "as validators read it"


@pytest.mark.parametrize(
    ("url", "external", "said"),
    [
        ("https://miner.example.org/base", None, "a host and a port alone are committed"),
        ("https://miner.example.org:8080/base", None, "a host and a port alone are committed"),
        ("https://me:key@miner.example.org", None, "a host and a port alone are committed"),
        ("https://miner.example.org/?a=b", None, "a host and a port alone are committed"),
        ("https://10.0.0.1:8080", None, "cannot be reached from the internet"),
        ("https://localhost:8080", None, "cannot be reached from the internet"),
        ("https://miner.example.org", "miner.example.org", "Invalid compressed string format"),
        ("https://miner.example.org", "miner.example.org:0", "Port 0"),
        (f"https://{'a' * 40}.example.org", None, "exceeds maximum length of 45"),
    ],
)
def test_what_validators_could_not_read_is_not_committed(url: str, external: str | None, said: str) -> None:
    with pytest.raises(CommandFailed, match=said):
        endpoint_of(url, external, allow_private=False)


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
        (["127.0.0.1:8091"], "'127.0.0.1:8091' is no http or https URL"),
        (["http://127.0.0.1:1", "--register"], "say how much at most by --max-cost"),
        (["--local"], "miner.py is not there"),
        (["--local", "--gpu", "speed>9"], "--gpu: "),
        (["http://127.0.0.1:1", "--hotkey", "nobody"], "nobody"),
        (["http://127.0.0.1:1", "--max-cost", "1"], "--max-cost is for --register"),
        (["http://127.0.0.1:1", "--commit-endpoint", "--commit", "x"], "--commit-endpoint and --commit: "),
        (["--local", "--register", "--max-cost", "1"], "--register, --max-cost: not with --local"),
        (["--local", "--commit-endpoint"], "--commit-endpoint: not with --local"),
        (["--local", "--commit", "x"], "--commit: not with --local"),
        (["--local", "--hotkey", "nonsense"], "--hotkey: not with --local"),
        (["--local", "--validator-key", "key"], "--validator-key: not with --local"),
        (["--local", "--external-address", "1.2.3.4:5"], "--external-address: not with --local"),
        (["--local", "--allow-private"], "--allow-private: not with --local"),
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
