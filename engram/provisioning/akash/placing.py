"""Brings deployments further: performs what rules.py decides, one committed fact before each effect."""

from typing import Final, assert_never, final

import structlog
import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.provisioning.akash import bidding, events, records, rules, transactions, tx
from engram.provisioning.akash.bidding import BidLimits
from engram.provisioning.akash.events import Event
from engram.provisioning.akash.messages import Message
from engram.provisioning.akash.model import BLOCKS_PER_HOUR, Deployment, DeploymentState
from engram.provisioning.akash.pacing import Pace
from engram.provisioning.akash.ports import AkashParts, Wish
from engram.provisioning.akash.resources import GroupSpec
from engram.provisioning.akash.rules import Sign, Step
from engram.provisioning.akash.served import served_spec
from engram.provisioning.akash.transacting import Done, Transacting
from engram.provisioning.akash.transactions import Subject, TxState
from engram.provisioning.errors import Unavailable
from engram.provisioning.model import NodeSpec

LEASE_CHECK_S: Final = 20.0
"""While a node starts, the chain is asked this often whether its lease is still there."""
LEFT_S: Final = 6 * 3600.0
"""So long a session avoids the providers that its node was taken away from."""
_SUBJECTS: Final = {
    DeploymentState.CREATING: Subject.CREATE,
    DeploymentState.LEASING: Subject.LEASE,
    DeploymentState.CLOSING: Subject.CLOSE,
}
_CLOSE_PAUSES_S: Final = (0.0, 2.0, 5.0, 15.0, 60.0, 300.0)

_log = structlog.get_logger("engram.provisioning.akash")


