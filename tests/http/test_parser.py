"""The parser alone: every raw request whole, split at every byte, and streams that nobody wrote by hand."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.http import framing
from engram.http import head as head_module
from engram.http.framing import fields
from engram.http.head import Bounds, Head, Refused
from engram.http.parser import END, NEED, Parser
from tests.http.raw_requests import CASES, Case

BOUNDS = Bounds(max_head_bytes=32_768)


class Seen:
    """What a parser makes of bytes: whole requests, and how it ended."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.refused: int | None = None
        self.closed = False
        self.heads: list[Head] = []

    def feed(self, parser: Parser, data: bytes) -> None:
        """As a connection does: nothing is looked at behind a refusal, or behind a request that closes."""
        if self.refused is not None or self.closed:
            return
        parser.feed(data)
        try:
            while (event := parser.next()) is not NEED:
                if isinstance(event, Head):
                    self.heads.append(event)
                    self.bodies.append(b"")
                elif event is END:
                    if not self.heads[-1].keep:
                        self.closed = True
                        return
                else:
                    assert isinstance(event, bytes)
                    assert event
                    self.bodies[-1] += event
        except Refused as refused:
            self.refused = refused.status


def parse(*parts: bytes) -> Seen:
    parser, seen = Parser(BOUNDS), Seen()
    for part in parts:
        seen.feed(parser, part)
    return seen


def whole(case: Case) -> tuple[list[bytes], int | None]:
    """What the parser must say; of a body that is refused the part before it may have been given out."""
    return list(case.bodies), case.status


def said(seen: Seen, case: Case) -> tuple[list[bytes], int | None]:
    bodies = seen.bodies
    if case.status is not None and case.bodies and len(bodies) == len(case.bodies):
        bodies = [*bodies[:-1], case.bodies[-1]]
    return bodies, seen.refused


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_is_accepted_as_it_stands_or_refused(case: Case) -> None:
    assert said(parse(case.raw), case) == whole(case)


@pytest.mark.parametrize("case", [case for case in CASES if len(case.raw) < 1_000], ids=lambda case: case.name)
def test_it_makes_no_difference_where_the_bytes_are_cut(case: Case) -> None:
    for cut in range(1, len(case.raw)):
        assert said(parse(case.raw[:cut], case.raw[cut:]), case) == whole(case), cut


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_makes_no_difference_when_bytes_come_one_by_one(case: Case) -> None:
    if len(case.raw) < 1_000:
        assert said(parse(*(case.raw[at : at + 1] for at in range(len(case.raw)))), case) == whole(case)
    else:
        assert said(parse(*(case.raw[at : at + 1_009] for at in range(0, len(case.raw), 1_009))), case) == whole(case)


def test_there_are_at_least_150_cases_of_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 150


ACCEPTED = [case for case in CASES if case.status is None and all(head.keep for head in parse(case.raw).heads)]


@given(st.lists(st.sampled_from(ACCEPTED), max_size=6), st.lists(st.integers(0, 4_000), max_size=12))
def test_a_stream_of_requests_is_read_as_each_of_them_alone(cases: list[Case], cuts: list[int]) -> None:
    stream = b"".join(case.raw for case in cases)
    at = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    seen = parse(*(stream[start:end] for start, end in pairwise(at)))
    assert seen.bodies == [body for case in cases for body in case.bodies]
    assert seen.refused is None


FRAGMENTS = st.sampled_from(
    [
        *[
            b"GET /x HTTP/1.1\r\n",
            b"POST / HTTP/1.0\r\n",
            b"Host: t\r\n",
            b"Content-Length: 3\r\n",
            b"\r\n",
            b"\n",
            b"\r",
        ],
        *[
            b"Transfer-Encoding: chunked\r\n",
            b"0\r\n\r\n",
            b"3\r\nabc\r\n",
            b"abc",
            b" ",
            b"\x00",
            b";x",
            b":",
            b"\xff",
        ],
    ]
)


@given(st.lists(FRAGMENTS, max_size=40), st.integers(1, 9))
def test_any_bytes_are_requests_or_one_refusal_however_they_are_cut(fragments: list[bytes], size: int) -> None:
    stream = b"".join(fragments)
    at_once = parse(stream)
    in_parts = parse(*(stream[at : at + size] for at in range(0, len(stream), size)))
    assert (at_once.refused, at_once.bodies) == (in_parts.refused, in_parts.bodies)


@given(st.binary(max_size=400))
def test_random_bytes_end_in_nothing_but_a_refusal(data: bytes) -> None:
    seen = parse(data)
    assert seen.refused in {None, 400, 405, 431, 501, 505}


@given(st.binary(max_size=3_000), st.lists(st.integers(1, 700), max_size=20), st.integers(1, 500))
def test_a_chunked_body_arrives_as_it_was_sent(body: bytes, sizes: list[int], step: int) -> None:
    chunks, rest = [], body
    for size in sizes:
        part, rest = rest[:size], rest[size:]
        if part:
            chunks.append(part)
    if rest:
        chunks.append(rest)
    raw = b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    seen = parse(*(raw[at : at + step] for at in range(0, len(raw), step)))
    assert (seen.bodies, seen.refused) == ([body], None)


def test_garbage_is_refused_before_its_line_has_ended() -> None:
    for garbage in (b"\x16\x03\x01", b"get ", b"GET\t", b"GET /\x00", b" GET", b"GET / HTTP/1.1\r\nX: a\nb"):
        assert parse(garbage).refused == 400, garbage


