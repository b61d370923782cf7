"""Renews the certificates of nodes that serve, and notices when somebody answers in the place of one."""

from typing import Final

import msgspec
import structlog
import trio

from actors import Context
from engram.hints import Hints
from engram.ledger import Ledger, LedgerError
from engram.provisioning import session_keys
from engram.provisioning.enrollment import Enrollment
from engram.sessions import Instants, RunningSession, SessionEvent
from engram.sessions import records as session_records

SWEEP_S: Final = 60.0
"""Well below RENEW_S, so that a certificate that could not be renewed at once is tried again before it ends."""
_AT_ONCE: Final = 16

_log = structlog.get_logger("engram.provisioning")


class CertifierPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What renewing certificates needs."""

    ledger: Ledger
    enrollment: Enrollment
    instants: Instants
    hints: Hints


async def certify_for_ever(ports: CertifierPorts, context: Context) -> None:
    """Look through the active sessions at start and every SWEEP_S. It never ends by itself."""
    context.ready()
    while True:
        try:
            await sweep(ports)
        except LedgerError as error:
            _log.error("certificates_not_renewed", reason=str(error))
        await trio.sleep(SWEEP_S)


async def sweep(ports: CertifierPorts) -> None:
    """Attend every active session whose node signs by a session key once. Raises LedgerError when they cannot be
    read; one that cannot be attended holds up no other."""
    room = trio.CapacityLimiter(_AT_ONCE)

    async def attend(session: RunningSession) -> None:
        async with room:
            try:
                if not await ports.enrollment.attend(session.endpoint, session.token, launching=False):
                    await _degrade(ports, session.session_id)
            except LedgerError as error:  # here, since a nursery hands on groups of errors
                _log.error("certificates_not_renewed", node=session.token, reason=str(error))

    async with trio.open_nursery() as nursery:
        for session in await ports.ledger.read(session_keys.certified):
            nursery.start_soon(attend, session)


async def _degrade(ports: CertifierPorts, session_id: str) -> None:
    """Commit that the node is not what serves there: its saga starts it again, or takes it back."""
    now = ports.instants.now()
    event = SessionEvent.DEGRADE
    if await ports.ledger.write(lambda c: session_records.transition(c, session_id, event, now)) is not None:
        ports.hints.node_turned(session_id)
    ports.hints.session_changed(session_id)
