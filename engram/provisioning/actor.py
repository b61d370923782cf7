"""The provisioner: sees which sessions have work left and starts a saga for each; stops what has run out.

Its sagas are the children of the dynamic supervisor `sagas`: one job a session, only while there is work to do; never
restarted by the supervisor, but started again by the next sweep, with a growing pause, until the session is
quarantined.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import final

import structlog
import trio
from sqlalchemy import Connection

from actors import (
    Actor,
    ActorsError,
    AlreadyPresent,
    AlreadyStarted,
    Backoff,
    ChildSpec,
    Context,
    Intensity,
    Job,
    MailboxPolicy,
    MaxChildren,
    SupervisorSpec,
)
from engram.ledger import LedgerError, owners
from engram.provisioning import node_keys, records, saga
from engram.provisioning.backends import Backends
from engram.provisioning.errors import Unavailable, Unknown
from engram.provisioning.fleet import Fleet
from engram.provisioning.node_backend import NodeBackend as Backend
from engram.provisioning.protocol import (
    CheckNodes,
    CheckpointTime,
    Expire,
    FleetMessage,
    NodeExited,
    Recount,
    SessionChanged,
    Sweep,
)
from engram.sessions import (
    EndReason,
    Instant,
    RunningSession,
    Session,
    SessionEvent,
    SessionState,
    counts,
    history,
    paid_clock,
)
from engram.sessions import records as session_records

PROVISIONER = "provisioner"
SAGAS = "sagas"
SAGAS_AT_ONCE = 256
SWEEP_S = 2.0
CHECK_NODES_S = 15.0
CHECKPOINT_S = 60.0
PAUSE_MAX_S = 60.0
WATCH_BACKOFF = Backoff(2.0, 60.0)
_FOR_EVER = Intensity(1_000_000, 1.0)
"""Of watches: one that keeps ending is started again for ever, since the end of their branch is the gateway's."""
_EXPIRE_AT_ONCE = 100
_INFORMED_AT_ONCE = 100
_WORKED_ON = frozenset({SessionState.PROVISIONING, SessionState.STOPPING, SessionState.DEGRADED})

_log = structlog.get_logger("engram.provisioning")


