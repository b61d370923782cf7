"""The running process's side of the control socket."""

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog
import trio

from actors import Context
from engram.control.client import socket_address
from engram.control.errors import CommandRefused
from engram.control.protocol import MAX_COMMAND_BYTES, SOCKET_FILE, encode_refusal, encode_success

MAX_CONNECTIONS: Final = 16
"""When so many are open, the one that has been silent longest makes room; none is refused but while all are at work."""
IDLE_S: Final = 30.0
"""A connection that sends nothing for so long is closed."""
COMMAND_S: Final = 300.0
"""No command runs longer (a backup of a large ledger is the longest)."""

_log = structlog.get_logger(__name__)


class Operations(Protocol):
    """Carries out the lines that operators send."""

    async def carry_out(self, line: bytes) -> object:
        """Return what to answer, a value that msgspec can encode. Raises Refused, or msgspec.DecodeError."""
        ...


def control_job(data_dir: str | Path, operations: Operations) -> Callable[[Context], Awaitable[None]]:
    """Return the job that serves the control socket of `data_dir`, whose lock the process holds."""

    async def serve(context: Context) -> None:
        listener = listen(Path(data_dir) / SOCKET_FILE)
        try:
            context.ready()
            await trio.serve_listeners(_serve_connection_with(operations), [listener])
        finally:
            (Path(data_dir) / SOCKET_FILE).unlink(missing_ok=True)

    return serve


def listen(path: Path) -> trio.SocketListener:
    """Open a listener at `path`, mode 0600, replacing what a dead process left there. Raises OSError."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            with socket_address(path) as address:
                bound.bind(address)
        finally:
            os.umask(before)
        bound.listen(MAX_CONNECTIONS)
        bound.setblocking(False)
        return trio.SocketListener(trio.socket.from_stdlib_socket(bound))
    except BaseException:
        bound.close()
        raise


def _serve_connection_with(operations: Operations) -> Callable[[trio.SocketStream], Awaitable[None]]:
    open_connections = trio.CapacityLimiter(MAX_CONNECTIONS)
    silent: dict[trio.CancelScope, None] = {}  # in the order in which they fell silent

    async def serve_connection(stream: trio.SocketStream) -> None:
        async with stream:
            if not _is_own_user(stream.socket):
                return
            try:
                open_connections.acquire_nowait()
            except trio.WouldBlock:
                if not silent:
                    with trio.move_on_after(IDLE_S):
                        await stream.send_all(encode_refusal("busy", "too many operators at once; try again"))
                    return
                longest = next(iter(silent))
                del silent[longest]
                longest.cancel()
                await open_connections.acquire()
            try:
                await _converse(stream, operations, silent)
            except trio.BrokenResourceError:
                pass  # the operator went away; the ledger shows whether the command was carried out
            finally:
                open_connections.release()

    return serve_connection


async def _converse(stream: trio.SocketStream, operations: Operations, silent: dict[trio.CancelScope, None]) -> None:
    buffered = bytearray()
    while True:
        line: bytes | None = None
        with trio.move_on_after(IDLE_S) as silence:
            silent[silence] = None
            try:
                line = await _next_line(stream, buffered)
            finally:
                silent.pop(silence, None)
        if line is None:
            return
        answer = await _answer(line, operations)
        with trio.move_on_after(IDLE_S) as slow:
            await stream.send_all(answer)
        if slow.cancelled_caught or len(line) >= MAX_COMMAND_BYTES:
            return


async def _next_line(stream: trio.SocketStream, buffered: bytearray) -> bytes | None:
    """Return the next line without its end; one that is too long is returned cut to the bound; None at the end."""
    while (end := buffered.find(b"\n")) < 0:
        if len(buffered) >= MAX_COMMAND_BYTES:
            return bytes(buffered[:MAX_COMMAND_BYTES])
        part = await stream.receive_some(16_384)
        if not part:
            return None
        buffered += part
    line = bytes(buffered[:end])
    del buffered[: end + 1]
    return line


async def _answer(line: bytes, operations: Operations) -> bytes:
    if len(line) >= MAX_COMMAND_BYTES:
        return encode_refusal("too_large", f"a command has at most {MAX_COMMAND_BYTES} bytes")
    try:
        with trio.fail_after(COMMAND_S):
            return encode_success(await operations.carry_out(line))
    except CommandRefused as refused:
        return encode_refusal(refused.code, refused.message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return encode_refusal("bad_command", f"not a command that this version knows: {error}")
    except trio.TooSlowError:
        return encode_refusal("too_slow", f"gave up after {COMMAND_S:.0f} s; it may still be carried out")
    except Exception as error:  # noqa: BLE001  # seam: a broken command must not close the operator's way in
        _log.exception("control_command_failed")
        return encode_refusal("internal", f"{type(error).__name__}: {error}")


def _is_own_user(connection: trio.socket.SocketType) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())
