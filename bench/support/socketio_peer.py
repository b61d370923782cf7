"""The original's form of a worker: python-socketio's own asyncio client, whose `job` handler returns the result.

`python -m bench.support.socketio_peer URL HOTKEY`
"""

import asyncio
import sys
import time
from typing import Any

import socketio


async def main(url: str, hotkey: str) -> None:
    """Connect, introduce, answer jobs until killed."""
    client = socketio.AsyncClient()

    @client.event
    async def connect() -> None:
        timestamp = str(int(time.time() * 1e9))
        await client.emit("authenticate", {"hotkey": hotkey, "timestamp": timestamp, "signature": "", "gpu_info": {}})

    @client.event
    async def job(data: dict[str, Any]) -> Any:
        return data.get("payload")

    await client.connect(url, headers={"X-Miner-Hotkey": hotkey}, transports=["websocket"])
    await client.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
