"""The gateway, as `python run.py`, that notes how many bytes of each client's it has read, and which it reads no more.

The file is named by NOTED_READS: lines of a client's port and a number of bytes, 0 where only its closing is awaited.
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from engram.http.transport import Transport

ROOT = Path(__file__).resolve().parents[3]
read, read_now, end = Transport.read, Transport.read_now, Transport.end
noted = os.open(os.environ["NOTED_READS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(transport: Transport, size: int) -> None:
    try:
        port = transport.sock.getpeername()[1]
    except OSError:  # a client that resets its connection is owed nothing
        return
    os.write(noted, b"%d %d\n" % (port, size))


async def noting_read(transport: Transport) -> bytes:
    if data := await read(transport):
        note(transport, len(data))
    return data


def noting_read_now(transport: Transport) -> bytes:
    if data := read_now(transport):
        note(transport, len(data))
    return data


async def noting_end(transport: Transport) -> None:
    note(transport, 0)
    await end(transport)


if __name__ == "__main__":
    patched: Any = Transport
    patched.read, patched.read_now, patched.end = noting_read, noting_read_now, noting_end
    sys.argv[0] = str(ROOT / "run.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
