"""Raw requests with the right verdict on each: what is accepted, and as what, or with which status it is refused.

Written from RFC 9110 and 9112 and from what other servers had to learn (the numbers name their reports). `Case.bodies`
are the bodies of the requests that the application sees, in order; `status` is the refusal that follows them, None
when there is none.
"""

from typing import Final

import msgspec


class Case(msgspec.Struct, frozen=True):
    name: str
    raw: bytes
    bodies: tuple[bytes, ...] = ()
    status: int | None = None
    within_body: bool = False
    """Whether the refusal concerns the body of the last request, which is then not answered by itself."""


def _get(*lines: bytes, start: bytes = b"GET /x HTTP/1.1", host: bytes = b"Host: t") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def _post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return _get(*lines, start=b"POST /x HTTP/" + version) + body


def _chunked(body: bytes, *lines: bytes, coding: bytes = b"chunked") -> bytes:
    return _post(b"Transfer-Encoding: " + coding, *lines, body=body)


def _accepted(name: str, raw: bytes, *bodies: bytes) -> Case:
    return Case(name, raw, bodies or (b"",))


def _refused(name: str, raw: bytes, status: int = 400, *bodies: bytes) -> Case:
    return Case(name, raw, bodies, status)


def _bad_body(name: str, raw: bytes) -> Case:
    return Case(name, raw, (b"",), 400, within_body=True)


NEXT: Final = _get()
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"

