"""Generated streams of requests, of six kinds: what one client may send, or a hostile or broken one.

pipelined   one to eight requests in one packet, as they should be
damaged     one to four requests, with bytes changed, taken out or put in
split       one to three requests, each byte a packet of its own
truncated   one to four requests, cut off somewhere
slow        one or two requests in a few packets, with pauses
huge        large bodies, counted or in many chunks, and heads near their bounds
"""

import random
from typing import Final, Literal, TypeAlias

import msgspec

from tests.http.test_fuzz import PIECES

Kind: TypeAlias = Literal["pipelined", "damaged", "split", "truncated", "slow", "huge"]
WEIGHTS: Final[dict[Kind, int]] = {
    "pipelined": 20,
    "damaged": 40,
    "split": 14,
    "truncated": 16,
    "slow": 6,
    "huge": 4,
}
PAUSE_S: Final = 0.01
FIELDS: Final = [
    *(b"Accept: */*", b"X-A: b, c", b"X-B:", b"X-A: \t d", b"Cookie: a=b"),
    *(b"X-%d: %d" % (number, number) for number in range(60)),
]
TEXT: Final = b"abc\r\n0123456789 GETPOST/:"


class Request(msgspec.Struct, frozen=True):
    raw: bytes
    method: str
    target: str
    body: bytes


class Stream(msgspec.Struct, frozen=True):
    kind: Kind
    packets: tuple[bytes, ...]
    pause_s: float
    whole: tuple[Request, ...]
    """The requests that arrive whole and as they should be, before anything else."""
    broken: bool
    """Whether something else follows them."""

    @property
    def raw(self) -> bytes:
        """All bytes."""
        return b"".join(self.packets)


def request(rng: random.Random, number: int, sizes: tuple[int, ...] = (0, 1, 7, 60, 300), fields: int = 2) -> Request:
    """Return a well-formed request; its target bears its number."""
    known = [
        b"Accept: */*",
        b"X-A: b, c",
        b"X-B:",
        b"X-A: \t d",
        b"Cookie: a=b",
        *(b"X-%d: %d" % (n, n) for n in range(60)),
    ]
    head = [b"Host: t", *rng.sample(known, rng.randrange(fields + 1))]
    target = b"/%d%b" % (number, rng.choice([b"", b"?a=%20b", b"/%41/;x", b'?q="{}']))
    kind = rng.choice(["none", "counted", "chunked"])
    if kind == "none":
        method = rng.choice([b"GET", b"DELETE"])
        return Request(
            b"\r\n".join([method + b" " + target + b" HTTP/1.1", *head, b"", b""]),
            method.decode(),
            target.decode(),
            b"",
        )
    size = rng.choice(sizes)
    body = rng.randbytes(size) if size > 1_000 else bytes(rng.choice(TEXT) for _ in range(size))
    if kind == "counted":
        lines = [b"POST " + target + b" HTTP/1.1", *head, b"Content-Length: %d" % len(body), b"", body]
        return Request(b"\r\n".join(lines), "POST", target.decode(), body)
    framed, rest, most = list[bytes](), body, 80 if size <= 1_000 else 9_000
    while rest:
        part, rest = rest[: (length := rng.randrange(1, most))], rest[length:]
        framed.append(b"%x%b\r\n%b\r\n" % (len(part), rng.choice([b"", b"", b";a=b"]) if size <= 1_000 else b"", part))
    coding = rng.choice([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"])
    trailers = rng.choice([b"", b"", b"X-T: u\r\n"])
    first = b"\r\n".join([b"PUT " + target + b" HTTP/1.1", *head, coding, b"", b""])
    return Request(first + b"".join(framed) + b"0\r\n" + trailers + b"\r\n", "PUT", target.decode(), body)


def stream(rng: random.Random) -> Stream:
    """Return a stream of any kind."""
    kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    match kind:
        case "pipelined":
            return _made(kind, _requests(rng, 8), ())
        case "damaged":
            return _damaged(rng)
        case "split":
            requests = [request(rng, number, (0, 1, 7, 60), 1) for number in range(rng.randrange(1, 4))]
            size = sum(len(each.raw) for each in requests)
            return _made(kind, requests, tuple(range(1, size)))
        case "truncated":
            return _truncated(rng)
        case "slow":
            requests = _requests(rng, 2)
            size = sum(len(each.raw) for each in requests)
            return _made(kind, requests, _cuts(rng, size, rng.randrange(2, 6)), pause_s=PAUSE_S)
        case "huge":
            requests = [request(rng, 0, (65_535, 65_536, 300_000, 1_000_000), 60), request(rng, 1)]
            return _made(kind, requests, ())


def _requests(rng: random.Random, most: int) -> list[Request]:
    return [request(rng, number) for number in range(rng.randrange(1, most + 1))]


def _cuts(rng: random.Random, size: int, count: int) -> tuple[int, ...]:
    return tuple(sorted(rng.randrange(size + 1) for _ in range(count)))


def _packets(raw: bytes, cuts: tuple[int, ...]) -> tuple[bytes, ...]:
    return tuple(raw[begin:end] for begin, end in zip((0, *cuts), (*cuts, len(raw)), strict=True) if begin < end)


def _made(kind: Kind, requests: list[Request], cuts: tuple[int, ...], *, pause_s: float = 0.0) -> Stream:
    raw = b"".join(each.raw for each in requests)
    return Stream(kind, _packets(raw, cuts), pause_s, tuple(requests), False)


def _damaged(rng: random.Random) -> Stream:
    requests = _requests(rng, 4)
    data = bytearray(b"".join(each.raw for each in requests))
    intact = len(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(data) + 1)
        intact = min(intact, at)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(PIECES)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at : at + 1] = rng.randbytes(1)
            case _:
                data[at:at] = data[at : at + rng.randint(1, 60)]
    cuts = _cuts(rng, len(data), rng.choice([0, 0, 1, 3]))
    return Stream("damaged", _packets(bytes(data), cuts), 0.0, _before(requests, intact), True)


def _truncated(rng: random.Random) -> Stream:
    requests = _requests(rng, 4)
    raw = b"".join(each.raw for each in requests)
    end = rng.randrange(1, len(raw))
    return Stream("truncated", (raw[:end],), 0.0, _before(requests, end), True)


def _before(requests: list[Request], end: int) -> tuple[Request, ...]:
    """Return the requests that end before this place."""
    found, at = list[Request](), 0
    for each in requests:
        at += len(each.raw)
        if at > end:
            break
        found.append(each)
    return tuple(found)