@final
class Provisioner(Actor[FleetMessage]):
    """Starts sagas. Keeps nothing that is not in the ledger or the backend, but the pauses after crashes."""

    mailbox = MailboxPolicy(bound=1_024, when_full="drop_newest")

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._sagas = fleet.registry.supervisor(SAGAS)
        self._paused_until: dict[str, float] = {}
        self._checking: set[str] = set()
        self._informed: set[str] = set()
        """Sessions whose node has its end from this process: what was taken over may have been extended meanwhile."""
        self._seen_event = 0
        """The newest event when extensions were last looked for."""
        self._outages: dict[tuple[str, int], float] = {}
        """When this process first saw each outage (a session and the event that began it), by the loop's clock."""

    async def on_start(self, context: Context) -> None:
        self.context = context
        self._seen_event = await self._fleet.ledger.read(history.newest_event_id)
        context.every(SWEEP_S, Sweep(), jitter=0.1)
        context.every(CHECK_NODES_S, CheckNodes(), jitter=0.1)
        context.every(self._fleet.expiry_interval_s, Expire(), jitter=0.1)
        context.every(CHECKPOINT_S, CheckpointTime(), jitter=0.1)
        for message in (Recount(), Sweep(), CheckNodes(), Expire()):
            context.ref.tell(message)

    async def handle(self, message: FleetMessage) -> None:
        try:
            await self._handle(message)
        except LedgerError as error:  # a full disk, say: nothing was done, and the next look finds the same work
            _log.error("look_failed", message=type(message).__name__, reason=str(error))

    async def _handle(self, message: FleetMessage) -> None:
        match message:
            case SessionChanged(session_id):
                await self._look_at(session_id)
            case NodeExited(token):
                await self._node_exited(token)
            case Sweep():
                await self._sweep()
            case CheckNodes():
                await self._check_nodes()
            case Expire():
                await self._expire()
                await self._end_lost()
            case CheckpointTime():
                now = self._fleet.instants.now()
                await self._fleet.ledger.write(lambda c: paid_clock.checkpoint(c, now))
            case Recount():
                for state, (counted, found) in (await self._fleet.ledger.write(counts.recount)).items():
                    _log.error("sessions_miscounted", state=state, counted=counted, found=found)

    async def _sweep(self) -> None:
        if self._fleet.new_key is None:
            self._fleet.hints.keys_counted(await self._fleet.ledger.read(node_keys.count_usable))
        for session_id, crashes in await self._fleet.ledger.read(records.open_work):
            now = trio.current_time()
            if crashes:
                if now < self._paused_until.get(session_id, now):
                    continue
                self._paused_until[session_id] = now + min(PAUSE_MAX_S, 2.0**crashes)
            if not await self._start_saga(session_id):
                return
        await self._find_extended()

    async def _find_extended(self) -> None:
        """Tell nodes of ends that another gateway has sold, or whose hint was lost."""
        since = self._seen_event

        def query(connection: Connection) -> tuple[int, set[str]]:
            return history.newest_event_id(connection), history.extended_since(connection, since)

        self._seen_event, extended = await self._fleet.ledger.read(query)
        for session_id in extended:
            self.context.start_soon(self._tell_end, session_id)

    async def _look_at(self, session_id: str) -> None:
        session = await self._fleet.ledger.read(lambda c: _mine(c, session_id))
        if session is None or session.quarantined_at is not None:
            return
        if session.state in _WORKED_ON:
            await self._start_saga(session_id)
        elif session.state is SessionState.ACTIVE:
            await self._find_extended()

    async def _node_exited(self, token: str) -> None:
        node = await self._fleet.ledger.read(lambda c: records.by_token(c, token))
        if node is None:
            return
        session = await self._fleet.ledger.read(lambda c: _mine(c, node.session_id))
        if session is not None and session.node_token == token and session.quarantined_at is None:
            await self._start_saga(node.session_id)

    async def _check_nodes(self) -> None:
        """Look at each backend in a task of its own: one that hangs delays neither the others nor this actor."""
        self._fleet.backends.note_held(await self._fleet.ledger.read(records.count_by_backend))
        for backend in self._fleet.backends.all:
            if backend.name not in self._checking:
                self._checking.add(backend.name)
                self.context.start_soon(self._check, backend)

    async def _check(self, backend: Backend) -> None:
        try:
            if (await self._fleet.backends.look_at(backend.name)).answers:
                await self._compare(backend)
        except (Unavailable, Unknown) as error:
            _log.warning("nodes_not_listed", backend=backend.name, reason=str(error))
        except LedgerError as error:
            _log.error("look_failed", message=CheckNodes.__name__, reason=str(error))
        finally:
            self._checking.discard(backend.name)

    async def _compare(self, backend: Backend) -> None:
        """Hold what a backend lists against the ledger: destroy orphans, wake the sagas of lost nodes."""
        listed = await backend.list()
        # Read after the listing: a launch is committed before it is made, so what is listed and not held is an orphan.
        held = await self._fleet.ledger.read(records.live_backends)
        running = await self._fleet.ledger.read(session_records.list_running)
        self._tell_ends(running)
        alive = {node.token for node in listed if node.alive}
        orphans = [node for node in listed if held.get(node.token) != backend.name]
        self._fleet.metrics.nodes_orphaned.labels(backend.name).set(len(orphans))
        for node in orphans:
            self.context.start_soon(self._destroy_orphan, backend, node.token)
        for session in running:
            here = held.get(session.token, backend.name) == backend.name
            lost = here and session.token not in alive and not session.quarantined
            if lost and not await self._start_saga(session.session_id):
                return

    def _tell_ends(self, running: Sequence[RunningSession]) -> None:
        """Tell nodes that this process has not told yet when their paid time ends, a part at each look."""
        self._informed &= {session.session_id for session in running}
        new = [session.session_id for session in running if session.session_id not in self._informed]
        for session_id in new[:_INFORMED_AT_ONCE]:
            self._informed.add(session_id)
            self.context.start_soon(self._tell_end, session_id)

    async def _tell_end(self, session_id: str) -> None:
        try:
            await saga.tell_end(self._fleet, session_id)
        except LedgerError as error:
            self._informed.discard(session_id)
            _log.error("look_failed", message="the end of a node's paid time", reason=str(error))

    async def _destroy_orphan(self, backend: Backend, token: str) -> None:
        await owners.until_held(self._fleet.ledger)
        try:
            await backend.destroy(token)
        except (Unavailable, Unknown) as error:
            _log.warning("orphan_not_destroyed", backend=backend.name, node=token, reason=str(error))
        else:
            _log.warning("orphan_destroyed", backend=backend.name, node=token)

    async def _expire(self) -> None:
        now = self._fleet.instants.now()
        expired = await self._fleet.ledger.read(lambda c: paid_clock.expired(c, now))
        for first in range(0, len(expired), _EXPIRE_AT_ONCE):
            some = expired[first : first + _EXPIRE_AT_ONCE]
            ending = partial(_end, session_ids=some, now=now, reason=EndReason.EXPIRED)
            for session_id in await self._fleet.ledger.write(ending):
                self._fleet.hints.session_moved(session_id)
                await self._start_saga(session_id)

    async def _end_lost(self) -> None:
        """End the sessions that have had no node for too long while others could have: what is left goes back.

        Time is counted from when this process saw it, so that neither a clock that jumps nor a long stop of the
        gateway ends a session whose node has not been looked for.
        """
        running = await self._fleet.ledger.read(session_records.list_running)
        now = trio.current_time()
        degraded = {each.session_id for each in running if each.state is SessionState.DEGRADED and not each.quarantined}
        begun = await self._fleet.ledger.read(history.outages) if degraded else {}
        self._outages = {each: self._outages.get(each, now) for each in begun.items() if each[0] in degraded}
        lost = [each for (each, _), at in self._outages.items() if now - at >= self._fleet.settings.lost_after_s]
        ending = partial(_end, session_ids=lost, now=self._fleet.instants.now(), reason=EndReason.NODE_LOST)
        for session_id in await self._fleet.ledger.write(ending) if lost else []:
            _log.error("node_lost", session=session_id, after_s=self._fleet.settings.lost_after_s)
            self._fleet.hints.session_moved(session_id)
            await self._start_saga(session_id)

    async def _start_saga(self, session_id: str) -> bool:
        """Start the session's saga, or wake it; False when no more can be started now."""
        child = ChildSpec(session_id, lambda: Job(partial(_saga, self._fleet, session_id)), restart="temporary")
        try:
            await self._sagas.start_child(child)
        except (AlreadyStarted, AlreadyPresent):
            self._fleet.pokes.poke(session_id)
        except MaxChildren:
            return False
        except ActorsError as error:  # the sagas' supervisor restarts, and this actor with it
            _log.warning("saga_not_started", session=session_id, reason=str(error))
            return False
        return True