@final
class Placing:
    """Creates deployments and drives them until they serve or are closed. Callers hold the lock of the token."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts
        self._chain = Transacting(parts)
        self._pace = Pace(parts)

    async def create(self, spec: NodeSpec, *, wide: bool) -> Deployment:
        """Commit to a new deployment and follow its create; the row comes back in the state that this led to.

        Raises Unavailable: nothing was committed to.
        """
        parts = self._parts
        now = parts.clock.now()
        dseq = await self._next_dseq(now)
        ceiling = bidding.ceiling(parts.max_price[spec.tier.name], spec.tier.usd_micros_per_hour, BLOCKS_PER_HOUR)
        order = parts.order_of(Wish(spec=spec, dseq=dseq, wide=wide, ceiling=ceiling))
        row = Deployment(
            dseq=dseq,
            token=spec.token,
            session_id=spec.session_id,
            state=DeploymentState.CREATING,
            hash=order.hash,
            manifest=order.manifest,
            wide=wide,
            ceiling=ceiling,
            deposit_uact=await self._least_deposit(),
            created_at=now,
            state_since=now,
            ends_at=spec.ends_at,
        )
        return await self._begin(row, order.groups)

    async def create_like(self, old: Deployment, token: str, *, wide: bool) -> Deployment:
        """Create another deployment of the node that `old` serves, at another provider, as `create` does.

        Its environment is made anew: the session may have been extended by more than the old one reckoned with.
        """
        parts = self._parts
        spec = await parts.ledger.read(lambda c: served_spec(c, old, parts.tiers))
        if spec is None:
            raise Unavailable(f"{old.token} serves no session any more")
        now = parts.clock.now()
        dseq = await self._next_dseq(now)
        order = parts.order_of(Wish(spec=spec, dseq=dseq, wide=wide, ceiling=old.ceiling))
        row = Deployment(
            dseq=dseq,
            token=token,
            session_id=old.session_id,
            state=DeploymentState.CREATING,
            hash=order.hash,
            manifest=order.manifest,
            wide=wide,
            ceiling=old.ceiling,
            excluded=() if old.provider is None else (old.provider,),
            deposit_uact=await self._least_deposit(),
            created_at=now,
            state_since=now,
            ends_at=old.ends_at,
        )
        return await self._begin(row, order.groups)

    async def _begin(self, row: Deployment, groups: tuple[GroupSpec, ...]) -> Deployment:
        """Commit to the deployment and follow its create. Raises Unavailable: nothing was committed to."""
        parts, dseq, now = self._parts, row.dseq, row.created_at
        await self._pace.wait()

        def begin(connection: Connection) -> bool:
            if records.live(connection, row.token) is not None:
                return False
            records.insert_deployment(connection, row)
            return True

        wanted = (await self._chain.create(row, groups),)
        done = await self._chain.transact(row, Subject.CREATE, wanted, begin)
        if done is None:
            found = await parts.ledger.read(lambda c: records.get(c, dseq))
            if found is None:
                raise Unavailable(f"{row.token} has a deployment already")
            return found
        if not done.committed:  # kept all the same: it counts as an attempt
            refused = rules.decide(row, done.event, now, parts.budgets).row
            await parts.ledger.write(lambda c: records.insert_deployment(c, refused))
            return refused
        return await self.apply(row, done.event)

    async def _least_deposit(self) -> int:
        return await self._parts.chain.min_deposit_uact(int(self._parts.max_deposit_act * 1_000_000))

    async def _next_dseq(self, now: float) -> int:
        return await self._parts.ledger.write(lambda c: records.draw_dseq(c, self._parts.ledger_id, now))

    async def drive(self, row: Deployment) -> Deployment:
        """Bring the deployment further until it serves or is closed. Goes on through outages."""
        while (step := rules.step(row)) is not None:
            before = row
            try:
                row = await self.apply(row, await self._perform(step, row))
            except Unavailable as error:
                _log.warning("akash_step_unanswered", dseq=row.dseq, step=step, reason=str(error))
                row = await self._reread(row)
            if row == before:
                await trio.sleep(self._parts.poll_s)
        return row

    async def apply(self, row: Deployment, event: Event) -> Deployment:
        """Commit what the event leads to, and follow the transactions that it asks for; return the new row."""
        while True:
            now = self._parts.clock.now()
            decision = rules.decide(row, event, now, self._parts.budgets)
            if decision.row == row and decision.sign is None:
                return row
            if decision.sign is None or decision.sign is Sign.CLOSE:
                # A deployment is to be closed whether or not its transaction can be made now: FOLLOW makes it.
                return await self._save(row, decision.row)
            done = await self._sign(row, decision.row, decision.sign)
            if done is None:
                return await self._reread(row)
            if not done.committed:
                refused = rules.decide(decision.row, done.event, now, self._parts.budgets).row
                return await self._save(row, refused)
            row, event = decision.row, done.event

    async def _sign(self, before: Deployment, after: Deployment, sign: Sign) -> Done | None:
        """Commit to the new state with its transaction, and follow that."""
        wanted: tuple[Message, ...]
        if sign is Sign.CREATE:
            last = await self._parts.ledger.read(lambda c: transactions.latest(c, before.dseq, Subject.CREATE))
            assert last is not None, "a deployment is written down together with its create"
            subject, wanted = Subject.CREATE, tx.decode_tx(last.raw).messages
            await self._pace.wait()
        else:
            subject, wanted = Subject.LEASE, (self._chain.lease(after),)
        return await self._chain.transact(after, subject, wanted, lambda c: self._commit(c, before, after))

    # Steps.

    async def _perform(self, step: Step, row: Deployment) -> Event:
        match step:
            case Step.FOLLOW:
                return await self._follow(row)
            case Step.COLLECT_BIDS:
                return await self._collect_bids(row)
            case Step.SEND_MANIFEST:
                kill_points.point("manifest:before")
                sent = await self._parts.providers.send_manifest(row)
                kill_points.point("manifest:after")
                return await self._lease_first(row, sent)
            case Step.AWAIT_READY:
                return await self._await_ready(row)
            case _:
                assert_never(step)

    async def _follow(self, row: Deployment) -> Event:
        subject = _SUBJECTS[row.state]
        last = await self._parts.ledger.read(lambda c: transactions.latest(c, row.dseq, subject))
        is_close = subject is Subject.CLOSE
        if last is not None and (not is_close or last.state in (TxState.OPEN, TxState.INCLUDED)):
            async with self._parts.sender.turn():
                event = await self._chain.event_of(row, await self._parts.sender.follow(last))
            if not (is_close and last.state is TxState.INCLUDED and isinstance(event, events.NotIncluded)):
                return event
            # It was said to be closed, and is not: it is closed again.
        if not is_close:  # the commit that made the state wrote a transaction
            raise AssertionError(f"deployment {row.dseq} is {row.state} without a transaction")
        await trio.sleep(_CLOSE_PAUSES_S[min(row.tries, len(_CLOSE_PAUSES_S) - 1)])
        wanted = (self._chain.close(row),)
        done = await self._chain.transact(row, subject, wanted, lambda c: self._commit(c, row, row))
        return events.NotIncluded() if done is None else done.event

    async def _collect_bids(self, row: Deployment) -> Event:
        if self._parts.clock.now() - row.state_since < self._parts.budgets.bids_first_s:
            await trio.lowlevel.checkpoint()
            return events.NotReady()  # not looked at yet: it changes nothing
        bids = await self._parts.chain.bids(row.dseq)
        if not bids:
            info = await self._parts.chain.deployment(row.dseq)
            if info is not None and not info.is_active:
                info = await self._parts.chain.deployment_agreed(row.dseq)
            if info is not None and not info.is_active:
                return events.ChainClosed("the deployment was closed while providers bid")
        now = self._parts.clock.now()
        memories = await self._parts.ledger.read(records.memories)
        left = await self._parts.ledger.read(lambda c: records.providers_left(c, row.session_id, now - LEFT_S))
        limits = BidLimits(
            now=now, memories=memories, wanted_notice_s=float(self._parts.min_reclaim_s), left=frozenset(left)
        )
        return events.Bids(tuple(bids), limits)

    async def _await_ready(self, row: Deployment) -> Event:
        status = await self._parts.providers.status(row, self._parts.service, self._parts.port)
        late = self._parts.clock.now() - row.state_since >= self._parts.budgets.ready_s
        if late and isinstance(status, events.NotReady):
            return events.NotReady(await self._parts.providers.logs(row, self._parts.service) or status.text)
        return await self._lease_first(row, status)

    async def _lease_first(self, row: Deployment, event: Event) -> Event:
        """Return the event, or that the lease has ended, which explains a provider's trouble."""
        if isinstance(event, events.Accepted | events.Ready):
            return event
        waited = self._parts.clock.now() - row.state_since
        if waited < LEASE_CHECK_S:
            return event
        return await self.lease_event(row) or event

    async def lease_event(self, row: Deployment) -> Event | None:
        """Return how the chain ended the lease or the deployment; None while both are there. Raises Unavailable.

        Only what the chain shows as closed is closed: what an endpoint does not show may be too new for it.
        """
        shown = await self._parts.chain.leases_agreed(row.dseq)
        leases = [one for one in shown if one.is_of(row)]
        if not leases or any(lease.is_serving for lease in leases):
            return None
        info = await self._parts.chain.deployment_agreed(row.dseq)
        reason = leases[-1].lease.reason or leases[-1].lease.state
        if info is not None and not info.is_active:
            return events.ChainClosed(reason)
        return events.LeaseEnded(reason)

    # Committing.

    async def _save(self, before: Deployment, after: Deployment) -> Deployment:
        if not await self._parts.ledger.write(lambda c: self._commit(c, before, after)):
            return await self._reread(before)
        if before.state is not after.state:
            _log.info("akash_deployment", dseq=after.dseq, state=after.state, provider=after.provider, why=after.reason)
        return after

    def _commit(self, connection: Connection, before: Deployment, after: Deployment) -> bool:
        if not records.save(connection, before, after):
            return False
        now = self._parts.clock.now()
        if after.provider is not None and before.state is not after.state:
            memory = records.memory(connection, after.provider)
            if after.state is DeploymentState.SERVING:
                records.remember(connection, bidding.after_success(memory))
            elif after.state is DeploymentState.CLOSING and after.reason in rules.PROVIDERS_FAULT:
                records.remember(connection, bidding.after_failure(memory, after.logs or after.reason or "", now))
        return True

    async def _reread(self, row: Deployment) -> Deployment:
        found = await self._parts.ledger.read(lambda c: records.get(c, row.dseq))
        return row if found is None else found
