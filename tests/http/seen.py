"""What an application saw of a request, as each of the compared servers' applications answers it.

Every server runs the same echo: its answer is a JSON document of `Seen`. Behind nginx stands `Upstream`, a reader of
nginx's own, well-formed requests. Fields that belong to a connection rather than to a request are left out, since a
proxy writes its own.
"""

import hashlib
import json
import socket
import threading
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from engram.http.asgi import Receive, Scope, Send, respond

OF_THE_CONNECTION: Final = frozenset(
    [
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
SHOWN_BYTES: Final = 200


class Seen(msgspec.Struct, frozen=True):
    """One request, as an application saw it; texts are latin-1."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, sorted by name; values of one name in their order."""
    body: str
    """Its first SHOWN_BYTES."""
    size: int
    sha256: str
    """Of the whole body, in hex."""

    def text(self) -> str:
        """Return it on one line, without Host."""
        lines = [f"{name}: {value}" for name, value in self.headers if name != "host"]
        body = [json.dumps(self.body)] if self.body else []
        return " ".join([self.method, self.target, *(f"[{line}]" for line in lines), *body])


def seen(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> Seen:
    """Return what was seen, in the form in which two servers' are compared."""
    named = [(name.lower(), value.strip(" \t")) for name, value in headers]
    kept = [(name, value) for name, value in named if name not in OF_THE_CONNECTION]
    return Seen(
        method,
        target.removesuffix("?"),  # ASGI cannot tell an empty query from none
        tuple(sorted(kept, key=lambda each: each[0])),
        body[:SHOWN_BYTES].decode("latin-1"),
        len(body),
        hashlib.sha256(body).hexdigest(),
    )


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was seen, or not at all when the body did not come whole."""
    if scope["type"] != "http":  # what other servers ask at their start
        raise NotImplementedError
    parts, more = list[bytes](), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        parts.append(message["body"])
        more = message["more_body"]
    path = bytes(scope["raw_path"]).partition(b"?")[0]
    query = bytes(scope["query_string"])
    found = seen(
        scope["method"],
        (path + b"?" + query if query else path).decode("latin-1"),
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        b"".join(parts),
    )
    await respond(send, 200, msgspec.json.encode(found), [(b"content-type", b"application/json")])


NODE: Final = """
const http = require('http'), crypto = require('crypto');
const server = http.createServer({requireHostHeader: true}, (request, response) => {
  const parts = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => {
    const body = Buffer.concat(parts), headers = [];
    for (let at = 0; at < request.rawHeaders.length; at += 2)
      headers.push([request.rawHeaders[at], request.rawHeaders[at + 1]]);
    response.end(JSON.stringify({method: request.method, target: request.url, headers,
      body: body.subarray(0, 200).toString('latin1'), size: body.length,
      sha256: crypto.createHash('sha256').update(body).digest('hex')}));
  });
});
server.listen(Number(process.argv[1]), '127.0.0.1');
"""


class Upstream:
    """Answers what nginx forwards; nginx's own requests are well-formed, one on a connection, with a length."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(10)
                try:
                    self._answer(sock)
                except OSError:
                    continue

    def _answer(self, sock: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (part := sock.recv(65_536)):
                return
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        headers = [(name, value) for name, _, value in (line.partition(":") for line in lines)]
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        while len(body) < length:
            if not (part := sock.recv(1 << 20)):
                return
            body += part
        answer = msgspec.json.encode(seen(method, rest.rpartition(" ")[0], headers, body))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(answer), answer))


_FOUND: Final = msgspec.json.Decoder(dict[str, Any])


def decoded(answer: bytes) -> Seen:
    """Return what an answer says; node leaves names and order as they came."""
    found = _FOUND.decode(answer)
    shape = seen(found["method"], found["target"], [(name, value) for name, value in found["headers"]], b"")
    return msgspec.structs.replace(shape, body=found["body"], size=found["size"], sha256=found["sha256"])
