"""What sagas work with, and how a sleeping one is woken."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

import msgspec
import trio
from sqlalchemy import Connection

from actors import Registry
from config.model import ProvisioningSettings
from engram.clock import Ids
from engram.hints import Hints
from engram.ledger import Ledger
from engram.provisioning.backends import Backends
from engram.provisioning.model import NodeKey
from engram.sessions import Instants, Tier, TierName
from engram.telemetry.metrics import Metrics

LAUNCHES_AT_ONCE = 8
END_GRACE_S = 180.0
"""A node ends by itself this long after its session's time is up, should the gateway not have done it before; longer
than an extension that is being paid for puts expiry off."""


class Pokes:
    """Sagas that run, by session. Outlives restarts of the actors that use it; a poke without a listener is lost."""

    def __init__(self) -> None:
        self._waking: dict[str, trio.Event] = {}

    def poke(self, session_id: str) -> None:
        """Wake the session's saga from its sleep, if there is one."""
        event = self._waking.get(session_id)
        if event is not None:
            event.set()

    async def sleep(self, session_id: str, seconds: float) -> bool:
        """Sleep until poked or `seconds` have passed; True when poked."""
        event = self._waking.setdefault(session_id, trio.Event())
        with trio.move_on_after(seconds):
            await event.wait()
        if event.is_set():
            self._waking[session_id] = trio.Event()
        return event.is_set()

    def listen(self, session_id: str) -> None:
        """Keep pokes for the next sleep from now on."""
        self._waking.setdefault(session_id, trio.Event())

    def forget(self, session_id: str) -> None:
        """Drop the session's pokes."""
        self._waking.pop(session_id, None)


async def no_ports() -> Collection[int]:
    """Return no ports: nodes do not share a machine with other programs."""
    return ()


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the provisioner and of its sagas."""

    registry: Registry
    ledger: Ledger
    backends: Backends
    instants: Instants
    ids: Ids
    settings: ProvisioningSettings
    tiers: Mapping[TierName, Tier]
    keys_folder: Path
    """Folder of the generated keys of the pool."""
    is_healthy: Callable[[str, str], Awaitable[bool]]
    """(endpoint, token): the node answers /health and echoes its launch token. Raises nothing for a node that is not
    there."""
    settle_up: Callable[[Connection, str], None]
    """(connection, session id), in the transaction that gives a session up, or ends one whose node is confirmed gone:
    makes due what is to be refunded."""
    metrics: Metrics
    hints: Hints
    expiry_interval_s: float
    has_key: Callable[[NodeKey], bool] = lambda key: True
    """Whether this machine has a key's file, in `keys_folder` or where it was added from."""
    new_key: Callable[[], Awaitable[None]] | None = None
    """Adds a fresh key to the pool; None where keys are only added by the operator."""
    taken_ports: Callable[[], Awaitable[Collection[int]]] = no_ports
    """Ports that programs of this machine listen on now; none of them is given to a node."""
    turns: trio.CapacityLimiter = msgspec.field(default_factory=lambda: trio.CapacityLimiter(LAUNCHES_AT_ONCE))
    """Held from a launch to the first healthy answer: all nodes of a machine that booted start a few at a time."""
    pokes: Pokes = msgspec.field(default_factory=Pokes)
