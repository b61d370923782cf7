"""A provider that gives notice takes its machine back: the node's successor is placed while the old one still serves.

    serving, reclaim_at known -> (LEAD_S before it) successor placed under the token's name with `.next`
                              -> it serves: one commit gives it the token, and the old one is to be closed
                              -> the gateway launches the node again, and finds its new address

The successor starts empty. Until it has taken over, nothing is taken from the old node, which its owner can export.
These minutes are the one time at which two leases of a session are paid.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias, final

import structlog
from sqlalchemy import Connection

from engram.provisioning.akash import bidding, events, records, rules
from engram.provisioning.akash.model import SUCCESSOR, Deployment, DeploymentState
from engram.provisioning.akash.placing import Placing
from engram.provisioning.akash.ports import AkashParts

LEAD_S: Final = 1_200.0
"""A successor is begun this long before the machine is taken back: twice what a placement takes at most."""
_RUNNING: Final = (DeploymentState.DELIVERING, DeploymentState.STARTING, DeploymentState.SERVING)
AGAIN_S: Final = 90.0
"""After a successor that came to nothing when others had before it, the next one waits this long."""
RECLAIMED: Final = "reclaimed"

TryLock: TypeAlias = Callable[[str], AbstractAsyncContextManager[bool]]

_log = structlog.get_logger("engram.provisioning.akash")


@final
class Replacing:
    """Places successors and lets them take over."""

    def __init__(self, parts: AkashParts, placing: Placing, try_lock: TryLock) -> None:
        self._parts = parts
        self._placing = placing
        self._try_lock = try_lock

    def is_due(self, row: Deployment) -> bool:
        """Return whether the successor of this node is to be placed now."""
        return row.reclaim_at is not None and self._parts.clock.now() >= row.reclaim_at - LEAD_S

    async def replace(self, row: Deployment) -> bool:
        """Place the successor; True when it has taken over. Goes on where it was left. Raises Unavailable."""
        name = row.token + SUCCESSOR
        async with self._try_lock(name) as held:
            if not held:
                return False
            successor = await self._parts.ledger.read(lambda c: records.live(c, name))
            if successor is None:
                if not await self._is_wanted(row.token):
                    return False
                attempts = await self._parts.ledger.read(lambda c: records.attempts(c, name))
                match bidding.plan(attempts, self._parts.clock.now()):
                    case bidding.Plan(wide):
                        successor = await self._placing.create_like(row, name, wide=wide)
                    case bidding.GiveUp(reason):
                        if not self._is_tried_again(row, reason, attempts[-1]):
                            return False
                        successor = await self._placing.create_like(row, name, wide=True)
            successor = await self._placing.drive(successor)
            if successor.state is not DeploymentState.SERVING:
                return False
            found = successor
            taken = await self._parts.ledger.write(lambda c: self._take_over(c, row, found))
            if taken is None:
                now = await self._parts.ledger.read(lambda c: records.get(c, found.dseq))
                if now is not None and now.token == name:  # else another gateway has let it take over meanwhile
                    await self._placing.drive(await self._placing.apply(now, events.Close("session_over")))
                return False
        _log.warning("akash_node_replaced", dseq=row.dseq, successor=successor.dseq, provider=successor.provider)
        async with self._try_lock(taken.token):
            await self._placing.drive(taken)
        return True

    def _is_tried_again(self, row: Deployment, reason: str, last: bidding.Attempt) -> bool:
        """Tell the operator that no successor was found so far; True when another one is to be tried."""
        now = self._parts.clock.now()
        if now - last.at < AGAIN_S:
            return False
        _log.error(
            "akash_no_successor",
            dseq=row.dseq,
            session=row.session_id,
            provider=row.provider,
            reason=reason,
            ends_at=row.reclaim_at,
            left_s=round((row.reclaim_at or now) - now),
        )
        return row.reclaim_at is not None and now < row.reclaim_at

    async def close_abandoned(self, successor: Deployment) -> None:
        """Close a successor whose node was lost or whose session ended while it was placed: no saga knows of it."""
        token = successor.token.removesuffix(SUCCESSOR)
        async with self._try_lock(successor.token) as held:
            if held and not await self._is_wanted(token):
                row = await self._parts.ledger.read(lambda c: records.live(c, successor.token))
                if row is not None:
                    _log.warning("akash_successor_abandoned", dseq=row.dseq, provider=row.provider)
                    await self._placing.drive(await self._placing.apply(row, events.Close("session_over")))

    async def _is_wanted(self, token: str) -> bool:
        """Whether the node of this token still serves, and its machine is about to be taken back."""
        old = await self._parts.ledger.read(lambda c: records.live(c, token))
        return old is not None and old.state in _RUNNING and self.is_due(old)

    def _take_over(self, connection: Connection, row: Deployment, successor: Deployment) -> Deployment | None:
        """Give the token to the successor and close the old deployment; None when the session has ended."""
        now = self._parts.clock.now()
        old = records.get(connection, row.dseq)
        if old is None or old.token != row.token or old.state is not DeploymentState.SERVING:
            return None
        records.set_values(connection, old.dseq, token=f"{row.token}.{old.dseq}")
        old = records.get(connection, old.dseq)
        assert old is not None
        closing = rules.decide(old, events.Close(RECLAIMED), now, self._parts.budgets).row
        records.save(connection, old, closing)
        # Out of service until the gateway launches it: that is how it learns the new address.
        records.set_values(connection, successor.dseq, token=row.token, stopped_at=now, ends_at=old.ends_at)
        return closing
