"""What a look at a miner finds: its certificate and clock; of a proxy, whom it stands for and what it offers."""

import email.utils
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from engram.hotkeys import Keypair, PublicKey
from engram.http.client import HttpClient, Response
from engram.http.tls import Certificates
from engram.kit.inspection import Finding, Inspection, Question, capacity_shape
from tests.http.servers import bare, echo
from tests.http.test_tls import make_certificate
from tests.proxy.backends import answer, backend, closed_port
from tests.proxy.harness import Proxied, proxying, settings_for
from tests.proxy.signing import ALICE, BOB, EVE


async def looked_at(url: str, hotkey: PublicKey, tls: ssl.SSLContext | None = None) -> dict[str, Finding]:
    http = HttpClient(tls=tls)
    seen = await Inspection(url, hotkey, ALICE, http, tls).run(Question())
    await http.aclose()
    return {each.what: each for each in [*seen.reach, *seen.work, *seen.signatures]}


async def found(proxied: Proxied, hotkey: PublicKey) -> dict[str, Finding]:
    return await looked_at(proxied.url, hotkey)


def expire(chain: Path, key: Path) -> None:
    """Make it a certificate whose time is over."""
    command = ("openssl", "x509", "-in", str(chain), "-signkey", str(key), "-days", "-1", "-out", str(chain))
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
@pytest.mark.parametrize(
    ("days", "trusted", "good", "said"),
    [
        (30, True, True, "it is good for 30 more days"),
        (13, True, False, "it is good for 13 more days: renew it 14 days before its end at the latest"),
        (30, False, False, "self-signed certificate: take a certificate of a public authority"),
        (-1, True, False, "certificate has expired: take a certificate of a public authority"),
    ],
    ids=["good", "short", "self-signed", "expired"],
)
async def test_a_certificate_is_judged_as_validators_do(
    days: int, trusted: bool, good: bool, said: str, tmp_path: Path
) -> None:
    chain, key = make_certificate(tmp_path, days=max(days, 1))
    if days < 0:
        expire(chain, key)
    tls = ssl.create_default_context(cafile=str(chain) if trusted else None)
    async with bare(echo, certificates=Certificates(chain, key)) as server:
        seen = await looked_at(f"https://127.0.0.1:{server.port}", BOB.public_key, tls)
    assert (seen["certificate"].good, seen["certificate"].words.startswith(said)) == (good, True), seen["certificate"]


async def test_an_https_address_that_speaks_no_tls_has_no_certificate() -> None:
    async with bare(echo) as server:
        seen = await looked_at(f"https://127.0.0.1:{server.port}", BOB.public_key)
    assert (seen["certificate"].good, "no TLS connection: " in seen["certificate"].words) == (False, True)


async def test_http_is_not_what_validators_take_of_a_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async with backend(answer()) as servers:
        url = f"http://127.0.0.1:{servers.port}"
        assert (await looked_at(url, BOB.public_key))["https"].words.startswith("not judged at 127.0.0.1: ")
        monkeypatch.setattr("engram.kit.inspection.is_public_host", lambda host: True)
        public = (await looked_at(url, BOB.public_key))["https"]
        assert (public.good, "validators demand https" in public.words) == (False, True)


@pytest.mark.parametrize(
    ("ahead_s", "good", "said"),
    [
        (0, True, "agrees with"),
        (60, False, "its clock is +"),
        (-60, False, "its clock is -"),
        (None, True, "cannot be seen"),
    ],
)
async def test_a_clock_that_is_off_is_found_out(ahead_s: int | None, good: bool, said: str) -> None:
    its_time = "yesterday" if ahead_s is None else email.utils.formatdate(time.time() + ahead_s, usegmt=True)
    async with backend(answer(b"{}", "200 OK", f"Date: {its_time}")) as servers:
        clock = (await looked_at(f"http://127.0.0.1:{servers.port}", BOB.public_key))["clock"]
    assert (clock.good, said in clock.words) == (good, True), clock


async def test_a_proxy_of_another_hotkey_is_found_out() -> None:
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        own, other = await found(proxied, BOB.public_key), await found(proxied, EVE.public_key)
    assert (own["answers"].good, own["/check"].good, own["/capacity"].good) == (True, True, True)
    assert not other["/check"].good
    assert "(404): set auth.miner_hotkey, or MINER_HOTKEY" in other["/check"].words
    assert not other["/capacity"].good


async def owned(url: str, hotkey: PublicKey, by: Keypair = ALICE) -> Finding:
    http = HttpClient()
    seen = await Inspection(url, hotkey, by, http).own(Question())
    await http.aclose()
    return seen[-1]


async def test_only_the_miner_of_the_hotkey_is_found_at_an_address() -> None:
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        assert (await owned(proxied.url, BOB.public_key)).good
        assert (await owned(proxied.url, BOB.public_key, by=EVE)).good, "it refuses her by the receiver it checks first"
        assert not (await owned(proxied.url, EVE.public_key)).good
        assert not (await owned(f"http://127.0.0.1:{servers.port}", BOB.public_key)).good, "it answers anyone"
    dead = await owned(f"http://127.0.0.1:{closed_port()}", BOB.public_key)
    assert (dead.what, dead.good) == ("answers", False)


@pytest.mark.parametrize("status", ["500 Internal Server Error", "404 Not Found", "429 Too Many Requests"])
async def test_an_address_whose_miner_does_no_work_is_not_a_good_one(status: str) -> None:
    async with backend(answer(b"{}", status)) as servers, proxying(settings_for(servers.port)) as proxied:
        seen = await owned(proxied.url, BOB.public_key)
    assert (seen.good, f"it answered a request for this hotkey with {status[:3]}" in seen.words) == (False, True), seen
    async with proxying(settings_for(closed_port())) as proxied:
        seen = await owned(proxied.url, BOB.public_key)
    assert (seen.good, "with 502" in seen.words or "with 503" in seen.words) == (False, True), seen


async def test_a_backend_that_answers_past_the_proxy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.kit.inspection.is_public_host", lambda host: True)
    async with backend(answer()) as servers, proxying(settings_for(servers.port)) as proxied:
        for port, good in ((servers.port, False), (closed_port(), True)):
            monkeypatch.setattr("engram.kit.inspection.BACKEND_PORT", port)
            seen = (await found(proxied, BOB.public_key))["backends"]
            assert (seen.good, f"127.0.0.1:{port}" in seen.words) == (good, True)


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        ({"inference": ["a"], "training": []}, "lists"),
        ({"a": True, "b": False}, "booleans"),
        ({"a": 1}, ""),
        ({"a": True, "b": []}, ""),
        ([], ""),
    ],
)
def test_a_capacity_has_one_of_two_shapes(content: object, shape: str) -> None:
    assert capacity_shape(Response(200, {}, msgspec.json.encode(content))) == shape
    assert capacity_shape(Response(200, {}, b"<html>")) == ""
