"""The stake threshold that a subnet publishes: what counts as one, and which one is in force."""

import math
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engram.http.client import HttpClient
from engram.proxy.authorization import Caller
from engram.proxy.min_stake import FILE, KEYS, MOST, KeptThreshold, NoThreshold, StakeReadings, shown, threshold_in
from engram.proxy.settings.model import AuthSettings
from tests.http.origin import answer, listen, read_head
from tests.proxy.backends import backend, closed_port
from tests.proxy.harness import Chain, Host, calling, proxying, settings_for
from tests.proxy.signing import BOB, EVE, headers_of, raw

GOOD = [
    (b"1500", 1500.0),
    (b"0", 0.0),
    (b" 1.5e3\n", 1500.0),
    (b'"1500.5"', 1500.5),
    (b'{"alpha": 2000, "as_of": "today"}', 2000.0),
    (b'{"min_stake": "7"}', 7.0),
]
BAD = [
    b"",
    b"<html>",
    b"null",
    b"true",
    b"-1",
    b"1e16",
    b'"nan"',
    b'"inf"',
    b"[1]",
    b"{}",
    b'{"other": 1}',
    b'{"alpha": 1, "min_stake": 2}',
    b'{"alpha": null}',
    b"\xff",
    b"1" + b"0" * 5_000,
    b"[" * 10_000,
]


@pytest.mark.parametrize(("content", "value"), GOOD)
def test_a_threshold_is_a_number_wherever_it_stands(content: bytes, value: float) -> None:
    assert threshold_in(content) == value


@pytest.mark.parametrize("content", BAD)
def test_what_is_no_threshold_is_refused(content: bytes) -> None:
    with pytest.raises(NoThreshold):
        threshold_in(content)


@given(st.binary(max_size=60) | st.sampled_from(KEYS).map(lambda key: b'{"%b": 1e400}' % key.encode()))
def test_whatever_is_read_is_a_finite_stake_or_refused(content: bytes) -> None:
    try:
        value = threshold_in(content)
    except NoThreshold:
        return
    assert math.isfinite(value)
    assert 0 <= value <= MOST


def test_what_may_be_secret_in_a_url_is_not_shown() -> None:
    assert shown("https://me:word@stakes.example:8443/alpha?key=abc#x") == "https://stakes.example:8443/alpha"


async def test_a_reading_is_in_force_until_a_better_one_and_the_refusal_names_it(tmp_path: Path) -> None:
    replies = [answer(b"2000"), answer(b"oops"), answer(b"1e3", "503 Busy"), answer(b'{"alpha": 100}')]

    async def publishing(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(replies.pop(0))

    chain = Chain((EVE.public_key, Caller(True, 1_500 * 10**9, 0, 0)))
    body = b"{}"
    client = HttpClient()
    async with trio.open_nursery() as nursery, backend(answer()) as servers:
        url = f"http://127.0.0.1:{await listen(nursery, publishing)}/alpha"
        auth = AuthSettings(miner_hotkey=BOB.ss58, chain_endpoint="https://chain.invalid", min_stake_url=url)
        async with proxying(settings_for(servers.port, auth=auth), chain=chain) as proxied, calling(proxied) as caller:
            state, kept = proxied.state, KeptThreshold(tmp_path)
            readings = StakeReadings(state, client, kept)

            async def status() -> int:
                return (await caller.ask(raw("POST", "/inference", body, headers_of(body, by=EVE)))).status

            assert await status() == 200, "until the first reading auth.min_stake counts, which is 1000"
            assert state.threshold_age_s is None
            assert await readings.read(url)
            got = await caller.ask(raw("POST", "/inference", body, headers_of(body, by=EVE)))
            assert (got.status, got.json()["min_stake"], got.json()["min_stake_source"]) == (403, 2000.0, url)
            assert "more than 2000 alpha (auth.min_stake_url, from http://" in str(got.json()["error"])
            for _ in range(2):
                assert not await readings.read(url)
                assert state.threshold_error
                assert await status() == 403, "the last good reading stays"
            shown_status = (await caller.ask(raw("GET", "/status"))).json()["authorization"]
            assert isinstance(shown_status, dict)
            assert (shown_status["min_stake"], shown_status["min_stake_source"]) == (2000.0, url)
            assert shown_status["min_stake_age_s"] >= 0.0
            assert await readings.read(url)
            assert (await status(), state.threshold_error) == (200, "")
            assert kept.read() == state.threshold
            await proxied.reload(settings_for(servers.port, auth=msgspec.structs.replace(auth, min_stake_url="")))
            assert state.policy.min_stake == 1000.0
            assert state.threshold_age_s is None
        await client.aclose()
        nursery.cancel_scope.cancel()


async def test_the_job_reads_at_once_and_again_when_the_url_changes(tmp_path: Path) -> None:
    read = trio.Event()
    client = HttpClient()

    async def publishing(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(answer(b"77"))
        read.set()

    async with trio.open_nursery() as nursery:
        url = f"http://127.0.0.1:{await listen(nursery, publishing)}/"
        auth = AuthSettings(miner_hotkey=BOB.ss58, min_stake_url=f"http://127.0.0.1:{closed_port()}/")
        async with proxying(settings_for(9, auth=auth)) as proxied:
            readings = StakeReadings(proxied.state, client, KeptThreshold(tmp_path))
            nursery.start_soon(readings.run, Host())  # type: ignore[arg-type]
            with trio.fail_after(10):
                while not proxied.state.threshold_error:
                    await trio.lowlevel.checkpoint()
                await proxied.reload(settings_for(9, auth=msgspec.structs.replace(auth, min_stake_url=url)))
                await read.wait()
                while proxied.state.policy.min_stake != 77:
                    await trio.lowlevel.checkpoint()
            assert proxied.state.threshold_error == ""
        await client.aclose()
        nursery.cancel_scope.cancel()


async def test_the_last_good_reading_is_in_force_after_a_restart_though_its_url_does_not_answer(tmp_path: Path) -> None:
    client = HttpClient()
    async with backend(answer(b"2000")) as publishing:
        url = f"http://127.0.0.1:{publishing.port}/alpha"
        auth = AuthSettings(miner_hotkey=BOB.ss58, chain_endpoint="https://chain.invalid", min_stake_url=url)
        async with proxying(settings_for(9, auth=auth)) as proxied:
            assert await StakeReadings(proxied.state, client, KeptThreshold(tmp_path)).read(url)
    async with proxying(settings_for(9, auth=auth)) as proxied:
        proxied.state.threshold = KeptThreshold(tmp_path).read()
        assert not await StakeReadings(proxied.state, client, KeptThreshold(tmp_path)).read(url)
        assert (proxied.state.policy.min_stake, proxied.state.policy.source) == (2000.0, url)
        assert proxied.state.threshold_age_s is not None
        elsewhere = msgspec.structs.replace(auth, min_stake_url=url + "/other")
        await proxied.reload(settings_for(9, auth=elsewhere))
        assert proxied.state.policy.min_stake == 1000.0, "a reading of another URL is not believed"
    await client.aclose()


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"url": 1}', b'{"url": "u", "shown_url": "u", "min_stake": -1, "read_at": 1}']
)
def test_a_kept_reading_that_cannot_be_used_is_as_if_there_were_none(tmp_path: Path, content: bytes) -> None:
    assert KeptThreshold(tmp_path).read() is None
    (tmp_path / FILE).write_bytes(content)
    assert KeptThreshold(tmp_path).read() is None