def _mine(connection: Connection, session_id: str) -> Session | None:
    """Return the session if this process works it: a saga that a second process began would launch a second node."""
    return session_records.get(connection, session_id) if session_records.is_mine(connection, session_id) else None


def _end(connection: Connection, session_ids: Sequence[str], now: Instant, reason: EndReason) -> list[str]:
    end = SessionEvent.END
    return [one for one in session_ids if session_records.transition(connection, one, end, now, reason=reason)]


async def _saga(fleet: Fleet, session_id: str, context: Context) -> None:
    context.ready()
    await saga.run(fleet, session_id)


def node_watch(fleet: Fleet, backend: Backend) -> Job:
    """Run a backend's watch: limits, and nodes that end."""
    provisioner = fleet.registry.ref(Provisioner, PROVISIONER)

    def exited(token: str) -> None:
        provisioner.hint(NodeExited(token))

    async def watch(context: Context) -> None:
        context.ready()
        await backend.watch(exited)

    return Job(watch)


def node_watches(fleet: Fleet) -> SupervisorSpec:
    """Return the branch with the watch of each backend."""
    watches = [
        ChildSpec(backend.name, partial(node_watch, fleet, backend), backoff=WATCH_BACKOFF, intensity=_FOR_EVER)
        for backend in fleet.backends.all
    ]
    return SupervisorSpec("node_watch", watches, strategy="one_for_one")


async def stop_all(backends: Backends, tokens: Collection[str]) -> None:
    """Stop these nodes and keep what they store (`shutdown.nodes = stop`). Call it when the tree has stopped: running
    sessions get their nodes back at the next start.

    Nodes on machines of others go on: they are paid either way, and one that was stopped may have to be placed anew.
    """
    async with trio.open_nursery() as nursery:
        for backend in backends.all:
            if backends.is_elsewhere(backend.name):
                continue
            nursery.start_soon(_stop_nodes, backend, tokens)


async def _stop_nodes(backend: Backend, tokens: Collection[str]) -> None:
    try:
        listed = await backend.list()
    except (Unavailable, Unknown) as error:
        _log.error("nodes_not_stopped", backend=backend.name, reason=str(error))
        return
    async with trio.open_nursery() as nursery:
        for node in listed:
            if node.alive and node.token in tokens:
                nursery.start_soon(_stop, backend, node.token)


async def _stop(backend: Backend, token: str) -> None:
    try:
        await backend.stop(token)
    except (Unavailable, Unknown) as error:
        _log.error("node_not_stopped", backend=backend.name, node=token, reason=str(error))
