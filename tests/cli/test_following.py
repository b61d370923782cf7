"""`engram subnet set-weights` where weights are committed under a timelock: what it says, and the wait for reveals."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.chain.errors import CallRefused
from engram.chain.read.node import Json
from engram.chain.submit.weights import DRAND_GENESIS_S, reveal_about_s
from engram.cli.failures import Exit
from engram.cli.output import moment
from engram.hotkeys import Keypair
from tests.cli.chains import served, write_wallet
from tests.cli.conftest import Ran, Run
from tests.fakes.chain import ChainServer
from tests.fakes.hashing_chain import HashingChain
from tests.fakes.living_chain import LivingChain

VALIDATOR, COLDKEY = Keypair.from_uri("//Alice"), Keypair.from_uri("//sn450//cold//7")
SUBTENSOR = "SubtensorModule"
HELD_BLOCKS = 6
Subnet = Any


class TimelockingChain(LivingChain):
    """Demands commits under a timelock, and reveals them HELD_BLOCKS later as `reveals` says."""

    def __init__(self) -> None:
        super().__init__()
        self.put(True, SUBTENSOR, "CommitRevealWeightsEnabled", 450)
        self.put(0, SUBTENSOR, "WeightsSetRateLimit", 450)
        self.reveals: list[tuple[int, int]] | None = [(3, 65_535), (9, 32_768)]
        """The weights that a reveal sets; None: it fails, and the commit is dropped."""
        self.never = False
        self._committed_at: int | None = None

    def metagraph(self, argument: str, number: int | None, at: Json) -> Json:
        reported = super().metagraph(argument, number, at)
        if not isinstance(reported, str) or reported == "0x00":
            return reported
        kind = self._runtime.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]
        fields = self._runtime.decode(kind, bytes.fromhex(reported[2:]))
        fields["commit_reveal_weights_enabled"] = True
        return "0x" + self._runtime.encode(kind, fields).hex()

    def _commit_weights(self, who: bytes, arguments: dict[str, Any]) -> None:
        super()._commit_weights(who, arguments)
        self._committed_at = self.head

    def seal(self) -> None:
        super().seal()
        if self._committed_at is None or self.never or self.head < self._committed_at + HELD_BLOCKS:
            return
        for state in self.states.values():
            for key in [key for key in state if key.startswith(self._key(SUBTENSOR, "CRV3WeightCommits", 450))]:
                state[key] = None
        if self.reveals is not None:
            self.put(self.reveals, SUBTENSOR, "Weights", 450, 0)
        self._committed_at = None


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> TimelockingChain:
    monkeypatch.setattr("engram.chain.submit.reveal.BLOCK_S", 0.0)
    return TimelockingChain()


@pytest.fixture
def server(chain: TimelockingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


@pytest.fixture
def subnet(run: Run, server: ChainServer, here: Path) -> Subnet:
    return command_for(run, server, here)


def command_for(run: Run, server: ChainServer, here: Path) -> Subnet:
    write_wallet(here / "wallets", "validator", hotkey=VALIDATOR, coldkey=COLDKEY)

    def command(*more: str) -> Ran:
        options = ["--netuid", "450", "--endpoint", server.url, "--wallet.path", str(here / "wallets")]
        options += ["--wallet.name", "validator", "--wallet.hotkey", "hot", "--patience", "5"]
        return run("subnet", "set-weights", "3=0.7", "9=0.35", *options, *more)

    return command


def test_committed_weights_are_not_called_set(subnet: Subnet) -> None:
    ran = subnet("--online")
    assert ran.code == 0, ran.err
    reported = json.loads(dict(line.split("\t") for line in ran.out.splitlines()[:-1])["arguments"])
    last = ran.out.splitlines()[-1]
    about = moment(reveal_about_s(reported["reveal_round"]))
    assert last == (
        f"weights of 2 uids are committed, to be revealed at drand round {reported['reveal_round']}, about {about}"
    )
    assert reported["revealed_about"] == about


def test_a_drand_round_is_a_time_that_the_chain_learns_of_a_little_later() -> None:
    assert reveal_about_s(1) == DRAND_GENESIS_S + 72
    assert reveal_about_s(1_001) - reveal_about_s(1) == 3_000


def test_following_ends_when_the_chain_holds_the_weights_in_the_open(subnet: Subnet, chain: TimelockingChain) -> None:
    ran = subnet("--online", "--follow", "--format", "json")
    assert ran.code == 0, ran.err
    sent = json.loads(ran.out)
    assert sent["revealed_by_block"] >= sent["block"] + HELD_BLOCKS
    assert chain.get(SUBTENSOR, "Weights", 450, 0) == [(3, 65_535), (9, 32_768)]
    reported = ran.err.splitlines()[-1]
    assert reported.startswith(f"weights of 2 uids are committed in block {sent['block']}, to be revealed at drand ")
    assert "Ctrl-C ends only the waiting" in reported


@pytest.mark.parametrize("reveals", [None, [(4, 65_535)]])
def test_a_reveal_that_failed_is_reported(
    subnet: Subnet, chain: TimelockingChain, reveals: list[tuple[int, int]] | None
) -> None:
    chain.reveals = reveals
    ran = subnet("--online", "--follow")
    assert (ran.code, "holds neither the commit nor these weights" in ran.err) == (1, True)


def test_following_outlasts_an_endpoint_that_fails_for_a_while(
    subnet: Subnet, chain: TimelockingChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing = chain.seal

    def seal() -> None:
        sealing()
        failing = chain._committed_at is not None and chain.head - chain._committed_at in (2, 3)
        chain.refuse = {"chain_getHeader": CallRefused(-32603, "an internal error")} if failing else {}

    monkeypatch.setattr(chain, "seal", seal)
    assert subnet("--online", "--follow").code == 0


def test_following_is_bounded(subnet: Subnet, chain: TimelockingChain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.never = True
    monkeypatch.setattr("engram.chain.submit.reveal.patience_s", lambda *given: 0.3)
    ran = subnet("--online", "--follow")
    assert (ran.code, "not yet revealed at block" in ran.err) == (Exit.UNKNOWN, True)


def test_a_terminal_shows_how_far_the_wait_has_come_and_a_pipe_does_not(
    subnet: Subnet, chain: TimelockingChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "\r\x1b[Kblock "
    assert shown not in subnet("--online", "--follow").err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    reported = subnet("--online", "--follow").err
    assert f"{shown}{chain.head - 1}: committed, to be revealed about " in reported
    assert reported.endswith("\r\x1b[K")


def test_nothing_is_followed_that_was_not_sent(subnet: Subnet, chain: TimelockingChain) -> None:
    ran = subnet("--follow")
    assert (ran.code, "nothing is sent without --online" in ran.err) == (Exit.USAGE, True)
    assert chain.asked == []


def test_weights_committed_by_hash_are_revealed_by_following_them(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.chain.submit.reveal.BLOCK_S", 0.0)
    chain = HashingChain()
    with served(chain) as server:
        ran = command_for(run, server, here)("--online", "--follow", "--format", "json")
    assert ran.code == 0, ran.err
    (done,) = json.loads(ran.out)["commits"]
    assert done["stage"] == "revealed"
    assert chain.get(SUBTENSOR, "Weights", 450, 0) == [(3, 65_535), (9, 32_768)]
