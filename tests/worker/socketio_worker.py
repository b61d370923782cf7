"""A worker on python-socketio's own asyncio client, with the lines of `tests/node/worker_client.mjs`.

`python -m tests.worker.socketio_worker URL INTRODUCTION [TRANSPORT…]`; without one it begins by polling.
"""

import asyncio
import json
import sys
from typing import Any

import socketio


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


async def main(url: str, introduction: str, *transports: str) -> None:
    client = socketio.AsyncClient(reconnection=False)

    @client.event
    async def connect() -> None:
        say(connected=True)
        await client.emit("authenticate", json.loads(introduction))

    @client.event
    async def auth_success(data: Any) -> None:
        say(auth_success=data)
        await client.emit("reconcile", {"jobs": []}, callback=lambda answer: say(reconcile=answer))

    @client.event
    async def auth_failed(data: Any) -> None:
        say(auth_failed=data)

    @client.event
    async def job(data: dict[str, Any]) -> Any:
        if data.get("id"):
            result = {"id": data["id"], "result": data["payload"]}
            await client.emit("job_result", result, callback=lambda answer: say(delivered=answer))
        return data["payload"]

    @client.event
    async def disconnect(reason: str) -> None:
        say(disconnected=reason)

    await client.connect(url, transports=list(transports) or None)
    await client.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
