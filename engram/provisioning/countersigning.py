"""Signs by the hotkey what a node states that does not have it, for clients that know no certificates.

Only statements of the two kinds in `engram.memory.proof.statements`, only for the session key in use of a session that
runs, only so many a minute.
"""

from typing import Final, final

import msgspec
import structlog

from engram.hotkeys import certificates, verify
from engram.hotkeys.certificates import CertificateRefused
from engram.http.limits import Limiter
from engram.ledger import Ledger
from engram.memory.proof import statements
from engram.memory.proof.statements import Statement
from engram.provisioning import session_keys
from engram.provisioning.errors import NodeKeyError
from engram.provisioning.hotkey_ring import HotkeyRing
from engram.sessions import Instants

PER_MINUTE: Final = 60
BURST: Final = 20
WINDOW_MS: Final = 30_000
"""How far the clocks of node and gateway may differ, and for how long a question may be repeated."""

_log = structlog.get_logger("engram.provisioning")


class NotCountersigned(Exception):
    """The question is refused: `status` is the HTTP status, `code` a stable word."""

    def __init__(self, status: int, code: str, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A node's question: sign this statement. `signature` is the session key's."""

    certificate: str
    statement: Statement
    sent_at_ms: int
    signature: bytes


@final
class Countersigner:
    """Answers the questions of nodes on machines of others."""

    def __init__(self, ledger: Ledger, instants: Instants, ring: HotkeyRing) -> None:
        self._ledger = ledger
        self._instants = instants
        self._ring = ring
        self._limiter = Limiter(PER_MINUTE, BURST, lambda: instants.now().monotonic, table=4_096)

    async def sign(self, ask: Ask) -> bytes:
        """Return the hotkey's signature of the statement. Raises NotCountersigned."""
        now = self._instants.now()
        try:
            claimed = certificates.claimed(ask.certificate)
            key = certificates.session_key_of(claimed)
            token = await self._ledger.read(lambda c: session_keys.holder(c, key))
            if token is None:
                raise NotCountersigned(401, "unknown_key", "No node signs by this session key.")
            found = await self._ledger.read(lambda c: session_keys.launch(c, token, now, 0.0))
            if found is None or not found.is_running:
                raise NotCountersigned(403, "session_over", "The session is over, or has not begun.")
            expected = found.expected
            certificates.check(ask.certificate, hotkey=expected.hotkey, at=now.wall, session_id=expected.session_id)
        except CertificateRefused as error:
            raise NotCountersigned(401, error.code, f"{error}.") from None
        if abs(ask.sent_at_ms - now.wall * 1000) > WINDOW_MS:
            raise NotCountersigned(401, "stale", "The question is too old, or the node's clock is wrong.")
        message = ask.statement.message(expected.hotkey)
        question = statements.ask_message(message, ask.sent_at_ms)
        if not verify(key, question, ask.signature, allow_wrapped=False):
            raise NotCountersigned(401, "bad_signature", "The session key did not sign the question.")
        reason = statements.refusal(ask.statement, now.wall)
        if reason is not None:
            raise NotCountersigned(400, "not_a_statement", f"{reason}.")
        if (wait_s := self._limiter.take(token)) > 0:
            raise NotCountersigned(429, "rate_limited", "Too many questions of this node.", wait_s)
        try:
            return (await self._ring.keypair(found.key)).sign(message)
        except NodeKeyError as error:
            _log.error("node_key_not_opened", node=token, reason=str(error))
            raise NotCountersigned(503, "unavailable", "The hotkey cannot be used now.", 30.0) from None