def test_tiny_chunks_are_not_moved_in_memory_for_each_that_is_taken() -> None:
    parser = Parser(BOUNDS)
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 10_000)
    assert isinstance(parser.next(), Head)
    assert parser.next() == b"a"
    kept = parser._buffer
    assert [parser.next() for _ in range(9_000)] == [b"a"] * 9_000
    assert parser._buffer is kept
    assert isinstance(kept, bytearray)  # whose beginning is given up without moving the rest


def test_half_a_head_costs_no_more_the_longer_it_drips() -> None:
    parser = Parser(Bounds(max_head_bytes=1_000_000))
    raw = b"GET / HTTP/1.1\r\nHost: t\r\n" + b"X-A: b\r\n" * 1_000
    for at in range(0, len(raw), 100):
        parser.feed(raw[at : at + 100])
        assert parser.next() is NEED
    assert parser.held == len(raw)


def test_a_head_that_is_too_large_names_the_page_that_may_read_why() -> None:
    parser = Parser(BOUNDS)
    parser.feed(b"GET / HTTP/1.1\r\nHost: t\r\nOrigin: https://app.example\r\nX-A: " + b"b" * 40_000)
    with pytest.raises(Refused) as refused:
        parser.next()
    assert refused.value.origin == b"https://app.example"


def test_the_end_of_a_body_is_known_with_its_last_byte() -> None:
    for raw in (
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ):
        parser = Parser(BOUNDS)
        parser.feed(raw)
        assert isinstance(parser.next(), Head)
        assert parser.next() == b"hello"
        assert parser.take_end()
        assert parser.next() is NEED


def test_an_expectation_counts_only_where_a_body_follows_and_the_version_knows_it() -> None:
    def expects(line: bytes, length: bytes) -> bool:
        parser = Parser(BOUNDS)
        parser.feed(line + b"\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: " + length + b"\r\n\r\n")
        head = parser.next()
        assert isinstance(head, Head)
        return head.expects

    assert expects(b"POST / HTTP/1.1", b"5")
    assert not expects(b"POST / HTTP/1.1", b"0")
    assert not expects(b"POST / HTTP/1.0", b"5")


@pytest.mark.parametrize(
    ("begin", "each", "step"),
    [
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 65_536),
        (b"", b"\r\n", 65_536),
        (b"", b"GET / HTTP/1.0\r\n\r\n", 65_536),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", 8),
    ],
    ids=["chunks of one byte", "blank lines", "requests", "trailers that drip"],
)
def test_what_arrives_in_small_parts_costs_no_more_each_the_more_there_is(begin: bytes, each: bytes, step: int) -> None:
    def cost(size: int) -> float:
        raw = (begin + each * (size // len(each)))[:size]
        took = []
        for _ in range(3):
            parser, began = Parser(Bounds(max_head_bytes=100_000)), time.process_time()
            for at in range(0, size, step):
                parser.feed(raw[at : at + step])
                while parser.next() is not NEED:
                    pass
            took.append(time.process_time() - began)
        return min(took)

    assert cost(64_000) < 13 * cost(8_000) + 0.01  # 8 times as much


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n", "duplicate_header"),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", "duplicate_header"),
        (b"Expect: 100-continue\r\nExpect: magic\r\n", "bad_expectation"),
        (b"Expect: magic\r\nExpect: 100-continue\r\n", "bad_expectation"),
    ],
)
def test_a_field_that_is_repeated_is_judged_by_each_of_its_values(fields: bytes, code: str) -> None:
    parser = Parser(Bounds(websocket=True))
    parser.feed(b"GET / HTTP/1.1\r\nHost: t\r\n" + fields + b"\r\n")
    with pytest.raises(Refused) as refused:
        parser.next()
    assert refused.value.code == code


def test_options_of_the_connection_count_wherever_they_stand() -> None:
    def keeps(fields: bytes) -> bool:
        parser = Parser(BOUNDS)
        parser.feed(b"GET / HTTP/1.1\r\nHost: t\r\n" + fields + b"\r\n")
        head = parser.next()
        assert isinstance(head, Head)
        return head.keep

    assert keeps(b"Connection: keep-alive\r\nConnection: x\r\n")
    assert not keeps(b"Connection: close\r\nConnection: x\r\n")
    assert not keeps(b"Connection: x\r\nX-A: b\r\nConnection: y, Close\r\n")


@pytest.mark.parametrize("count", [99, 8_000])
@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n"], ids=["headers", "trailers"])
def test_so_many_headers_or_trailers_are_taken_and_more_are_counted_and_not_taken_apart(
    begun: bytes, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 0

    def counting(lines: bytes) -> list[tuple[bytes, bytes]]:
        nonlocal longest
        longest = max(longest, lines.count(b"\r\n"))
        return fields(lines)

    for module in (head_module, framing):
        monkeypatch.setattr(module, "fields", counting)
    chunks = b"Transfer-Encoding: chunked\r\n\r\n0\r\n" if begun.startswith(b"POST") else b""
    seen = parse(begun + b"Host: t\r\n" + chunks + b"a:\r\n" * count + b"\r\n")
    assert seen.refused == (None if count < 100 else 400 if chunks else 431)
    assert longest <= 100
