"""Why ours answers a raw request as it does where another server does otherwise: the last column of docs/http.md."""

from typing import Final

ASKED_TO: Final = "RFC 9112, 2.2 asks servers to ignore it"
CLOSES: Final = "what follows the last request of a connection is not read (RFC 9112, 9.6)"
CODING: Final = "an unknown coding is 501 (RFC 9112, 6.1); lists and look-alikes of `chunked` have several readings"
CONTROLS: Final = "control characters have no meaning and end up in logs"
EACH: Final = "each request that was read whole is answered, in order, also after a half close"
FIELD: Final = "not a field line (RFC 9112, 5); nginx drops it and serves the rest"
FRAMED_TWICE: Final = "two framings: the classic way to smuggle a request (RFC 9112, 6.3)"
HOST: Final = "Host decides virtual hosts and links; it must be one valid name (RFC 9112, 3.2)"
LENGTHS: Final = "one decimal number, once (RFC 9112, 6.3)"
LF: Final = "lines end with CR LF; what repairs others hides requests from them"
NAMES: Final = "names are token characters; nginx drops names that a CGI could confuse"
NO_PROXY: Final = "no surface is a proxy or a tunnel"
ONCE: Final = "a proxy and Engram could each use a different one"
ONE_SPELLING: Final = "every second spelling is one that a proxy and Engram might route differently"
OPTIONS: Final = "RFC 9112, 3.2.4: the asterisk belongs to OPTIONS"
PRE_1_1: Final = "HTTP/1.0 has neither chunks nor, by default, connections that stay open; hypercorn and node close it"
ROUTED: Final = "methods in capitals are the router's business, all others name no resource here (RFC 9110, 9.1)"
SIZES: Final = "bounded before it is held in memory"
TRAILERS: Final = "trailers are fields after the body, not headers (RFC 9110, 6.5); checked like headers, then dropped"
UPGRADES: Final = "only WebSocket is offered, and only by some surfaces; `h2c` would bypass a proxy's rules"
VERSIONS: Final = "HTTP/1.1 and 1.0 are spoken; others are 505, look-alikes 400"
EXPECTED: Final = "RFC 9110, 10.1.1: an expectation that cannot be met is 417"
CHUNK_LINES: Final = "a size is 1 to 8 hexadecimal digits, an extension visible text; nothing else is on the line"
EXTENSIONS: Final = "extensions carry nothing that is read, so they are bounded"
SPACE: Final = "RFC 9112, 7.1.1 lets white space stand before an extension"
GARBAGE: Final = "the request before it was whole: it is answered, then the rest is refused"

BY_REASON: Final[dict[str, tuple[str, ...]]] = {
    OPTIONS: ("OPTIONS *", "GET *"),
    ROUTED: (
        "an unknown method in capitals is the router's",
        "a lower-case method",
        "a mixed-case method",
        "a method of 25 letters",
        "a method with a digit",
    ),
    ASKED_TO: (
        "one CRLF before the request line (RFC 9112, 2.2)",
        "several CRLF before the request line",
        "CRLF between two requests",
    ),
    NO_PROXY: (
        "absolute form",
        "absolute form of another scheme",
        "authority form",
        "CONNECT",
        "CONNECT of a path",
        "TRACE",
    ),
    ONE_SPELLING: (
        "a path without slash",
        "a fragment",
        "two spaces before the target",
        "two spaces before the version",
        "a space behind the version",
        "UTF-8 in the target",
    ),
    VERSIONS: (
        "HTTP/0.9 (nodejs/llhttp#877)",
        "HTTP/0.9 with a bare LF and a body (nodejs/llhttp#877)",
        "the label 0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/3.0",
        "HTTP/1.10",
        "ICE",
        "RTSP",
        "the preface of HTTP/2",
    ),
    LF: (
        "bare LF behind the request line",
        "bare LF everywhere",
        "bare LF before the request line",
        "a folded line (obs-fold)",
        "a folded line with a tab",
        "a folded Transfer-Encoding",
        "a bare LF in a value",
        "Transfer-Encoding behind a bare LF",
        "a bare LF at the end of the head",
        "LF CR at the end of the head",
        "bare LF behind a size (nginx#1016, golang#71988)",
        "bare LF behind an extension (nginx#1016)",
        "bare LF behind a chunk",
        "bare LF behind the last chunk",
        "trailers that end with a bare LF",
        "a folded trailer",
    ),
    NAMES: ("every token character in a name", "an underscore in a name"),
    SIZES: (
        "more than a hundred headers",
        "a head that is too large",
        "a target that is too long",
        "a head that never ends",
        "trailers of 80 kB",
    ),
    FIELD: ("no colon", "a name with a slash", "a name with an 8-bit character", "a trailer without colon"),
    CONTROLS: ("a control character in a value", "DEL in a value", "a vertical tab in a value"),
    HOST: (
        "no Host",
        "an empty Host",
        "two Hosts",
        "the same Host twice",
        "Host with a path",
        "Host with a user",
        "Host with a comma",
        "Host with a scheme",
        "Host with a query",
        "Host with a port that is no number",
        "Host with a space",
        "Host with an empty label",
    ),
    ONCE: ("two Authorizations", "two Content-Types", "two payments"),
    UPGRADES: ("Upgrade: h2c", "Upgrade: websocket where none is offered", "Upgrade without Connection"),
    EXPECTED: ("another expectation",),
    EACH: (
        "a body and the next request",
        "chunks and the next request",
        "three requests at once",
        "a body, chunks, and neither",
        "an option that only contains close",
    ),
    LENGTHS: ("a length beyond 15 digits", "the same length twice", "a list of lengths"),
    FRAMED_TWICE: (
        "CL.TE",
        "TE.CL",
        "CL.TE with a second request",
        "Content-Length 0 with chunks",
        "two Transfer-Encodings",
    ),
    SPACE: ("a space before an extension (RFC 9112, 7.1.1)",),
    TRAILERS: ("trailers",),
    PRE_1_1: ("Transfer-Encoding in HTTP/1.0", "HTTP/1.0 with keep-alive goes on"),
    CODING: (
        "gzip, chunked",
        "chunked, chunked",
        "chunked, identity",
        "identity",
        "a list that begins empty",
        "xchunked",
        "chunked;q=1",
        "quoted chunked",
        "an empty Transfer-Encoding",
        "a vertical tab and a no-break space around chunked (gunicorn#3364)",
        "a no-break space behind chunked",
    ),
    CHUNK_LINES: (
        "a size beyond 8 digits",
        "a space behind a size",
        "bare CR in an extension",
        "a NUL in an extension",
    ),
    EXTENSIONS: ("an extension without bound", "many small extensions"),
    GARBAGE: ("garbage behind a request", "a bad request behind a good one", "a body longer than its length"),
    CLOSES: (
        "a request behind one that closes is not answered",
        "a request behind HTTP/1.0 is not answered",
        "close among other options",
        "CRLF behind a body that closes (the client's mistake)",
    ),
}

REASONS: Final = {name: reason for reason, names in BY_REASON.items() for name in names}
"""By the name of the request."""
