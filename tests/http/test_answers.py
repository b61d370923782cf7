"""The parser of answers alone: each taken as it stands or refused, wherever its bytes are cut."""

import time
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.http import answers, framing
from engram.http.answers import END, NEED, AnswerHead, AnswerParser, Refused
from engram.http.framing import fields
from engram.http.head import Bounds
from engram.http.parser import Parser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"


class Case(msgspec.Struct, frozen=True):
    """One answer: its bytes, and what is to be made of them (`status` 0: it is refused)."""

    name: str
    raw: bytes
    status: int = 0
    body: bytes = b""
    keep: bool = False
    ends_with_connection: bool = False
    left: int = 0
    """Bytes behind the answer."""
    of_head: bool = False


def taken(name: str, raw: bytes, body: bytes = b"", status: int = 200, *, keep: bool = True, left: int = 0) -> Case:
    return Case(name, raw, status, body, keep, left=left)


def until_close(name: str, raw: bytes, body: bytes = b"") -> Case:
    return Case(name, raw, 200, body, keep=False, ends_with_connection=True)


CASES = [
    taken("a length", OK + b"Content-Length: 3\r\n\r\nabc", b"abc"),
    taken("no reason", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"),
    taken("no space behind the status", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
    taken("a reason in Latin-1", b"HTTP/1.1 404 Nicht gef\xfcnden\r\nContent-Length: 0\r\n\r\n", status=404),
    taken("a status of no class", b"HTTP/1.1 799 x\r\nContent-Length: 0\r\n\r\n", status=799),
    taken("the same length twice", OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    taken("chunks", CHUNKED + b"\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789"),
    taken("chunks and trailers", CHUNKED + b"\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", b"a"),
    taken("close", OK + b"Connection: close\r\nContent-Length: 1\r\n\r\na", b"a", keep=False),
    taken("close in a list", OK + b"Connection: x, Close\r\nContent-Length: 1\r\n\r\na", b"a", keep=False),
    taken("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", b"a", keep=False),
    taken("HTTP/1.0 kept", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", b"a"),
    taken("100 before it", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na", b"a"),
    taken("103 before it", b"HTTP/1.1 103 x\r\nLink: y\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"),
    taken("100 with a length", b"HTTP/1.1 100 x\r\nContent-Length: 9\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"),
    taken("204", b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    taken("204 with a body", b"HTTP/1.1 204 x\r\nContent-Length: 3\r\n\r\nabc", status=204, keep=False, left=3),
    taken("204 with a body to come", b"HTTP/1.1 204 x\r\nContent-Length: 3\r\n\r\n", status=204, keep=False),
    taken("304 with the length of another", b"HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n", status=304),
    taken("a second answer behind it", OK + b"Content-Length: 0\r\n\r\n" + OK + b"\r\n", left=len(OK) + 2),
    taken("garbage behind it", OK + b"Content-Length: 1\r\n\r\nab", b"a", left=1),
    taken("a value of Latin-1", OK + b"X-A: \xe9\r\nContent-Length: 0\r\n\r\n"),
    Case("HEAD with a length", OK + b"Content-Length: 30\r\n\r\n", 200, keep=True, of_head=True),
    Case("HEAD of chunks", CHUNKED + b"\r\n", 200, keep=True, of_head=True),
    Case("HEAD without a length", OK + b"\r\n", 200, keep=True, of_head=True),
    Case("HEAD with a body", OK + b"Content-Length: 1\r\n\r\na", 200, keep=True, left=1, of_head=True),
    until_close("no length", OK + b"\r\nabc", b"abc"),
    until_close("no length and nothing", OK + b"\r\n"),
    until_close("no length in spite of keep-alive", OK + b"Connection: keep-alive\r\n\r\nabc", b"abc"),
    Case("nothing", b""),
    Case("half a status line", b"HTTP/1.1 20"),
    Case("half a head", OK + b"Content-Le"),
    Case("half a body", OK + b"Content-Length: 3\r\n\r\nab"),
    Case("half a chunk", CHUNKED + b"\r\n3\r\nab"),
    Case("chunks without an end", CHUNKED + b"\r\n3\r\nabc\r\n"),
    Case("half a trailer", CHUNKED + b"\r\n0\r\nX-Sum"),
    Case("only informational", b"HTTP/1.1 100 Continue\r\n\r\n"),
    Case("informational without end", b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + OK + b"Content-Length: 0\r\n\r\n"),
    Case("another protocol unasked", b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
    Case("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    Case("HTTP/2", b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n"),
    Case("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"),
    Case("lower case", b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    Case("a status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    Case("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    Case("status 099", b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
    Case("an empty line first", b"\r\n" + OK + b"Content-Length: 0\r\n\r\n"),
    Case("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    Case("a bare LF in a value", OK + b"X-A: b\nContent-Length: 0\r\n\r\n"),
    Case("a bare CR in a value", OK + b"X-A: b\rc\r\nContent-Length: 0\r\n\r\n"),
    Case("NUL in a value", OK + b"X-A: \x00\r\nContent-Length: 0\r\n\r\n"),
    Case("a folded line", OK + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
    Case("a space before the colon", OK + b"Content-Length : 0\r\n\r\n"),
    Case("a line without a colon", OK + b"Content-Length\r\n\r\n"),
    Case("an empty name", OK + b": x\r\nContent-Length: 0\r\n\r\n"),
    Case("two lengths", OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    Case("a list of lengths", OK + b"Content-Length: 3, 3\r\n\r\nabc"),
    Case("a negative length", OK + b"Content-Length: -3\r\n\r\nabc"),
    Case("a signed length", OK + b"Content-Length: +3\r\n\r\nabc"),
    Case("a length in hex", OK + b"Content-Length: 0x3\r\n\r\nabc"),
    Case("an empty length", OK + b"Content-Length:\r\n\r\nabc"),
    Case("a length beyond 15 digits", OK + b"Content-Length: " + b"9" * 16 + b"\r\n\r\nabc"),
    Case("both framings", CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n"),
    Case(
        "both framings, the other way round", OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    Case("chunked twice", CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Case("gzip, chunked", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    Case("identity", OK + b"Transfer-Encoding: identity\r\n\r\nabc"),
    Case("chunks in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Case("a chunk size that is none", CHUNKED + b"\r\nx\r\nabc\r\n0\r\n\r\n"),
    Case("a signed chunk size", CHUNKED + b"\r\n+3\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk size of 9 digits", CHUNKED + b"\r\n000000003\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk longer than it says", CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n"),
    Case("bare LF behind a chunk size", CHUNKED + b"\r\n3\nabc\r\n0\r\n\r\n"),
    Case("extensions without end", CHUNKED + b"\r\n" + b"1;" + b"x" * 900 + b"\r\na\r\n" * 1 + b"1;" + b"y" * 1_100),
    Case("trailers that are none", CHUNKED + b"\r\n0\r\nno colon\r\n\r\n"),
    Case("too many fields", OK + b"X-A: b\r\n" * 257 + b"Content-Length: 0\r\n\r\n"),
    Case("a head without end", OK + b"X-A: " + b"b" * 70_000),
    Case("a head that is too large", OK + b"X-A: " + b"b" * 70_000 + b"\r\n\r\n"),
]
SHORT = [case for case in CASES if len(case.raw) < 600]


def read(case: Case, *parts: bytes) -> Case:
    """What a parser makes of the parts of a case and the end of the connection, as a case like it."""
    parser = AnswerParser(bodyless=case.of_head)
    head: AnswerHead | None = None
    body, ended_by_connection = b"", False
    supply = [*parts, b""]
    try:
        while (event := parser.next()) is not END:
            if isinstance(event, AnswerHead):
                assert head is None
                head = event
            elif isinstance(event, bytes):
                assert event
                body += event
            else:
                assert event is NEED
                if part := supply.pop(0):
                    parser.feed(part)
                else:
                    parser.end()
                    ended_by_connection = True
    except Refused:
        return Case(case.name, case.raw, of_head=case.of_head)
    assert head is not None
    left = parser.held + sum(map(len, supply))
    return Case(case.name, case.raw, head.status, body, head.keep, ended_by_connection, left=left, of_head=case.of_head)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_is_taken_as_it_stands_or_refused(case: Case) -> None:
    assert read(case, *([case.raw] if case.raw else [])) == case


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.name)
def test_it_makes_no_difference_where_an_answer_is_cut(case: Case) -> None:
    for cut in range(1, len(case.raw)):
        assert read(case, case.raw[:cut], case.raw[cut:]) == case, cut
    assert read(case, *(case.raw[at : at + 1] for at in range(len(case.raw)))) == case


FRAGMENTS = [
    OK,
    CHUNKED,
    b"\r\n",
    b"Content-Length: 3\r\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"\n",
    b"\x00",
    b"H",
]
FRAGMENTS += [
    b"HTTP/1.1 100 \r\n\r\n",
    b"HTTP/1.0 204 x\r\n",
    b"Connection: close\r\n",
    b"Transfer-Encoding: x\r\n",
    b": ",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12), st.lists(st.integers(1, 400), max_size=8), st.booleans())
def test_any_bytes_cut_anywhere_are_read_as_they_are_read_whole(
    fragments: list[bytes], cuts: list[int], of_head: bool
) -> None:
    raw = b"".join(fragments)
    case = Case("generated", raw, of_head=of_head)
    at = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    parts = [raw[start:end] for start, end in pairwise(at)]
    assert read(case, *parts) == read(case, *([raw] if raw else []))


def test_trailers_are_given_when_the_body_has_ended() -> None:
    parser = AnswerParser()
    parser.feed(CHUNKED + b"\r\n1\r\na\r\n0\r\nX-Sum:  1 \r\nx-b: c\r\n\r\n")
    while parser.next() is not END:
        pass
    assert parser.trailers == [(b"x-sum", b"1"), (b"x-b", b"c")]


def test_garbage_is_refused_before_a_line_has_ended() -> None:
    for begun in (b"SSH-2.0", b"HTTP/2", b"HTTP/1.1 2x", b"HTTP/1.1  ", b"\n", b"<html>"):
        parser = AnswerParser()
        parser.feed(begun)
        with pytest.raises(Refused):
            parser.next()


def work_s(raw: bytes) -> float:
    """The least CPU time in which a server's parser reads this, of three tries."""
    tries: list[float] = []
    for _ in range(3):
        parser = Parser(Bounds())
        began = time.process_time()
        parser.feed(raw)
        while parser.next() is not NEED:
            pass
        tries.append(time.process_time() - began)
    return min(tries)


@pytest.mark.parametrize(
    ("head", "repeated"),
    [
        (b"", b"\r\n"),
        (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["empty lines", "chunks of one byte"],
)
def test_many_small_pieces_in_one_read_cost_in_proportion_to_their_bytes(head: bytes, repeated: bytes) -> None:
    """Cutting each from a copy of the rest costs its square: 44 ms of the loop for 64 KiB of chunks of one byte."""
    many = 2**20 // len(repeated)
    assert work_s(head + repeated * many) < 0.001 + 40 * work_s(head + repeated * (many // 16))


LINES = b"a:\r\n" * 10_000


@pytest.mark.parametrize("head", [OK, CHUNKED + b"\r\n0\r\n"], ids=["headers", "trailers"])
@pytest.mark.parametrize("past", [False, True])
def test_so_many_headers_or_trailers_are_taken_and_more_are_counted_and_not_taken_apart(
    head: bytes, past: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 0

    def counting(lines: bytes) -> list[tuple[bytes, bytes]]:
        nonlocal longest
        longest = max(longest, lines.count(b"\r\n"))
        return fields(lines)

    for module in (answers, framing):
        monkeypatch.setattr(module, "fields", counting)
    parser = AnswerParser()
    parser.feed(head + (LINES if past else LINES[: 4 * 256]) + b"\r\n")
    if past:
        with pytest.raises(Refused, match="more than 256"):
            while parser.next() is not NEED:
                pass
    else:
        while parser.next() not in (NEED, END):
            pass
        assert len(parser.trailers) == (256 if b"chunked" in head else 0)
    assert longest <= 256
