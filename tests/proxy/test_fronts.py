"""Other people's proxies in front of this one, and behind it: both sides of each hop see the same requests."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trio

from tests.http.raw_requests import CASES, SMUGGLED, Case
from tests.proxy.fronts import Program, Seen, haproxy, nginx
from tests.proxy.harness import Proxied, proxying, settings_for
from tests.proxy.signing import headers_of

pytestmark = [pytest.mark.heavy, pytest.mark.external]

_QUIET_S = 0.5
Start = Callable[..., AbstractContextManager[Program]]
PROGRAMS: dict[str, Start] = {"nginx": nginx, "haproxy": haproxy}


def program(name: str) -> Start:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here (Debian: apt-get install {name})")
    return PROGRAMS[name]


async def sent(port: int, raw: bytes) -> None:
    """Send bytes and read until nothing more comes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with trio.move_on_after(_QUIET_S) as quiet:
            try:
                await stream.send_all(raw)
                while await stream.receive_some(65_536):
                    quiet.deadline = trio.current_time() + _QUIET_S
            except trio.BrokenResourceError:
                pass


async def all_sent(port: int, raws: list[bytes]) -> None:
    """Send each on a connection of its own, a few at a time."""
    limit = trio.CapacityLimiter(4)

    async def one(raw: bytes) -> None:
        async with limit:
            await sent(port, raw)

    async with trio.open_nursery() as nursery:
        for raw in raws:
            nursery.start_soon(one, raw)


def seen_by(proxied: Proxied, *codes: str) -> Seen:
    """What the proxy took for requests; those that were refused as no requests at all are `?`."""
    return [
        (ended.method, ended.path)
        for ended in proxied.ends
        if ended.method != "?" and (not codes or ended.code in codes)
    ]


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_front_and_the_proxy_see_the_same_requests(name: str, tmp_path: Path) -> None:
    async with proxying(settings_for(9)) as proxied:
        with program(name)(tmp_path, proxied.port) as front:
            await all_sent(front.port, [case.raw + SMUGGLED for case in CASES])
            await trio.to_thread.run_sync(front.settle)
            forwarded = front.seen(forwarded=True)
            paths = [(method, target.partition("?")[0]) for method, target in forwarded]
            assert len(paths) > 50
            not_requests = [ended for ended in proxied.ends if ended.method == "?"]
            missing = sorted(paths)
            for each in seen_by(proxied):
                assert each in missing, f"{name} did not mean to send {each}"
                missing.remove(each)
            # What it meant to send and we refused before it was a request.
            assert len(missing) <= len(not_requests)
            assert ("GET", "/smuggled") not in missing, (
                "what is a request for the front was the end of another's body here"
            )


def signed_case(case: Case) -> bytes:
    """The case with each of its requests signed, for /inference."""
    parts = (case.raw + SMUGGLED).replace(b" /x", b" /inference").split(b"Host: t\r\n")
    raw = parts[0]
    for number, part in enumerate(parts[1:]):
        body = case.bodies[number] if number < len(case.bodies) else b""
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers_of(body).items())
        raw += b"Host: t\r\n" + lines.encode() + part
    return raw


@pytest.mark.parametrize("name", PROGRAMS)
async def test_the_proxy_and_what_is_behind_it_see_the_same_requests(name: str, tmp_path: Path) -> None:
    with program(name)(tmp_path, None) as behind:
        route = {"methods": ("GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW")}
        async with proxying(settings_for(behind.port, route=route)) as proxied:
            await all_sent(proxied.port, [signed_case(case) for case in CASES])
            await trio.to_thread.run_sync(behind.settle)
            passed = sorted(seen_by(proxied, "done"))
            seen = sorted((method, target.partition("?")[0]) for method, target in behind.seen(forwarded=False))
            seen = [each for each in seen if each[0] not in ("-", "<BADREQ>")]
            assert seen == passed
            assert len(passed) > 30
            assert not [each for each in passed if "smuggled" in each[1]]
