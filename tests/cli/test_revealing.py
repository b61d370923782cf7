"""`engram subnet set-weights` and `reveal-weights` where the runtime takes commits by hash only."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.chain.errors import CallRefused
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.runtime import ERA_BLOCKS
from engram.hotkeys import Keypair
from tests.cli.chains import served, write_wallet
from tests.cli.conftest import Ran, Run
from tests.fakes.chain import ChainServer
from tests.fakes.hashing_chain import HashingChain

VALIDATOR, COLDKEY = Keypair.from_uri("//Alice"), Keypair.from_uri("//sn450//cold//7")
SUBTENSOR = "SubtensorModule"
Subnet = Any


@pytest.fixture
def chain() -> HashingChain:
    return HashingChain()


@pytest.fixture
def server(chain: HashingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


@pytest.fixture
def subnet(run: Run, server: ChainServer, here: Path) -> Subnet:
    write_wallet(here / "wallets", "validator", hotkey=VALIDATOR, coldkey=COLDKEY)

    def command(name: str, *more: str) -> Ran:
        options = ["--netuid", "450", "--endpoint", server.url, "--wallet.path", str(here / "wallets")]
        options += ["--wallet.name", "validator", "--wallet.hotkey", "hot", "--format", "json"]
        if "--patience" not in more:
            options += ["--patience", "5"]
        return run("subnet", name, *options, *more)

    return command


def as_json(ran: Ran, code: int = 0) -> dict[str, Any]:
    assert ran.code == code, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    return document


def kept(here: Path) -> list[Path]:
    folder = here / "weight-commits"
    return sorted(folder.iterdir()) if folder.exists() else []


def seal_until(chain: HashingChain, head: int) -> None:
    while chain.head < head:
        chain.seal()


def commit(subnet: Subnet) -> dict[str, Any]:
    arguments: dict[str, Any] = as_json(subnet("set-weights", "3=0.7", "9=0.35", "--online"))["arguments"]
    return arguments


def held(chain: HashingChain) -> Any:
    return chain.get(SUBTENSOR, "WeightCommits", 450, VALIDATOR.public_key)


def test_weights_are_committed_kept_and_revealed_in_their_window(
    subnet: Subnet, chain: HashingChain, here: Path
) -> None:
    dry = as_json(subnet("set-weights", "3=0.7", "9=0.35"))
    assert dry["call"] == "SubtensorModule.commit_weights"
    assert dry["arguments"]["reveal_until_block"] > dry["arguments"]["reveal_from_block"] > chain.head
    assert kept(here) == []
    assert held(chain) is None
    sent = commit(subnet)
    (path,) = kept(here)
    assert (str(path), stat.S_IMODE(path.stat().st_mode)) == (sent["kept_in"], 0o600)
    assert (sent["commit_hash"], sent["reveal_from_block"], sent["reveal_until_block"]) == (
        held(chain)[0][0],
        held(chain)[0][2],
        held(chain)[0][3],
    )
    before = chain.get(SUBTENSOR, "Weights", 450, 0)
    (shown,) = as_json(subnet("reveal-weights", "--online"))["commits"]
    assert shown["stage"] == "waiting"
    assert shown["wait_blocks"] > 0
    assert chain.get(SUBTENSOR, "Weights", 450, 0) == before
    seal_until(chain, sent["reveal_from_block"] - 2)
    (shown,) = as_json(subnet("reveal-weights"))["commits"]
    assert shown["stage"] == "open"
    assert chain.get(SUBTENSOR, "Weights", 450, 0) == before
    (done,) = as_json(subnet("reveal-weights", "--online"))["commits"]
    assert done["stage"] == "revealed"
    assert chain.get(SUBTENSOR, "Weights", 450, 0) == [(3, 65_535), (9, 32_768)]
    assert kept(here) == []
    assert "no commit of" in subnet("reveal-weights").err


def test_waiting_reveals_as_soon_as_the_window_opens(
    subnet: Subnet, chain: HashingChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.chain.submit.reveal.BLOCK_S", 0.0)
    sent = commit(subnet)
    (done,) = as_json(subnet("reveal-weights", "--wait", "--online"))["commits"]
    assert done["stage"] == "revealed"
    assert sent["reveal_from_block"] <= done["revealed_in_block"] <= sent["reveal_from_block"] + 2


@pytest.mark.parametrize("answer", ["0x", CallRefused(-32603, "an internal error")])
def test_waiting_outlasts_an_answer_that_is_none(
    answer: Json, subnet: Subnet, chain: HashingChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.chain.submit.reveal.BLOCK_S", 0.0)
    commit(subnet)
    sealing, broken = chain.seal, chain.head + 3

    def seal() -> None:
        sealing()
        switch: dict[str, Any] = chain.refuse if isinstance(answer, CallRefused) else chain.replace
        if chain.head == broken:
            switch["chain_getHeader"] = answer
        else:
            switch.pop("chain_getHeader", None)

    monkeypatch.setattr(chain, "seal", seal)
    (done,) = as_json(subnet("reveal-weights", "--wait", "--online"))["commits"]
    assert done["stage"] == "revealed"
    assert chain.head > broken


def test_waiting_is_not_ended_by_a_commit_whose_window_was_missed(
    subnet: Subnet, chain: HashingChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.chain.submit.reveal.BLOCK_S", 0.0)
    missed = commit(subnet)
    seal_until(chain, missed["reveal_until_block"] + 1)
    commit(subnet)
    assert len(held(chain)) == 1  # The chain has dropped the one that ran out.
    stages = [one["stage"] for one in as_json(subnet("reveal-weights", "--wait", "--online"))["commits"]]
    assert stages == ["unseen", "revealed"]


def test_two_commits_are_revealed_the_oldest_first(subnet: Subnet, chain: HashingChain, here: Path) -> None:
    chain.put(60, SUBTENSOR, "Tempo", 450)
    seal_until(chain, 1_130)
    commit(subnet)
    last = as_json(subnet("set-weights", "4=1", "--online"))["arguments"]
    seal_until(chain, last["reveal_from_block"] - 2)
    done = as_json(subnet("reveal-weights", "--online"))["commits"]
    assert [one["stage"] for one in done] == ["revealed", "revealed"]
    assert chain.get(SUBTENSOR, "Weights", 450, 0) == [(4, 65_535)]
    assert kept(here) == []


def test_a_missed_window_is_told_and_what_is_of_no_use_goes(subnet: Subnet, chain: HashingChain, here: Path) -> None:
    sent = commit(subnet)
    seal_until(chain, sent["reveal_until_block"])
    (shown,) = as_json(subnet("reveal-weights"), code=1)["commits"]
    assert shown["stage"] == "expired"
    assert len(kept(here)) == 1
    as_json(subnet("reveal-weights", "--online"), code=1)
    assert kept(here) == []


def test_the_salt_is_on_disk_before_the_commit_leaves(
    subnet: Subnet, chain: HashingChain, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    answer = chain.answer

    def looking(call: RpcCall) -> Json:
        if call.method == "author_submitExtrinsic":
            found.append(len(kept(here)))
        return answer(call)

    monkeypatch.setattr(chain, "answer", looking)
    commit(subnet)
    assert found == [1]


def test_a_commit_that_the_chain_refuses_leaves_no_file(subnet: Subnet, chain: HashingChain, here: Path) -> None:
    chain.refuse["author_submitExtrinsic"] = CallRefused(1010, "Invalid Transaction: Custom error: 2")
    ran = subnet("set-weights", "3=1", "--online")
    assert ran.code == 1
    assert "BalanceTooLow" in ran.err
    assert kept(here) == []


def test_the_salt_is_kept_while_the_outcome_is_not_known(subnet: Subnet, chain: HashingChain, here: Path) -> None:
    chain.include = False
    ran = subnet("set-weights", "3=1", "--online", "--patience", "0.3")
    assert ran.code == 4, ran.err
    assert len(kept(here)) == 1
    (shown,) = as_json(subnet("reveal-weights"))["commits"]
    assert shown["stage"] == "unseen"
    chain.include = True
    chain.seal()
    assert held(chain) is not None
    (shown,) = as_json(subnet("reveal-weights"))["commits"]
    assert shown["stage"] in ("waiting", "open")


def test_what_was_never_included_is_told_and_goes(subnet: Subnet, chain: HashingChain, here: Path) -> None:
    chain.drop_submissions = True
    assert subnet("set-weights", "3=1", "--online", "--patience", "0.3").code == 4
    seal_until(chain, chain.head + ERA_BLOCKS + 1)
    (shown,) = as_json(subnet("reveal-weights", "--online"), code=1)["commits"]
    assert shown["stage"] == "gone"
    assert kept(here) == []


def test_nothing_is_sent_when_its_salt_cannot_be_kept(subnet: Subnet, chain: HashingChain, here: Path) -> None:
    (here / "weight-commits").write_text("a file")
    ran = subnet("set-weights", "3=1", "--online")
    assert ran.code == 1
    assert "weight-commits" in ran.err
    assert "author_submitExtrinsic" not in chain.asked


def test_commits_of_another_chain_are_not_revealed_on_this_one(
    subnet: Subnet, chain: HashingChain, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(subnet)
    monkeypatch.setattr("tests.fakes.living_chain.GENESIS", "0x" + "46" * 32)
    assert "no commit of" in subnet("reveal-weights", "--online").err
    assert len(kept(here)) == 1


@pytest.mark.nightly
def test_the_other_composer_makes_the_same_commit(subnet: Subnet, chain: HashingChain) -> None:
    sent = as_json(subnet("set-weights", "3=1", "--online", "--composer", "substrate-interface"))["arguments"]
    assert held(chain)[0][0] == sent["commit_hash"]
    seal_until(chain, sent["reveal_from_block"] - 2)
    (done,) = as_json(subnet("reveal-weights", "--online", "--composer", "substrate-interface"))["commits"]
    assert done["stage"] == "revealed"
