"""TLS for a connection: the standard library's engine between the socket and the parser, and certificates that are
reloaded when their files change."""

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import structlog
import trio

from engram.http.transport import READ_BYTES, Late, Transport

_PART_BYTES: Final = 262_144
"""Bytes encrypted in one step, which blocks the loop for about 0.1 ms."""

_log = structlog.get_logger("engram.http")


@final
class Certificates:
    """A certificate chain and its key, from two PEM files."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raise OSError and ssl.SSLError (an OSError too) when they cannot be used."""
        self._chain, self._key = chain, key
        self._stamps = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection: reloaded if the files have changed, kept if they do not load."""
        with contextlib.suppress(OSError):
            if (stamps := self._look()) != self._stamps:
                self._stamps = stamps
                self.reload()
        return self._context

    def _look(self) -> tuple[int, int, int, int]:
        chain, key = self._chain.stat(), self._key.stat()
        return chain.st_mtime_ns, chain.st_ino, key.st_mtime_ns, key.st_ino

    def reload(self) -> None:
        """Load the files again; what does not load is logged, and the certificates in use are kept."""
        try:
            self._context = self._load()
        except OSError as error:
            _log.error("certificate_kept", chain=str(self._chain), reason=f"the changed files do not load: {error}")
        else:
            _log.info("certificate_loaded", chain=str(self._chain))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._chain, self._key)
        return context


@final
class TlsTransport(Transport):
    """A socket behind TLS."""

    __slots__ = ("_incoming", "_lock", "_outgoing", "_tls")

    secure = True

    def __init__(
        self, sock: socket.socket, send_s: float, context: ssl.SSLContext, server_name: str | None = None
    ) -> None:
        """Be the server's side, or with `server_name` the client's."""
        super().__init__(sock, send_s)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self._lock = trio.Lock()

    async def open(self, due: float) -> bool:
        """Shake hands before `due`; return False for a client that does not speak TLS."""
        self.read_due = due
        try:
            await self.shake_hands()
        except ssl.SSLError:
            return False
        return True

    async def shake_hands(self) -> None:
        """Agree on keys. Raises ssl.SSLError with the reason, Late, OSError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise ssl.SSLEOFError("the connection was closed within the handshake") from None
            except ssl.SSLError:
                await self._flush()  # the alert that gives the reason
                raise
            else:
                await self._flush()
                return

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end of input. Raises Late, OSError, ClosedResourceError."""
        while True:
            try:
                return self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    self.cut = True
                    return b""
            except ssl.SSLError as error:
                self.cut = isinstance(error, ssl.SSLEOFError)
                self.damaged = not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
                return b""

    async def _fill(self) -> bool:
        if data := await super().read():
            self._incoming.write(data)
            return True
        self._incoming.write_eof()
        return False

    def has_bytes(self) -> bool:
        """Return whether bytes wait to be read."""
        return bool(self._tls.pending()) or super().has_bytes()

    def is_quiet(self) -> bool:
        """Return whether the connection is open and has no unread input except TLS's own records."""
        while True:
            try:
                self._tls.read(1)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
            else:
                return False
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._incoming.write(data)

    def read_now(self) -> bytes:
        """Return what has arrived already; b"" when nothing has. Raises OSError."""
        if data := super().read_now():
            self._incoming.write(data)
        try:
            return self._tls.read(READ_BYTES)
        except ssl.SSLError:
            return b""

    def _sent_at_once(self, parts: tuple[bytes, ...]) -> int | None:
        """Return 0: TLS cannot send a part of what it has encrypted."""
        return 0

    async def _send(self, parts: tuple[bytes, ...], sent: int) -> None:
        for part in parts:
            for at in range(0, len(part), _PART_BYTES):
                self._tls.write(memoryview(part)[at : at + _PART_BYTES])
                await self._flush()

    async def _flush(self) -> None:
        """Send the engine's output; records of two tasks never interleave."""
        if self._outgoing.pending:
            async with self._lock:
                if data := self._outgoing.read():
                    try:
                        if (sent := super()._sent_at_once((data,))) is not None:
                            await super()._send((data,), sent)
                    except BaseException:
                        self.broken = True  # records are missing: what follows cannot be read
                        raise

    async def end(self) -> None:
        """End our side with close_notify; the client may still send."""
        with contextlib.suppress(ssl.SSLError, Late):
            self._tls.unwrap()
        await self._flush()
        await super().end()


def transports(certificates: Certificates | None, send_s: float) -> Callable[[socket.socket], Transport]:
    """Return the factory of transports for accepted sockets: TLS where there are certificates, else plain."""
    if certificates is None:
        return lambda sock: Transport(sock, send_s)
    return lambda sock: TlsTransport(sock, send_s, certificates.context())
