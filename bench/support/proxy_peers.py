"""What the proxy's benchmark talks to, each in a process of its own: `python -m bench.support.proxy_peers KIND FD …`.

`backend`: five bytes, 256 MiB in parts, or events that never end. `fastapi`: the original's way to pass a request on,
FastAPI and httpx, with one client for all requests; the same signature is verified, nothing else of a proxy is there.
"""

import os
import socket
import sys
from typing import Any

import trio

from bench.support.http_peers import PART, STREAMED, ready
from engram.http import descriptors
from engram.http.asgi import respond
from engram.http.framing import Refused
from engram.http.server import Limits, Server
from engram.http.sockets import Address, listen

EVENTS = (b"content-type", b"text/event-stream")


async def backend_app(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    if path == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(STREAMED // len(PART)):
            await send({"type": "http.response.body", "body": PART, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        while (await receive()).get("more_body", False):
            pass
        await respond(send, 200, b"hello")


class Nobody:
    def refused(self, refused: Refused, client: str) -> tuple[str, tuple[tuple[bytes, bytes], ...]]:
        return "0" * 16, ()

    def count_refusal(self, client: str) -> float:
        return 0.0

    def dropped(self, code: str) -> None: ...
    def count(self, connections: int) -> None: ...
    def for_anybody(self) -> tuple[tuple[bytes, bytes], ...]:
        return ()


def backend(ready_fd: int) -> None:
    descriptors.raise_limit()

    async def serve() -> None:
        listeners = listen("127.0.0.1", 0)
        address = Address.of(listeners[0])
        ready(ready_fd, address.port)
        limits = Limits(max_connections=5_000)
        await Server(backend_app, address, limits, Nobody()).run(listeners, trio.Event(), 0.0)

    trio.run(serve)


def fastapi(ready_fd: int, target: str, miner: str) -> None:
    import asyncio
    import time

    import httpx
    import msgspec
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request, Response

    from engram.hotkeys import AuthError, epistula, ss58, verify_signed

    app, client, self_key = FastAPI(), httpx.AsyncClient(timeout=300.0), ss58.decode(miner)
    scheme = msgspec.structs.replace(epistula.V2, past_ms=600_000)
    loop = asyncio.new_event_loop()

    @app.post("/inference")
    async def inference(request: Request) -> Response:
        body = await request.body()
        try:
            verify_signed(
                scheme,
                request.headers.raw,
                method="POST",
                raw_path=b"/inference",
                body=body,
                now_ms=int(time.time() * 1000),
                self_key=self_key,
            )
        except AuthError as error:
            raise HTTPException(401, error.code) from None
        headers = dict(request.headers)
        headers.pop("host", None)
        answer = await client.post(f"{target}/inference", content=body, headers=headers)
        return Response(answer.content, answer.status_code, dict(answer.headers))

    # With its protocol named: asyncio switches Nagle's algorithm off for such sockets only.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen(1_024)
    config = uvicorn.Config(app, log_level="error", access_log=False)
    ready(ready_fd, int(sock.getsockname()[1]))
    loop.run_until_complete(uvicorn.Server(config).serve([sock]))


if __name__ == "__main__":
    kind, number, *rest = sys.argv[1:]
    if kind == "backend":
        backend(int(number))
    else:
        fastapi(int(number), *rest)
    os._exit(0)
