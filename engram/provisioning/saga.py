"""The worker of one session: performs what rules.py decides, one committed fact before each effect."""

from collections.abc import Callable
from functools import partial
from typing import assert_never, final

import structlog
import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.ledger import LedgerError, owners
from engram.provisioning import node_keys, records, rules
from engram.provisioning.errors import NoCapacity, ProvisioningError, Rejected, Unavailable, Unknown
from engram.provisioning.fleet import END_GRACE_S, Fleet
from engram.provisioning.model import Node, NodeKey, NodeRecord, NodeSpec
from engram.provisioning.planning import Choice, plan, withdraw
from engram.provisioning.rules import Effect, Facts, Outcome
from engram.sessions import RUNNING, Session, SessionEvent, SessionState
from engram.sessions import records as session_records
from engram.sessions import rules as session_rules

QUARANTINE_AFTER = 5
SILENT_S = 15.0
"""A node that served and answers no more is started again after this; the first start has `launch_timeout_s`."""
_LOOK_EVERY_S = 1.0
_GAVE_UP = "The node could not be started; the payment is refunded."

_log = structlog.get_logger("engram.provisioning")


async def run(fleet: Fleet, session_id: str) -> None:
    """Bring the session as far as it can go now; returns when nothing is left to do.

    A crash is counted in the session's row before it is raised: the fifth one puts the session into quarantine. A
    ledger that is away or slow is no crash.
    """
    fleet.pokes.listen(session_id)
    try:
        await Worker(fleet, session_id).run()
    except LedgerError as error:  # not this session's fault: the next sweep begins its saga again, from its rows
        _log.warning("saga_interrupted", session=session_id, reason=str(error))
    except Exception:  # the supervision seam: whatever it was, it is counted and goes on to the supervisor
        at = fleet.instants.now().wall
        await fleet.ledger.write(lambda c: session_records.count_crash(c, session_id, at, QUARANTINE_AFTER))
        raise
    finally:
        fleet.pokes.forget(session_id)


async def tell_end(fleet: Fleet, session_id: str) -> None:
    """Tell the session's node when its paid time ends. A node that is not reached keeps the end it knows: if that is
    too early it ends, is seen to be down, and is started again with the right one."""

    def query(connection: Connection) -> tuple[Session | None, NodeRecord | None]:
        return session_records.get(connection, session_id), records.live_node(connection, session_id)

    session, node = await fleet.ledger.read(query)
    if session is None or node is None or session.state not in RUNNING:
        return
    ends_at = session_rules.expires_at(session, fleet.instants.now()) + END_GRACE_S
    try:
        await fleet.backends.of(node.backend).extend(node.token, ends_at)
    except (Unavailable, Unknown) as error:
        _log.warning("extend_unanswered", session=session_id, reason=str(error))


