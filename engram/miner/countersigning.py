"""Asks the gateway for the hotkey's signature, where a client knows no certificates and the hotkey is the gateway's."""

from __future__ import annotations

from typing import Final, final

import msgspec
import structlog
import trio

from engram import wire
from engram.clock import Clock
from engram.hotkeys import verify
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.memory.proof import statements
from engram.memory.proof.statements import Statement
from engram.miner.signer import Signed, Signer

PATH: Final = "/node-signatures"
TIMEOUT_S: Final = 4.0
PAUSE_S: Final = 15.0
"""After a gateway that did not answer, for so long none is asked."""
_AT_ONCE: Final = 4
_MOST_BYTES: Final = 16_384

_log = structlog.get_logger("engram.miner")


class _Answer(msgspec.Struct, frozen=True):
    signature: str


@final
class Countersigner:
    """Makes the signatures of a node: its own, or its hotkey's by way of the gateway. `gateway` is its base URL."""

    def __init__(self, http: HttpClient, gateway: str, signer: Signer, clock: Clock) -> None:
        self._http = http
        self._gateway = gateway.rstrip("/")
        self._signer = signer
        self._clock = clock
        self._room = trio.CapacityLimiter(_AT_ONCE)
        self._paused_until = 0.0

    async def signed(self, statement: Statement, *, takes_certificate: bool) -> Signed:
        """Return a signature of the statement: under a certificate for those who check one, else by the hotkey.

        Where the gateway gives none, it is the one under a certificate. Raises Refused (503) while there is none.
        """
        message = statement.message(self._signer.hotkey)
        own = self._signer.sign(message)
        if own.certificate is None or takes_certificate or not self._gateway:
            return own
        by_hotkey = await self._hotkey_signature(statement, message, own.certificate)
        return own if by_hotkey is None else Signed(by_hotkey, None)

    async def _hotkey_signature(self, statement: Statement, message: bytes, certificate: str) -> bytes | None:
        if self._clock.monotonic() < self._paused_until or self._room.available_tokens == 0:
            return None
        async with self._room:
            sent_at_ms = int(self._clock.now() * 1000)
            body = {
                "certificate": certificate,
                "statement": msgspec.to_builtins(statement),
                "sent_at_ms": sent_at_ms,
                "signature": self._signer.sign(statements.ask_message(message, sent_at_ms)).signature.hex(),
            }
            try:
                answer = await self._http.request(
                    "POST",
                    self._gateway + PATH,
                    json=body,
                    connect_s=TIMEOUT_S,
                    read_s=TIMEOUT_S,
                    total_s=TIMEOUT_S,
                    max_bytes=_MOST_BYTES,
                )
            except HttpError as error:
                self._paused_until = self._clock.monotonic() + PAUSE_S
                _log.warning("gateway_not_asked", reason=str(error))
                return None
        if answer.status != 200:
            _log.info("not_countersigned", status=answer.status)
            return None
        try:
            signature = bytes.fromhex(wire.decode(answer.content, _Answer).signature)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            return None
        return signature if verify(self._signer.hotkey, message, signature, allow_wrapped=False) else None
