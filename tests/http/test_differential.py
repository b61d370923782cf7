"""Generated streams of requests to ours and to other people's servers: whoever accepts a request, reads the same one.

Ours may refuse what others repair; it may never see another request in the same bytes than they do, nor one that all
of them refuse. Whole streams are also answered exactly, in order.
"""

import random
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.http.others import commands, running
from tests.http.test_fuzz import PIECES
from tests.sampling import NIGHTLY, SEED

pytestmark = pytest.mark.heavy

STREAMS: Final = 10_000 if NIGHTLY else 600
ECHOING: Final = ("ours", "hypercorn", "uvicorn", "node")
ANSWER: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(.*?)\r\n\r\n", re.DOTALL)
LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Stream(msgspec.Struct, frozen=True):
    raw: bytes
    bodies: tuple[bytes, ...] | None
    """Of its requests; None where it was damaged."""
    cuts: tuple[int, ...]
    """Where it is cut into packets."""


def request(rng: random.Random) -> tuple[bytes, bytes]:
    """A well-formed request and its body."""
    head, body = [b"Host: t", *rng.sample([b"Accept: */*", b"X-A: b, c", b"X-B:"], rng.randrange(3))], b""
    kind = rng.randrange(3)
    if kind == 0:
        return b"\r\n".join([b"GET /%d HTTP/1.1" % rng.randrange(99), *head, b"", b""]), b""
    body = bytes(rng.choice(b"abc\r\n0123456789 GETPOST/:") for _ in range(rng.choice([0, 1, 7, 60, 300])))
    if kind == 1:
        return b"\r\n".join([b"POST / HTTP/1.1", *head, b"Content-Length: %d" % len(body), b"", body]), body
    framed, rest = b"", body
    while rest:
        part, rest = rest[: (size := rng.randrange(1, 80))], rest[size:]
        framed += b"%x%b\r\n%b\r\n" % (len(part), rng.choice([b"", b"", b";a=b"]), part)
    trailers = rng.choice([b"", b"", b"X-T: u\r\n"])
    head.append(rng.choice([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"]))
    return b"\r\n".join([b"PUT /x HTTP/1.1", *head, b"", b""]) + framed + b"0\r\n" + trailers + b"\r\n", body


def stream(rng: random.Random) -> Stream:
    """One to four requests at once, most of them damaged."""
    requests = [request(rng) for _ in range(rng.randrange(1, 5))]
    data, bodies = bytearray(b"".join(raw for raw, _ in requests)), [body for _, body in requests]
    damages = rng.choice([0, 1, 1, 2, 3])
    for _ in range(damages):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(PIECES)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at : at + 1] = rng.randbytes(1)
            case _:
                data[at:at] = data[at : at + rng.randint(1, 60)]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
    return Stream(bytes(data), None if damages else tuple(bodies), tuple(cuts))


def answers(port: int, sent: Stream) -> list[bytes]:
    """The bodies of what was accepted, in order."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock, suppress(OSError):
        for begin, end in zip((0, *sent.cuts), (*sent.cuts, len(sent.raw)), strict=True):
            sock.sendall(sent.raw[begin:end])
        sock.shutdown(socket.SHUT_WR)
        while part := sock.recv(65_536):
            said += part
    found, at = list[bytes](), 0
    while head := ANSWER.match(said, at):
        at = head.end()
        if head[1] == b"100":
            continue
        length = LENGTH.search(head[2])
        if head[1] != b"200" or length is None:
            break
        found.append(said[at : (at := at + int(length[1]))])
    return found


@pytest.fixture(scope="module")
def streams() -> Sequence[Stream]:
    rng = random.Random(f"{SEED} differential")
    return [stream(rng) for _ in range(STREAMS)]


@pytest.fixture(scope="module")
def accepted(streams: Sequence[Stream]) -> dict[str, list[list[bytes]]]:
    """What each server accepted of each stream."""
    with ExitStack() as stack:
        ports = {name: stack.enter_context(running(name)) for name in commands(1, Path())}

        def all_of(name: str) -> list[list[bytes]]:
            return [answers(ports[name], each) for each in streams]

        with ThreadPoolExecutor(len(ports)) as threads:
            return dict(zip(ports, threads.map(all_of, ports), strict=True))


def test_whole_streams_are_answered_exactly(streams: Sequence[Stream], accepted: dict[str, list[list[bytes]]]) -> None:
    whole = [(each, got) for each, got in zip(streams, accepted["ours"], strict=True) if each.bodies is not None]
    assert len(whole) > STREAMS / 10
    assert [each.raw for each, got in whole if list(each.bodies or ()) != got] == []


@pytest.mark.parametrize("name", [name for name in ECHOING if name != "ours"])
def test_what_ours_accepts_another_server_reads_as_the_same_request(
    name: str, streams: Sequence[Stream], accepted: dict[str, list[list[bytes]]]
) -> None:
    if name not in accepted:
        pytest.skip(f"{name} is not installed here")
    both = zip(streams, accepted["ours"], accepted[name], strict=True)
    differing = [
        (each.raw, ours, other)
        for each, ours, other in both
        if any(mine != theirs for mine, theirs in zip(ours, other, strict=False))
    ]
    assert differing == []


def test_nothing_is_accepted_that_all_others_refuse(
    streams: Sequence[Stream], accepted: dict[str, list[list[bytes]]]
) -> None:
    alone = [
        (each.raw, len(ours))
        for at, (each, ours) in enumerate(zip(streams, accepted["ours"], strict=True))
        if len(ours) > max(len(accepted[name][at]) for name in accepted if name != "ours")
    ]
    assert alone == []
