"""Asking miners at addresses that strangers chose."""

from collections.abc import Sequence

import pytest
import trio

from engram.chain.registry.probe import ProbeResult, Probing, probe_all, probe_one
from engram.chain.registry.registrations import Registration, RegistryEntry
from engram.hotkeys import Keypair
from engram.http.client import HttpClient
from tests.fakes.responder import Answer, Asked, Responder

KEY = Keypair.from_seed(bytes(32 * [1])).public_key
OPEN = Probing(timeout_s=2.0, allow_private=True, scheme="http")


async def serving(nursery: trio.Nursery, status: int, seen: list[Asked]) -> int:
    async def answer(asked: Asked) -> Answer:
        seen.append(asked)
        return status, {"location": "http://127.0.0.1:9/"}, b'{"status":"ok"}'

    url: str = await nursery.start(Responder(answer).run)
    return int(url.rsplit(":", 1)[1])


async def nowhere(host: str, port: int) -> list[str]:
    raise OSError("no such name")


@pytest.mark.parametrize(("status", "valid"), [(200, True), (404, False), (302, False), (500, False)])
async def test_only_200_is_valid_and_no_redirect_is_followed(status: int, valid: bool, nursery: trio.Nursery) -> None:
    seen: list[Asked] = []
    port = await serving(nursery, status, seen)
    answer = await probe_one(HttpClient(), Registration("127.0.0.1", port), KEY, OPEN)
    assert answer.valid is valid
    assert answer.reason == ("" if valid else f"HTTP {status}")
    (asked,) = seen
    assert asked.target.startswith("/check/5")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_private_address_is_not_connected_to_unless_told(address: str) -> None:
    answer = await probe_one(HttpClient(), Registration(address, 1), KEY)
    assert answer == ProbeResult(False, f"not asked: {address} is not a public address")


async def test_a_name_of_one_site_is_not_even_looked_up() -> None:
    async def resolving(host: str, port: int) -> list[str]:
        pytest.fail("it was looked up")

    answer = await probe_one(HttpClient(), Registration("printer.local", 1), KEY, Probing(), resolving)
    assert answer == ProbeResult(False, "not asked: printer.local is not a public address")


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], []])
async def test_a_name_that_means_a_private_address_is_not_connected_to(addresses: Sequence[str]) -> None:
    async def resolving(host: str, port: int) -> list[str]:
        return list(addresses)

    answer = await probe_one(HttpClient(), Registration("miner.example.org", 1), KEY, Probing(), resolving)
    assert answer == ProbeResult(False, "not asked: miner.example.org is not a public address")


async def test_the_address_that_was_judged_is_the_one_connected_to(nursery: trio.Nursery) -> None:
    seen: list[Asked] = []
    port = await serving(nursery, 200, seen)

    async def resolving(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    answer = await probe_one(HttpClient(), Registration("miner.invalid", port), KEY, OPEN, resolving)
    assert answer == ProbeResult(True, "")
    assert seen[0].headers["host"] == f"miner.invalid:{port}"


async def test_a_name_that_is_none_is_invalid() -> None:
    answer = await probe_one(HttpClient(), Registration("miner.invalid", 1), KEY, OPEN, nowhere)
    assert answer == ProbeResult(False, "no such name")


async def test_256_miners_that_never_answer_are_asked_32_at_a_time(autojump_clock: trio.abc.Clock) -> None:
    asked = at_once = most = 0

    async def hanging(host: str, port: int) -> list[str]:
        nonlocal asked, at_once, most
        asked, at_once = asked + 1, at_once + 1
        most = max(most, at_once)
        try:
            await trio.sleep_forever()
        finally:
            at_once -= 1

    entries = [
        RegistryEntry(number.to_bytes(32, "big"), "5", 1, "", 0, Registration(f"m{number}.example", 1))
        for number in range(256)
    ]
    entries.append(RegistryEntry(bytes(32), "5", 1, "", 0, None, "MissingData", "nothing"))
    started = trio.current_time()
    answers = await probe_all(HttpClient(), entries, Probing(timeout_s=3.0), hanging)
    assert (asked, most) == (256, 32)
    assert trio.current_time() - started == pytest.approx(24.0)
    assert {answer.reason for answer in answers.values()} == {"no answer within 3 s"}
