"""A miner without a proxy, whose callers the chain authorizes: by registration, permit and stake, as last read."""

import http.client
import json
import time
from pathlib import Path
from typing import Any

import pytest

from engram.hotkeys import Keypair
from engram.kit import Caller, Miner, MinerSettings
from engram.kit.settings import CallersSection, MinerSection, ServeSection
from engram.kit.testing import Served, serve
from engram.proxy.authorization import Caller as OnChain
from tests.cli.chains import served
from tests.fakes.chain import ChainDouble
from tests.kit.default_files import authorizing
from tests.kit.projects import project, running
from tests.kit.test_miner import of_seed_002
from tests.proxy.signing import ALICE, BOB, headers_of

SMALL, UNPERMITTED, STRANGER = (Keypair.from_uri(uri) for uri in ("//sn450//hot//1", "//sn450//hot//2", "//nobody"))
"""Of the recorded subnet: a validator with 99 alpha, a miner; and one who is not of it."""
RAO = 10**9


class Table:
    """A subnet as last read, which a test changes."""

    def __init__(self) -> None:
        self.read_s_ago: float | None = 0.0
        self.callers: dict[bytes, OnChain] = {}

    def put(self, key: Keypair, *, permit: bool = True, tao: int = 0, alpha: int = 0, weighted: int = 0) -> None:
        self.callers[key.public_key] = OnChain(permit, alpha * RAO, tao * RAO, weighted * RAO)

    def age_s(self) -> float | None:
        return self.read_s_ago

    def caller(self, hotkey: bytes) -> OnChain | None:
        return self.callers.get(hotkey)


def open_miner(**callers: Any) -> Miner:
    """A miner that follows a chain, and stands behind nothing."""
    made = Miner(
        MinerSettings(
            miner=MinerSection(hotkey=BOB.ss58),
            serve=ServeSection(port=0, behind_proxy=False),
            callers=CallersSection(chain_endpoint="ws://127.0.0.1:9", **callers),
        )
    )

    @made.get("/who")
    async def who(caller: Caller) -> str:
        """Say who calls."""
        return caller.hotkey

    return made


async def refusal(to: Served, by: Keypair) -> tuple[int, str]:
    answer = await to.get("/who", headers=headers_of(by=by, method="GET"))
    return answer.status, answer.json()["code"] if answer.status != 200 else ""


async def test_a_validator_passes_by_permit_and_stake_and_no_longer_when_the_chain_has_neither() -> None:
    chain = Table()
    chain.put(ALICE, weighted=1_001)

    async def use(to: Served) -> None:
        assert await refusal(to, ALICE) == (200, "")
        chain.put(ALICE, weighted=1_000)
        assert await refusal(to, ALICE) == (403, "stake_too_low"), "more than the threshold is asked for"
        chain.put(ALICE, weighted=5_000, permit=False)
        assert await refusal(to, ALICE) == (403, "no_permit")
        chain.callers.clear()
        assert await refusal(to, ALICE) == (403, "not_registered")

    await serve(open_miner(), [], use, chain=chain)


@pytest.mark.parametrize(("unit", "passes"), [("weighted", False), ("alpha", True), ("tao", False)])
async def test_the_stake_that_counts_is_the_one_that_the_settings_name(unit: str, passes: bool) -> None:
    chain = Table()
    chain.put(ALICE, alpha=2_000, tao=500, weighted=600)

    async def use(to: Served) -> None:
        assert (await refusal(to, ALICE))[0] == (200 if passes else 403)

    await serve(open_miner(stake_unit=unit), [], use, chain=chain)


@pytest.mark.parametrize("age_s", [None, 3_601.0])
async def test_a_chain_that_was_not_read_lately_authorizes_none_and_those_of_the_list_pass(age_s: float | None) -> None:
    chain = Table()
    chain.put(ALICE, weighted=5_000)

    async def use(to: Served) -> None:
        assert await refusal(to, ALICE) == (200, "")
        chain.read_s_ago = age_s
        answer = await to.get("/who", headers=headers_of(by=ALICE, method="GET"))
        assert (answer.status, answer.json()["code"]) == (503, "chain_stale")
        assert int(answer.headers["retry-after"]) > 0
        assert await refusal(to, STRANGER) == (200, ""), "she is of the list"
        chain.read_s_ago = 1.0
        assert await refusal(to, ALICE) == (200, "")

    await serve(open_miner(), [STRANGER], use, chain=chain)


def asked(url: str, by: Keypair, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Ask the generated miner for an inference."""
    body = b'{"query": "abc"}'
    connection = http.client.HTTPConnection(url.rpartition("/")[2], timeout=10)
    connection.request("POST", "/inference", body, headers or headers_of(body, by=by))
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_a_generated_miner_without_a_proxy_follows_the_chain_that_its_file_names(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    project(folder)
    chain = ChainDouble()
    chain.metagraphs["0x0b00"] = authorizing
    with served(chain) as server:
        settings = (folder / "miner.toml").read_text()
        settings = settings.replace("behind_proxy = true", "behind_proxy = false")
        settings = settings.replace('chain_endpoint = ""', f'chain_endpoint = "{server.url.replace("http", "ws")}"')
        (folder / "miner.toml").write_text(settings)
        with running(folder, "--port", "0") as url:
            until = time.monotonic() + 60  # the chain is read, and the moment of the start is over
            while (found := asked(url, ALICE))[0] != 200:
                assert found[1]["code"] in ("chain_stale", "before_start"), found
                assert time.monotonic() < until
                time.sleep(0.1)
            assert found == (200, {"text": "cba"})
            status, refused = asked(url, SMALL)
            assert (status, refused["code"], refused["detail"]) == (403, "stake_too_low", "Sender not allowed")
            assert (round(refused["stake"], 2), refused["min_stake"]) == (99.16, 1000.0)
            assert refused["stake_unit"] == "weighted"
            assert asked(url, UNPERMITTED)[1]["code"] == "no_permit"
            assert asked(url, STRANGER)[1]["code"] == "not_registered"
            status, refused = asked(url, STRANGER, of_seed_002(b'{"query": "abc"}', STRANGER))
            assert (status, refused["detail"]) == (403, "Not a validator")
            named = {"X-Epistula-Caller": ALICE.ss58}
            assert asked(url, STRANGER, named)[0] == 401, "there is no proxy whose word would count"