REQUEST_LINES: Final = (
    _accepted("a path", _get()),
    _accepted("HTTP/1.0", _get(start=b"GET /x HTTP/1.0")),
    _accepted("HTTP/1.0 without Host", b"GET /x HTTP/1.0\r\n\r\n"),
    _accepted("a query", _get(start=b"GET /x?a=b&c=%20 HTTP/1.1")),
    _accepted("all of a path's characters", _get(start=b"GET /-._~!$&'()*+,;=:@/%41?/? HTTP/1.1")),
    _accepted("characters that browsers leave as they are", _get(start=b'GET /x?q="{}|\\^`<>[] HTTP/1.1')),
    _accepted("OPTIONS *", _get(start=b"OPTIONS * HTTP/1.1")),
    _accepted("an unknown method in capitals is the router's", _get(start=b"BREW /x HTTP/1.1")),
    _accepted("one CRLF before the request line (RFC 9112, 2.2)", b"\r\n" + NEXT),
    _accepted("several CRLF before the request line", b"\r\n" * 9 + NEXT),
    _accepted("CRLF between two requests", NEXT + b"\r\n" + NEXT, b"", b""),
    _refused("absolute form", _get(start=b"GET http://t/x HTTP/1.1")),
    _refused("absolute form of another scheme", _get(start=b"GET file:///etc/passwd HTTP/1.1")),
    _refused("authority form", _get(start=b"GET t:80 HTTP/1.1")),
    _refused("CONNECT", _get(start=b"CONNECT t:443 HTTP/1.1"), 405),
    _refused("CONNECT of a path", _get(start=b"CONNECT /x HTTP/1.1"), 405),
    _refused("TRACE", _get(start=b"TRACE /x HTTP/1.1"), 405),
    _refused("GET *", _get(start=b"GET * HTTP/1.1")),
    _refused("a path without slash", _get(start=b"GET x HTTP/1.1")),
    _refused("a fragment", _get(start=b"GET /x#y HTTP/1.1")),
    _refused("no target", _get(start=b"GET  HTTP/1.1")),
    _refused("two spaces before the target", _get(start=b"GET  /x HTTP/1.1")),
    _refused("two spaces before the version", _get(start=b"GET /x  HTTP/1.1")),
    _refused("a space within the target", _get(start=b"GET /x y HTTP/1.1")),
    _refused("a tab as separator", _get(start=b"GET\t/x\tHTTP/1.1")),
    _refused("a space before the method", b" " + NEXT),
    _refused("a space behind the version", _get(start=b"GET /x HTTP/1.1 ")),
    _refused("a NUL in the target", _get(start=b"GET /x\x00 HTTP/1.1")),
    _refused("a control character in the target", _get(start=b"GET /x\x01 HTTP/1.1")),
    _refused("DEL in the target", _get(start=b"GET /x\x7f HTTP/1.1")),
    _refused("UTF-8 in the target", _get(start="GET /ü HTTP/1.1".encode())),
    _refused("a lower-case method", _get(start=b"get /x HTTP/1.1")),
    _refused("a mixed-case method", _get(start=b"Get /x HTTP/1.1")),
    _refused("a method of 25 letters", _get(start=b"A" * 25 + b" /x HTTP/1.1")),
    _refused("a method with a digit", _get(start=b"GET1 /x HTTP/1.1")),
    _refused("no method", _get(start=b" /x HTTP/1.1")),
    _refused("HTTP/0.9 (nodejs/llhttp#877)", b"GET /x\r\n\r\n"),
    _refused(
        "HTTP/0.9 with a bare LF and a body (nodejs/llhttp#877)", b"GET /x\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    ),
    _refused("the label 0.9", _get(start=b"GET /x HTTP/0.9"), 505),
    _refused("HTTP/1.2", _get(start=b"GET /x HTTP/1.2"), 505),
    _refused("HTTP/2.0", _get(start=b"GET /x HTTP/2.0"), 505),
    _refused("HTTP/3.0", _get(start=b"GET /x HTTP/3.0"), 505),
    _refused("HTTP/1.10", _get(start=b"GET /x HTTP/1.10")),
    _refused("HTTP/1", _get(start=b"GET /x HTTP/1")),
    _refused("HTTP/01.1", _get(start=b"GET /x HTTP/01.1")),
    _refused("a lower-case protocol", _get(start=b"GET /x http/1.1")),
    _refused("ICE", _get(start=b"SOURCE /x ICE/1.0")),
    _refused("RTSP", _get(start=b"OPTIONS rtsp://t RTSP/1.0")),
    _refused("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    _refused("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40),
    _refused("an SSH banner", b"SSH-2.0-OpenSSH_9.2\r\n"),
    _refused("the PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + NEXT),
    _refused("bare LF behind the request line", b"GET /x HTTP/1.1\nHost: t\r\n\r\n"),
    _refused("bare LF everywhere", b"GET /x HTTP/1.1\nHost: t\n\n"),
    _refused("bare LF before the request line", b"\n" + NEXT),
    _refused("bare CR behind the request line", b"GET /x HTTP/1.1\rHost: t\r\n\r\n"),
    _refused("CR CR LF behind the request line", b"GET /x HTTP/1.1\r\r\nHost: t\r\n\r\n"),
)

FIELDS: Final = (
    _accepted("no space behind the colon", _get(b"X-A:b")),
    _accepted("spaces and tabs around a value", _get(b"X-A: \t b c \t ")),
    _accepted("an empty value", _get(b"X-A:", b"X-B: ")),
    _accepted("every token character in a name", _get(b"!#$%&'*+-.^_`|~09azAZ: x")),
    _accepted("an underscore in a name", _get(b"X_A: b")),
    _accepted("obs-text in a value", _get(b"X-A: \x80\xff\xfc")),
    _accepted("a colon in a value", _get(b"X-A: b:c::")),
    _accepted("the same header twice", _get(b"X-A: b", b"X-A: c")),
    _accepted("Host in capitals", _get(host=b"HOST: t")),
    _accepted("Host with a port", _get(host=b"Host: t.example:8080")),
    _accepted("Host as an IPv4 address", _get(host=b"Host: 127.0.0.1:80")),
    _accepted("Host as an IPv6 address", _get(host=b"Host: [::1]:80")),
    _accepted("Host with a dot at its end", _get(host=b"Host: t.example.")),
    _accepted("one hundred headers", _get(*[b"X-A: b"] * 99)),
    _refused("more than a hundred headers", _get(*[b"X-A: b"] * 100), 431),
    _refused("a head that is too large", _get(b"X-A: " + b"b" * 40_000), 431),
    _refused("a target that is too long", _get(start=b"GET /" + b"x" * 33_000 + b" HTTP/1.1"), 431),
    _refused("a head that never ends", b"GET /x HTTP/1.1\r\nHost: t\r\n" + b"X-A: b\r\n" * 9_000, 431),
    _refused("a space before the colon", _get(b"X-A : b")),
    _refused("a tab before the colon", _get(b"X-A\t: b")),
    _refused("Host with a space before its colon", _get(host=b"Host : t")),
    _refused("Content-Length with a space before its colon", _post(b"Content-Length : 5", body=b"hello")),
    _refused("an empty name", _get(b": b")),
    _refused("no colon", _get(b"X-A")),
    _refused("a name with a space", _get(b"X A: b")),
    _refused("a name with a slash", _get(b"X/A: b")),
    _refused("a name with an 8-bit character", _get("X-Ä: b".encode())),
    _refused("a name with a NUL", _get(b"X\x00A: b")),
    _refused("a folded line (obs-fold)", _get(b"X-A: b", b" c")),
    _refused("a folded line with a tab", _get(b"X-A: b", b"\tc")),
    _refused("a folded first line", b"GET /x HTTP/1.1\r\n Host: t\r\n\r\n"),
    _refused("a folded Transfer-Encoding", _post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n")),
    _refused("a NUL in a value", _get(b"X-A: b\x00c")),
    _refused("a control character in a value", _get(b"X-A: b\x01c")),
    _refused("DEL in a value", _get(b"X-A: b\x7fc")),
    _refused("a vertical tab in a value", _get(b"X-A: b\x0bc")),
    _refused("a bare CR in a value", _get(b"X-A: b\rc")),
    _refused("a bare LF in a value", _get(b"X-A: b\nc")),
    _refused(
        "Transfer-Encoding behind a bare LF", _post(b"X: a\nTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED)
    ),
    _refused("a bare LF at the end of the head", b"GET /x HTTP/1.1\r\nHost: t\r\nX-A: b\n\r\n"),
    _refused("LF CR at the end of the head", b"GET /x HTTP/1.1\r\nHost: t\r\n\n\r"),
    _refused("no Host", _get(host=b"")),
    _refused("an empty Host", _get(host=b"Host:")),
    _refused("two Hosts", _get(b"Host: u")),
    _refused("the same Host twice", _get(b"Host: t")),
    _refused("Host with a path", _get(host=b"Host: t/x")),
    _refused("Host with a user", _get(host=b"Host: u@t")),
    _refused("Host with a comma", _get(host=b"Host: a, b")),
    _refused("Host with a scheme", _get(host=b"Host: http://t")),
    _refused("Host with a query", _get(host=b"Host: t?x")),
    _refused("Host with a port that is no number", _get(host=b"Host: t:x")),
    _refused("Host with a space", _get(host=b"Host: a b")),
    _refused("Host with an empty label", _get(host=b"Host: a..b")),
    _refused("two Authorizations", _get(b"Authorization: a", b"Authorization: b")),
    _refused("two Content-Types", _post(b"Content-Type: a", b"Content-Type: b", b"Content-Length: 0")),
    _refused("two payments", _get(b"X-Payment: a", b"x-payment: b")),
    _refused("Upgrade: h2c", _get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAAA")),
    _refused("Upgrade: websocket where none is offered", _get(b"Connection: Upgrade", b"Upgrade: websocket")),
    _refused("Upgrade without Connection", _get(b"Upgrade: websocket")),
    _refused("another expectation", _get(b"Expect: magic"), 417),
)

LENGTHS: Final = (
    _accepted("a body", _post(b"Content-Length: 5", body=b"hello"), b"hello"),
    _accepted("no body", _post(b"Content-Length: 0")),
    _accepted("POST without a length has no body", _post()),
    _accepted("a length with zeros before it", _post(b"Content-Length: 0005", body=b"hello"), b"hello"),
    _accepted("a body of GET", _get(b"Content-Length: 5") + b"hello", b"hello"),
    _accepted("a body and the next request", _post(b"Content-Length: 5", body=b"hello") + NEXT, b"hello", b""),
    _accepted(
        "a body that looks like a request", _post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), SMUGGLED
    ),
    _accepted("HTTP/1.0 with a length", _post(b"Content-Length: 5", body=b"hello", version=b"1.0"), b"hello"),
    _refused("a negative length", _post(b"Content-Length: -1")),
    _refused("a length with a sign", _post(b"Content-Length: +5", body=b"hello")),
    _refused("a hexadecimal length", _post(b"Content-Length: 0x5", body=b"hello")),
    _refused("a length with an underscore", _post(b"Content-Length: 1_0", body=b"hello")),
    _refused("a length with a fraction", _post(b"Content-Length: 5.0", body=b"hello")),
    _refused("a length with a space in it", _post(b"Content-Length: 5 5", body=b"hello")),
    _refused("a length in other digits", _post("Content-Length: ٥".encode(), body=b"hello")),
    _refused("a length that is a word", _post(b"Content-Length: five", body=b"hello")),
    _refused("an empty length", _post(b"Content-Length:", body=b"hello")),
    _refused("a length beyond 15 digits", _post(b"Content-Length: 9999999999999999")),
    _refused("two lengths", _post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!")),
    _refused("the same length twice", _post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
    _refused("a list of lengths", _post(b"Content-Length: 5, 5", body=b"hello")),
    _refused("CL.TE", _post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nG")),
    _refused("TE.CL", _post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=b"8\r\nSMUGGLED\r\n0\r\n\r\n")),
    _refused(
        "CL.TE with a second request",
        _post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    ),
    _refused(
        "Content-Length 0 with chunks", _post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")
    ),
)

CHUNKS: Final = (
    _accepted("one chunk", _chunked(b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    _accepted("three chunks", _chunked(b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n"), b"abcdef"),
    _accepted("no chunk", _chunked(b"0\r\n\r\n")),
    _accepted(
        "a size in both cases of hexadecimal",
        _chunked(b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n"),
        b"01234567890123456789a",
    ),
    _accepted("a size with zeros before it", _chunked(b"0005\r\nhello\r\n00\r\n\r\n"), b"hello"),
    _accepted("Chunked in other letters", _chunked(b"0\r\n\r\n", coding=b"ChUnKeD")),
    _accepted("a chunk extension", _chunked(b"5;a=b\r\nhello\r\n0;c\r\n\r\n"), b"hello"),
    _accepted("a quoted chunk extension", _chunked(b'5;a="b;c"\r\nhello\r\n0\r\n\r\n'), b"hello"),
    _accepted("a space before an extension (RFC 9112, 7.1.1)", _chunked(b"5 ;a\r\nhello\r\n0\r\n\r\n"), b"hello"),
    _accepted("trailers", _chunked(b"5\r\nhello\r\n0\r\nX-A: b\r\nX-B: c\r\n\r\n"), b"hello"),
    _accepted("chunks and the next request", _chunked(b"5\r\nhello\r\n0\r\n\r\n") + NEXT, b"hello", b""),
    _accepted("CRLF in a chunk", _chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), b"\r\n\r\n"),
    _refused("Transfer-Encoding in HTTP/1.0", _post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0")),
    _refused("gzip, chunked", _chunked(b"0\r\n\r\n", coding=b"gzip, chunked"), 501),
    _refused("chunked, chunked", _chunked(b"0\r\n\r\n", coding=b"chunked, chunked"), 501),
    _refused("chunked, identity", _chunked(b"0\r\n\r\n", coding=b"chunked, identity"), 501),
    _refused("identity", _chunked(b"", coding=b"identity"), 501),
    _refused("a list that begins empty", _chunked(b"0\r\n\r\n", coding=b",chunked"), 501),
    _refused("xchunked", _chunked(b"0\r\n\r\n", coding=b"xchunked"), 501),
    _refused("chunked;q=1", _chunked(b"0\r\n\r\n", coding=b"chunked;q=1"), 501),
    _refused("quoted chunked", _chunked(b"0\r\n\r\n", coding=b'"chunked"'), 501),
    _refused("an empty Transfer-Encoding", _chunked(b"0\r\n\r\n", coding=b""), 501),
    _refused(
        "a vertical tab and a no-break space around chunked (gunicorn#3364)",
        _chunked(b"0\r\n\r\n", coding=b"\x0bchunked\xa0"),
    ),
    _refused("a no-break space behind chunked", _chunked(b"0\r\n\r\n", coding=b"chunked\xa0"), 501),
    _refused("two Transfer-Encodings", _chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked")),
    _bad_body("a size that is no number", _chunked(b"x\r\nhello\r\n0\r\n\r\n")),
    _bad_body("an empty size", _chunked(b"\r\nhello\r\n0\r\n\r\n")),
    _bad_body("a size with 0x", _chunked(b"0x5\r\nhello\r\n0\r\n\r\n")),
    _bad_body("a negative size", _chunked(b"-5\r\nhello\r\n0\r\n\r\n")),
    _bad_body("a size with a sign", _chunked(b"+5\r\nhello\r\n0\r\n\r\n")),
    _bad_body("a size with an underscore", _chunked(b"1_0\r\nhello\r\n0\r\n\r\n")),
    _bad_body("a size beyond 8 digits", _chunked(b"100000000\r\n")),
    _bad_body("a size that overflows 64 bits", _chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n")),
    _bad_body("a space before a size", _chunked(b" 5\r\nhello\r\n0\r\n\r\n")),
    _bad_body("a space behind a size", _chunked(b"5 \r\nhello\r\n0\r\n\r\n")),
    _bad_body("bare LF behind a size (nginx#1016, golang#71988)", _chunked(b"5\nhello\r\n0\r\n\r\n")),
    _bad_body("bare LF behind an extension (nginx#1016)", _chunked(b"5;a\nhello\r\n0\r\n\r\n")),
    _bad_body("bare CR in an extension", _chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n")),
    _bad_body("a NUL in an extension", _chunked(b"5;a\x00\r\nhello\r\n0\r\n\r\n")),
    _bad_body("an extension without bound", _chunked(b"5;" + b"a" * 4_000 + b"\r\nhello\r\n0\r\n\r\n")),
    _bad_body("many small extensions", _chunked((b"1;" + b"a" * 500 + b"\r\nx\r\n") * 4 + b"0\r\n\r\n")),
    _bad_body("a chunk that is longer than it says", _chunked(b"4\r\nhello\r\n0\r\n\r\n")),
    _bad_body("bare LF behind a chunk", _chunked(b"5\r\nhello\n0\r\n\r\n")),
    _bad_body("nothing behind a chunk", _chunked(b"5\r\nhello0\r\n\r\n")),
    _bad_body("bare LF behind the last chunk", _chunked(b"5\r\nhello\r\n0\n\n")),
    _bad_body("trailers that end with a bare LF", _chunked(b"5\r\nhello\r\n0\r\nX-A: b\n\r\n")),
    _bad_body("a folded trailer", _chunked(b"5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n")),
    _bad_body("a trailer without colon", _chunked(b"5\r\nhello\r\n0\r\nX-A\r\n\r\n")),
    _bad_body("trailers of 80 kB", _chunked(b"5\r\nhello\r\n0\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n")),
)

SEQUENCES: Final = (
    _accepted("three requests at once", NEXT * 3, b"", b"", b""),
    _accepted(
        "a body, chunks, and neither",
        _post(b"Content-Length: 1", body=b"a") + _chunked(b"1\r\nb\r\n0\r\n\r\n") + NEXT,
        b"a",
        b"b",
        b"",
    ),
    _refused("garbage behind a request", NEXT + b"\x00\x01\x02", 400, b""),
    _refused("a bad request behind a good one", NEXT + _get(host=b""), 400, b""),
    _refused("a body longer than its length", _post(b"Content-Length: 3", body=b"hello"), 400, b"hel"),
    _accepted("a request behind one that closes is not answered", _get(b"Connection: close") + SMUGGLED, b""),
    _accepted("a request behind HTTP/1.0 is not answered", _get(start=b"GET /x HTTP/1.0") + SMUGGLED, b""),
    _accepted(
        "HTTP/1.0 with keep-alive goes on", _get(b"Connection: keep-alive", start=b"GET /x HTTP/1.0") + NEXT, b"", b""
    ),
    _accepted("close among other options", _get(b"Connection: keep-alive, Close") + SMUGGLED, b""),
    _accepted("an option that only contains close", _get(b"Connection: not-close") + NEXT, b"", b""),
    _accepted(
        "CRLF behind a body that closes (the client's mistake)",
        _post(b"Content-Length: 5", b"Connection: close", body=b"hello\r\n"),
        b"hello",
    ),
)

CASES: Final = (*REQUEST_LINES, *FIELDS, *LENGTHS, *CHUNKS, *SEQUENCES)