@final
class Worker:
    """One life of a saga; everything it knows is read from the ledger."""

    def __init__(self, fleet: Fleet, session_id: str) -> None:
        self._fleet = fleet
        self._id = session_id
        self._session: Session | None = None
        self._node: NodeRecord | None = None
        self._key: NodeKey | None = None
        self._seen: Node | None = None
        self._failures = 0
        self._has_turn = False
        self._fell_silent = False
        self._launched_at: float | None = None
        self._unsent = ""
        """Token of the launch that this worker planned and that was never sent."""

    async def run(self) -> None:
        """Decide and perform until nothing is left to do."""
        saga = rules.begin(self._fleet.settings.attempts)
        step: Effect | None = Effect.REREAD
        try:
            while step is not None:
                event = await self._perform(step)
                if event is None:
                    return
                self._measure(step, event)
                saga, step = rules.decide(saga, event)
                self._failures = saga.failures
                if step is not Effect.AWAIT_HEALTH:
                    self._end_turn()
                if isinstance(event, Outcome) and event not in (Outcome.DONE, Outcome.LOST):
                    _log.warning("saga_step", session=self._id, outcome=event, doing=saga.doing, failures=saga.failures)
        finally:
            self._end_turn()
        if self._session is not None and self._session.crashes:
            await self._fleet.ledger.write(lambda c: session_records.release_quarantine(c, self._id))

    async def _perform(self, step: Effect) -> Facts | Outcome | None:
        match step:
            case Effect.REREAD:
                return await self._reread()
            case Effect.PLAN:
                return await self._plan()
            case Effect.LAUNCH:
                return await self._launch()
            case Effect.AWAIT_HEALTH:
                return await self._await_health()
            case Effect.INSPECT:
                return await self._inspect()
            case Effect.SERVE:
                return await self._serve()
            case Effect.DEGRADE:
                return await self._commit(lambda c: self._transition(c, SessionEvent.DEGRADE))
            case Effect.WITHDRAW:
                return await self._withdraw()
            case Effect.STOP_NODE:
                return await self._stop_node()
            case Effect.DESTROY:
                return await self._destroy()
            case Effect.GIVE_UP:
                return await self._commit(self._give_up)
            case Effect.FINISH:
                return await self._commit(self._finish)
            case Effect.WAIT:
                await self._fleet.pokes.sleep(self._id, rules.wait_s(self._failures))
                return Outcome.DONE
            case _:
                assert_never(step)

    def _measure(self, step: Effect, event: Facts | Outcome) -> None:
        node = self._node
        if self._launched_at is None or node is None or event is Outcome.LOST or not isinstance(event, Outcome):
            return
        failed = event is not Outcome.DONE
        if step is Effect.AWAIT_HEALTH or (step is Effect.LAUNCH and failed):
            metrics, backend = self._fleet.metrics, node.backend
            metrics.launches.labels(backend, str(event) if failed else "healthy").inc()
            if not failed:
                metrics.launch_seconds.labels(backend).observe(trio.current_time() - self._launched_at)
            self._launched_at = None

    async def _reread(self) -> Facts | None:
        def query(connection: Connection) -> tuple[Session, NodeRecord | None, Facts, NodeKey | None] | None:
            found = records.facts_of(connection, self._id)
            return None if found is None else (*found, node_keys.leased(connection, self._id))

        found = await self._fleet.ledger.read(query)
        if found is None:
            return None
        self._session, self._node, facts, self._key = found
        return facts

    async def _plan(self) -> Outcome:
        is_free = partial(node_keys.is_free, is_here=self._fleet.has_key)
        if self._fleet.new_key is not None and not await self._fleet.ledger.read(is_free):
            await self._fleet.new_key()
        choice = Choice(
            rule=self._fleet.settings.placement,
            standings=await self._fleet.backends.look(),
            taken_ports=await self._fleet.taken_ports(),
            token=self._fleet.ids.token(12),
            at=self._fleet.instants.now().wall,
            has_key=self._fleet.has_key,
        )
        try:
            planned = await self._fleet.ledger.write(lambda c: plan(c, self._id, choice))
        except NoCapacity:
            return Outcome.REFUSED
        if planned is None:
            return Outcome.LOST
        self._session, self._node, self._key = planned.session, planned.node, planned.key
        self._unsent = planned.node.token
        return Outcome.DONE

    async def _launch(self) -> Outcome:
        session, node, key = self._session, self._node, self._key
        if session is None or node is None or key is None:
            return Outcome.REJECTED
        runs_already = await self._inspect() is Outcome.DONE
        self._fell_silent = runs_already and session.state in RUNNING
        self._launched_at = None if runs_already else trio.current_time()
        elsewhere = self._fleet.backends.is_elsewhere(node.backend)
        if not runs_already and not elsewhere and not await self._take_turn(session):
            return Outcome.LOST
        now = self._fleet.instants.now()
        start_s = 0.0 if session.state in RUNNING else self._fleet.settings.launch_timeout_s
        spec = NodeSpec(
            token=node.token,
            session_id=session.id,
            tier=self._fleet.tiers[session.tier],
            controller=session.controller,
            hotkey=key.public_key,
            hotkey_file=str(node_keys.file_of(key, self._fleet.keys_folder)),
            port=node.port,
            ends_at=session_rules.expires_at(session, now) + start_s + END_GRACE_S,
        )
        await owners.until_held(self._fleet.ledger)
        kill_points.point("spawn:before")
        try:
            if elsewhere:
                self._seen = await self._launch_unless_changed(node.backend, spec, session)
                if self._seen is None:
                    self._unsent = ""
                    return Outcome.LOST
            else:
                self._seen = await self._fleet.backends.of(node.backend).launch(spec)
        except NoCapacity as error:
            _log.warning("launch_refused", session=self._id, backend=node.backend, reason=str(error))
            return Outcome.REFUSED
        except Rejected as error:
            _log.error("launch_rejected", session=self._id, backend=node.backend, reason=str(error))
            return Outcome.REFUSED if self._may_go_elsewhere(node) else Outcome.REJECTED
        except Unavailable as error:
            _log.warning("launch_not_sent", session=self._id, backend=node.backend, reason=str(error))
            return self._not_sent(node, str(error))
        except Unknown as error:
            _log.warning("launch_unanswered", session=self._id, backend=node.backend, reason=str(error))
            self._unsent = ""
            return Outcome.UNANSWERED
        kill_points.point("spawn:after")
        return Outcome.DONE

    async def _launch_unless_changed(self, backend: str, spec: NodeSpec, session: Session) -> Node | None:
        """Launch, or return None as soon as the session has changed: what was begun is found by its token."""
        node, failed = None, None
        async with trio.open_nursery() as nursery:
            launching = trio.CancelScope()
            nursery.start_soon(self._cancel_when_changed, session, launching)
            try:
                with launching:
                    node = await self._fleet.backends.of(backend).launch(spec)
            except ProvisioningError as error:
                failed = error
            nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return node

    async def _cancel_when_changed(self, session: Session, launching: trio.CancelScope) -> None:
        while not launching.cancel_called:
            await self._fleet.pokes.sleep(self._id, _LOOK_EVERY_S)
            now = await self._fleet.ledger.read(lambda c: session_records.get(c, self._id))
            if now is None or now.state is not session.state:
                launching.cancel()

    def _not_sent(self, node: NodeRecord, reason: str) -> Outcome:
        if not self._may_go_elsewhere(node):
            return Outcome.UNANSWERED
        self._fleet.backends.note_silence(node.backend, reason)
        return Outcome.UNREACHED if node.token == self._unsent else Outcome.UNANSWERED

    def _may_go_elsewhere(self, node: NodeRecord) -> bool:
        return any(standing.answers and standing.name != node.backend for standing in self._fleet.backends.standings)

    async def _take_turn(self, session: Session) -> bool:
        """Wait for one of the launches at once; False when the session has changed meanwhile."""
        while True:
            try:
                self._fleet.turns.acquire_nowait()
            except trio.WouldBlock:
                await self._fleet.pokes.sleep(self._id, _LOOK_EVERY_S)
                now = await self._fleet.ledger.read(lambda c: session_records.get(c, self._id))
                if now is None or now.state is not session.state:
                    return False
            else:
                self._has_turn = True
                return True

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._fleet.turns.release()

    async def _await_health(self) -> Outcome:
        seen, session = self._seen, self._session
        if seen is None or session is None:
            return Outcome.LOST
        look_at = trio.current_time() + _LOOK_EVERY_S
        patience_s = self._fleet.settings.launch_timeout_s
        if self._fell_silent:  # it has not answered for a while, and what it stored survives a restart
            patience_s = min(patience_s, SILENT_S)
        with trio.move_on_after(patience_s):
            while True:
                if await self._fleet.is_healthy(seen.endpoint, seen.token):
                    return Outcome.DONE
                poked = await self._fleet.pokes.sleep(self._id, self._fleet.settings.health_interval_s)
                if not poked and trio.current_time() < look_at:
                    continue
                look_at = trio.current_time() + _LOOK_EVERY_S
                now = await self._fleet.ledger.read(lambda c: session_records.get(c, self._id))
                if now is None or now.state is not session.state:
                    return Outcome.LOST
                if await self._inspect() is Outcome.UNHEALTHY:
                    return Outcome.UNHEALTHY
        return Outcome.UNHEALTHY

    async def _inspect(self) -> Outcome:
        if self._node is None:
            return Outcome.LOST
        try:
            found = await self._fleet.backends.of(self._node.backend).inspect(self._node.token)
        except (Unavailable, Unknown):
            return Outcome.UNANSWERED
        return Outcome.DONE if found is not None and found.alive else Outcome.UNHEALTHY

    async def _serve(self) -> Outcome:
        seen, key = self._seen, self._key
        if seen is None or key is None:
            return Outcome.LOST

        def serve(connection: Connection) -> bool:
            session = session_records.get(connection, self._id)
            if session is None or not records.mark_running(connection, seen.token, seen.reference):
                return False
            session_records.set_node(connection, self._id, seen.token, seen.endpoint, key.public_key)
            at, store = self._fleet.instants.now().wall, f"{seen.token}/{seen.store}"
            if session_records.note_store(connection, session, store, at):
                _log.warning("session_emptied", session=self._id, node=seen.token, backend=seen.reference)
            if session.state is SessionState.ACTIVE:
                return True
            event = SessionEvent.RECOVER if session.state is SessionState.DEGRADED else SessionEvent.NODE_READY
            return self._transition(connection, event)

        outcome = await self._commit(serve)
        if outcome is Outcome.DONE:
            await tell_end(self._fleet, self._id)
        return outcome

    async def _withdraw(self) -> Outcome:
        node, at = self._node, self._fleet.instants.now().wall
        if node is None or node.token != self._unsent:
            return Outcome.LOST
        await self._fleet.ledger.write(lambda c: withdraw(c, node, at))
        return Outcome.DONE

    async def _stop_node(self) -> Outcome:
        if self._node is None:
            return Outcome.LOST
        await owners.until_held(self._fleet.ledger)
        try:
            await self._fleet.backends.of(self._node.backend).stop(self._node.token)
        except (Unavailable, Unknown):
            return Outcome.UNANSWERED
        return Outcome.DONE

    async def _destroy(self) -> Outcome:
        if self._node is None:
            return Outcome.LOST
        token = self._node.token
        await owners.until_held(self._fleet.ledger)
        kill_points.point("destroy:before")
        try:
            await self._fleet.backends.of(self._node.backend).destroy(token)
        except (Unavailable, Unknown) as error:
            _log.warning("destroy_unanswered", session=self._id, reason=str(error))
            return Outcome.UNANSWERED
        kill_points.point("destroy:after")
        at = self._fleet.instants.now().wall
        await self._fleet.ledger.write(lambda c: records.mark_gone(c, token, at))
        return Outcome.DONE

    def _give_up(self, connection: Connection) -> bool:
        if records.live_node(connection, self._id) is not None:
            return False
        given_up = self._transition(connection, SessionEvent.PROVISION_FAILED, _GAVE_UP)
        if given_up:
            node_keys.release(connection, self._id)
            self._fleet.settle_up(connection, self._id)
        return given_up

    def _finish(self, connection: Connection) -> bool:
        if records.live_node(connection, self._id) is not None:
            return False
        finished = self._transition(connection, SessionEvent.DESTROYED)
        if finished:
            node_keys.release(connection, self._id)
            self._fleet.settle_up(connection, self._id)
        return finished

    def _transition(self, connection: Connection, event: SessionEvent, error: str | None = None) -> bool:
        now = self._fleet.instants.now()
        return session_records.transition(connection, self._id, event, now, error=error) is not None

    async def _commit(self, work: Callable[[Connection], bool]) -> Outcome:
        won = await self._fleet.ledger.write(work)
        if won:
            self._fleet.hints.session_moved(self._id)
        return Outcome.DONE if won else Outcome.LOST
