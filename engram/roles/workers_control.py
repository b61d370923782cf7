"""Passes the operator's commands on to a worker: any of them can carry out those that are about the common ledger."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from actors import Context
from engram.control.client import socket_address
from engram.control.protocol import SOCKET_FILE
from engram.control.server import listen
from engram.roles.shared import worker_folder
from engram.roles.workers_ops import GatewayWorker

_PART_BYTES: Final = 65_536


async def pass_on_commands(folder: Path, workers: Sequence[GatewayWorker], context: Context) -> None:
    """Serve the control socket of the common data folder; a job, endless. Raises OSError."""

    async def serve(operator: trio.SocketStream) -> None:
        worker = next((each for each in workers if each.ops_url), None)
        async with operator:
            if worker is None:
                return
            with socket_address(worker_folder(folder, worker.number) / SOCKET_FILE) as address:
                try:
                    gateway = await trio.open_unix_socket(address)
                except OSError:
                    return
            async with gateway, trio.open_nursery() as nursery:
                nursery.start_soon(_pump, operator, gateway)
                await _pump(gateway, operator)
                nursery.cancel_scope.cancel()

    listener = listen(folder / SOCKET_FILE)
    try:
        context.ready()
        await trio.serve_listeners(serve, [listener])
    finally:
        (folder / SOCKET_FILE).unlink(missing_ok=True)


async def _pump(source: trio.SocketStream, to: trio.SocketStream) -> None:
    try:
        async for part in source:
            await to.send_all(part)
        await to.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
