"""What the HTTP benchmark serves, each in a process of its own: `python -m bench.support.http_peers KIND READY_FD …`.

`ours`: our server under a raw ASGI application. `uvicorn`, `aiohttp`: the same two answers by others. `fastapi`: the
signed GET and the 402 of a gateway as a FastAPI application makes them: the same signature is verified, the same row
is read from SQLite, the same offer is signed; nothing else of a gateway is there.
"""

import json
import os
import socket
import sqlite3
import sys
import time
from typing import Any

from engram.hotkeys import Keypair, answers, gateway_scheme

HELLO = b"hello"
STREAMED = 256 * 1024 * 1024
PART = b"x" * 65_536


async def raw(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application: five bytes, or a stream in parts of 64 KiB."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(STREAMED // len(PART)):
            await send({"type": "http.response.body", "body": PART, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": HELLO})


def ready(number: int, port: int) -> None:
    os.write(number, json.dumps({"port": port}).encode() + b"\n")
    os.close(number)


def listening() -> socket.socket:
    """A listener for the peers. asyncio switches Nagle's algorithm off where the protocol is named, and so for those
    that it accepts here."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1_024)
    return listener


def ours(ready_fd: int, max_connections: str = "20000") -> None:
    import trio

    from engram.http import descriptors
    from engram.http.head import Refused
    from engram.http.server import Limits, Server
    from engram.http.sockets import Address, listen

    class Nobody:
        def refused(self, refused: Refused, client: str) -> tuple[str, tuple[tuple[bytes, bytes], ...]]:
            return "0" * 16, ()

        def count_refusal(self, client: str) -> float:
            return 0.0

        def dropped(self, code: str) -> None: ...

        def count(self, connections: int) -> None: ...

        def for_anybody(self) -> tuple[tuple[bytes, bytes], ...]:
            return ()

    async def main() -> None:
        listeners = listen("127.0.0.1", 0)
        address = Address.of(listeners[0])
        ready(ready_fd, address.port)
        limits = Limits(max_connections=int(max_connections))
        await Server(raw, address, limits, Nobody()).run(listeners, trio.Event(), 1.0)

    descriptors.raise_limit()
    trio.run(main)


def uvicorn_(ready_fd: int, app: Any = raw) -> None:
    import uvicorn

    listener = listening()
    ready(ready_fd, listener.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


def aiohttp_(ready_fd: int) -> None:
    from aiohttp import web

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "service": "engram-cloud-gateway"})

    app = web.Application()
    app.router.add_get("/health", health)
    listener = listening()
    ready(ready_fd, listener.getsockname()[1])
    web.run_app(app, sock=listener, access_log=None, print=None)


def fastapi_(ready_fd: int, ledger: str, offer: str) -> None:
    import base64

    from fastapi import FastAPI, Request, Response

    app, keypair = FastAPI(), Keypair.generate()
    rows = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, check_same_thread=False)
    rows.row_factory = sqlite3.Row
    terms = json.loads(offer)

    def signer(request: Request, body: bytes) -> bytes | None:
        lines = request.scope["headers"]
        path = request.scope["raw_path"]
        return gateway_scheme.verify_request(lines, request.method, path, body, time.time_ns() // 1_000_000).public_key

    @app.get("/tiers")
    async def tiers() -> dict[str, Any]:
        return {"tiers": [{"tier": name, "cpu_vcpu": 1, "memory_gb": 2} for name in ("lite", "standard", "pro")]}

    @app.get("/sessions/{session_id}")
    async def show(session_id: str, request: Request) -> Any:
        asker = signer(request, b"")
        row = rows.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()
        if row is None or row["controller"] != asker:
            return Response("Not found", 404)
        return {name: (value.hex() if isinstance(value, bytes) else value) for name, value in dict(row).items()}

    @app.post("/sessions")
    async def create(order: dict[str, Any], request: Request) -> Response:
        asker = signer(request, await request.body())
        rows.execute("SELECT count(*) FROM sessions WHERE controller = ? AND state = 'active'", (asker,)).fetchone()
        rows.execute("SELECT count(*) FROM sessions WHERE state = 'active'").fetchone()
        document = {**terms, "order": order}
        body = json.dumps(document).encode()
        signed = answers.sign_answer(keypair, 402, request.headers["x-timestamp"], body)
        header = {"PAYMENT-REQUIRED": base64.b64encode(body).decode()}
        return Response(body, 402, {**signed, **header}, "application/json")

    uvicorn_(ready_fd, app)


if __name__ == "__main__":
    kind, descriptor, *rest = sys.argv[1:]
    {"ours": ours, "uvicorn": uvicorn_, "aiohttp": aiohttp_, "fastapi": fastapi_}[kind](int(descriptor), *rest)  # type: ignore[operator]
