"""An orchestrator on python-socketio's asyncio server, with the commands and lines of `tests/node/orchestrator.mjs`.

`python -m tests.worker.socketio_orchestrator PORT [PING_INTERVAL_MS PING_TIMEOUT_MS]`
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import socketio
from aiohttp import web

Command = Callable[[dict[str, Any]], Awaitable[object]]


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def shown(value: Any) -> Any:
    """The value with bytes as hex, so that a line shows them."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [shown(each) for each in value]
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items()}
    return value


def made(value: Any) -> Any:
    """The value that is shown so."""
    if isinstance(value, list):
        return [made(each) for each in value]
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else {name: made(each) for name, each in value.items()}
    return value


async def main(port: int, ping_interval_ms: int = 5_000, ping_timeout_ms: int = 5_000) -> None:
    # It announces whole seconds.
    server = socketio.AsyncServer(
        async_mode="aiohttp", ping_interval=ping_interval_ms / 1000, ping_timeout=ping_timeout_ms / 1000
    )
    requests: dict[str, web.Request] = {}
    latest = ""

    @server.event
    async def connect(sid: str, environ: dict[str, Any]) -> None:
        requests[sid] = environ["aiohttp.request"]
        say(connected=sid, hotkey=environ.get("HTTP_X_MINER_HOTKEY"))

    @server.event
    async def authenticate(sid: str, data: dict[str, Any]) -> None:
        nonlocal latest
        latest = sid
        say(authenticate=data)

    @server.event
    async def job_result(sid: str, data: Any) -> dict[str, bool]:
        say(job_result=shown(data))
        return {"ok": True}

    @server.event
    async def disconnect(sid: str, reason: str) -> None:
        say(disconnected=reason)

    async def job(command: dict[str, Any]) -> None:
        data = command["data"]

        def answered(*arguments: Any) -> None:
            say(answer=shown(arguments[0]), id=data.get("id") if isinstance(data, dict) else None)

        await server.emit("job", made(data), to=latest, callback=answered)

    async def cut(command: dict[str, Any]) -> None:
        transport = requests[latest].transport
        assert transport is not None
        transport.abort()

    commands: dict[str, Command] = {
        "job": job,
        "cut": cut,
        "tell": lambda command: server.emit("job", made(command["data"]), to=latest),
        "drop": lambda command: server.disconnect(latest),
    }
    app = web.Application()
    server.attach(app)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    say(listening=runner.addresses[0][1])
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        command = json.loads(line)
        await commands[command["do"]](command)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
