"""Commands with several endpoints on real sockets: one that hangs, and two that are on different forks."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from engram.cli.failures import Exit
from engram.hotkeys import Keypair
from tests.cli.chains import served, write_wallet
from tests.cli.conftest import Run
from tests.fakes.chain import ChainServer
from tests.fakes.living_chain import LivingChain, funded
from tests.fakes.responder import Answer

HOTKEY, COLDKEY = Keypair.from_uri("//sn450//hot//7"), Keypair.from_uri("//sn450//cold//7")
TIMEOUT_S = 1.2
SUBNET = ("--netuid", "450")


@pytest.fixture
def servers() -> Iterator[tuple[ChainServer, ChainServer]]:
    with served(LivingChain("one")) as one, served(LivingChain("two")) as two:
        yield one, two


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_endpoint_that_hangs_costs_a_command_its_timeout_once(
    run: Run, servers: tuple[ChainServer, ChainServer], order: tuple[int, int]
) -> None:
    hung, asked = servers[0], list[bytes]()

    async def hang(body: bytes) -> Answer | None:
        asked.append(body)
        await trio.sleep(60)
        return None

    hung.fault = hang
    endpoints = [part for place in order for part in ("--endpoint", servers[place].url)]
    began_s = time.monotonic()
    ran = run("registry", "check", *SUBNET, *endpoints, "--timeout", str(TIMEOUT_S))
    took_s = time.monotonic() - began_s
    assert ran.code == 0, ran.err
    assert TIMEOUT_S <= took_s < 2 * TIMEOUT_S
    # The first, given up for another one, and the one whose timeout was waited for.
    assert len(asked) <= 2


COMMANDS = [
    ["registry", "read"],
    ["registry", "register", "--address", "13.89.38.129", "--port", "1", "--online", "--patience", "5"],
    ["subnet", "status", "--no-probe"],
    ["subnet", "register", "--yes", "--patience", "5"],
    ["subnet", "serve", "--ip", "13.89.38.129", "--port", "8091", "--online", "--patience", "5"],
    ["subnet", "set-weights", "7=1", "--online", "--patience", "5"],
    ["subnet", "link", "--github", "ada", "--online", "--patience", "5"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_waits_for_an_endpoint_that_hangs_once(
    run: Run, servers: tuple[ChainServer, ChainServer], here: Path, command: list[str]
) -> None:
    hotkey = Keypair.from_uri("//nobody") if "--yes" in command else HOTKEY
    write_wallet(here / "wallets", "cold", hotkey=hotkey, coldkey=COLDKEY)
    hung, good, ended = servers[0], servers[1].double, list[float]()
    assert isinstance(good, LivingChain)
    funded(good, COLDKEY.public_key, 5_000_000_000_000)
    good.put(0, "SubtensorModule", "WeightsSetRateLimit", 450)
    good.put([HOTKEY.ss58], "SubtensorModule", "OwnedHotkeys", COLDKEY.public_key)

    async def hang(body: bytes) -> Answer | None:
        ended.append(time.monotonic())
        await trio.sleep(60)
        return None

    hung.fault = hang
    wallet = ["--wallet.path", str(here / "wallets"), "--wallet.name", "cold", "--wallet.hotkey", "hot"]
    asked = ["--endpoint", hung.url, "--endpoint", servers[1].url, "--timeout", "0.5"]
    ran = run(*command, *SUBNET, *asked, *wallet)
    assert ran.code == 0, ran.err
    # The first, given up for the other one, and the one whose timeout was waited for.
    assert 1 <= len(ended) <= 2


@pytest.fixture
def forked(servers: tuple[ChainServer, ChainServer]) -> list[str]:
    """Two endpoints of which the first stands still, on a fork of its own."""
    standing, going = (server.double for server in servers)
    assert isinstance(standing, LivingChain)
    standing.seal_at_look = False
    going.head += 30
    standing.forks.append(1099)
    return [part for server in servers for part in ("--endpoint", server.url)]


def test_a_check_of_endpoints_on_different_forks_fails_with_both_headers(run: Run, forked: list[str]) -> None:
    ran = run("registry", "check", *SUBNET, *forked)
    assert (ran.code, ran.out) == (Exit.FORKED, "")
    message, evidence = ran.err.splitlines()
    assert "have different finalized blocks 1100" in message
    assert message.endswith("neither is trusted; nothing was sent")
    reported = json.loads(evidence.removeprefix("engram: evidence: "))
    assert {reported["one"]["endpoint"], reported["other"]["endpoint"]} == set(forked[1::2])
    assert reported["one"]["header"]["number"] == reported["other"]["header"]["number"] == hex(1100)
    assert reported["one"]["hash"] != reported["other"]["hash"]


def test_nothing_is_registered_over_endpoints_on_different_forks(
    run: Run, servers: tuple[ChainServer, ChainServer], forked: list[str], here: Path
) -> None:
    write_wallet(here / "wallets", "cold", hotkey=HOTKEY, coldkey=COLDKEY)
    wallet = ["--wallet.path", str(here / "wallets"), "--wallet.name", "cold", "--wallet.hotkey", "hot"]
    ran = run("registry", "register", *SUBNET, *forked, *wallet, "--address", "13.89.38.129", "--port", "1", "--online")
    assert ran.code == Exit.FORKED
    reported = ran.out.splitlines()
    assert "Error during commit: " in reported[-2]
    assert reported[-1].startswith("evidence: {")
    assert all("author_submitExtrinsic" not in server.double.asked for server in servers)


def test_when_no_endpoint_answers_each_is_reported_and_what_to_do(run: Run) -> None:
    ran = run("registry", "check", *SUBNET, "--endpoint", "http://127.0.0.1:1", "--endpoint", "http://127.0.0.1:2")
    first, second = ran.err.splitlines()
    assert (ran.code, "127.0.0.1:1" in first, "127.0.0.1:2" in second) == (1, True, True)
    assert second.endswith("--endpoint or --network asks another endpoint")
