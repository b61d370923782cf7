"""Backend `akash`: nodes on machines of strangers, leased for as long as their session lasts.

`launch` drives the saga of a deployment (rules.py) from its rows until the provider runs the node; whoever calls again,
after a kill -9 too, goes on from there. What a node stored lives with its lease: `stop` keeps the lease and takes the
node out of service, `destroy` closes it. The first launch after a `stop` sends the manifest once more; the second one
closes the lease and places the node elsewhere, where it starts empty.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import msgspec
import structlog
import trio

from engram.ledger import LedgerError
from engram.provisioning.akash import bidding, events, records
from engram.provisioning.akash.escrow import Escrows
from engram.provisioning.akash.model import BLOCKS_PER_HOUR, PICO, SUCCESSOR, Deployment, DeploymentState
from engram.provisioning.akash.owners import other_owners
from engram.provisioning.akash.placing import Placing
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.probing import Probing
from engram.provisioning.akash.reconciling import Reconciler
from engram.provisioning.akash.replacing import RECLAIMED
from engram.provisioning.akash.watching import Watching
from engram.provisioning.errors import NoCapacity, Rejected, Unavailable, Unknown
from engram.provisioning.model import Node, NodeSpec, Offers
from engram.provisioning.records import is_ours

CLOSE_S: Final = 90.0
"""A close that takes longer is of unknown outcome; it goes on by itself."""
SETTLED_S: Final = 600.0
"""A node that served so long has left its earlier restarts behind."""
RESTARTS: Final = 1
"""So often the manifest is sent again before the node is placed elsewhere."""
SESSION_OVER: Final = "session_over"
UNHEALTHY: Final = "unhealthy"

_log = structlog.get_logger("engram.provisioning.akash")


class Reference(msgspec.Struct, frozen=True):
    """What the ledger keeps of a node that serves, for the operator."""

    dseq: int
    provider: str
    price_uact: str
    """A block."""


@final
class AkashBackend:
    """The nodes of one ledger on Akash."""

    name = "akash"

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts
        self._placing = Placing(parts)
        self._escrows = Escrows(parts)
        self._locks: dict[str, _Lock] = {}
        self._probing = Probing(parts)
        self._watching = Watching(
            parts, self._placing, self._escrows, Reconciler(parts), self._probing, self._try_locked
        )
        self._is_our_account = False

    async def offers(self) -> Offers:
        await self._require_account()
        await self._parts.chain.endpoints.require_clock()
        await self._probing.require()
        wallet = self._watching.wallet
        try:
            live = await self._parts.ledger.read(records.all_live)
        except LedgerError as error:
            raise Unavailable(str(error)) from error
        left = wallet.left(live, self._parts.clock.now())
        hourly = {tier: int(price * BLOCKS_PER_HOUR) for tier, price in self._parts.max_price.items()}
        return Offers(
            backend=self.name,
            places=min(self._parts.places, left.places),
            is_elsewhere=True,
            hourly_usd_micros=hourly,
            spare_usd_micros=None if left.spare_uact is None else int(left.spare_uact / bidding.RESERVE),
            paid_sessions=left.paid_sessions,
        )

    async def launch(self, spec: NodeSpec) -> Node:
        if not is_ours(spec.token, self._parts.ledger_id):
            raise Rejected("the token is of another ledger")
        await self._require_account()
        await self._probing.require()
        async with self._locked(spec.token):
            while True:
                row = await self._live(spec.token)
                if row is None:
                    row = await self._place(spec)
                elif row.state is DeploymentState.SERVING and self._is_alive(row):
                    return _node(row, alive=True)
                elif row.state is DeploymentState.SERVING:
                    row = await self._restart(row)
                row = await self._placing.drive(row)
                if row.state is DeploymentState.SERVING:
                    self._watching.serves(row)
                    return _node(row, alive=True)

    async def inspect(self, token: str) -> Node | None:
        await self._require_account()
        row = await self._live(token)
        return None if row is None else _node(row, alive=self._is_alive(row))

    async def extend(self, token: str, ends_at: float) -> None:
        row = await self._live(token)
        if row is not None:
            await self._parts.ledger.write(lambda c: records.set_values(c, row.dseq, ends_at=ends_at))
            self._watching.look_at_escrow(row.dseq)

    async def stop(self, token: str) -> None:
        """Take the node out of service. Its lease goes on: what it stored is nowhere else."""
        row = await self._live(token)
        if row is None or row.state is not DeploymentState.SERVING or row.stopped_at is not None:
            return
        now = self._parts.clock.now()
        restarts = 1 if now - row.state_since > SETTLED_S else row.restarts + 1
        await self._parts.ledger.write(lambda c: records.set_values(c, row.dseq, stopped_at=now, restarts=restarts))

    async def destroy(self, token: str) -> None:
        await self._require_account()
        with trio.move_on_after(CLOSE_S) as patience:
            async with self._locked(token):
                await self._close(token)
            async with self._locked(token + SUCCESSOR):
                await self._close(token + SUCCESSOR)
        if patience.cancelled_caught:
            raise Unknown(f"the deployment of {token} is not seen to be closed yet")

    async def list(self) -> Sequence[Node]:
        await self._require_account()
        rows = await self._parts.ledger.read(records.all_live)
        return [_node(row, alive=self._is_alive(row)) for row in rows if _is_listed(row)]

    async def watch(self, exited: Callable[[str], None]) -> None:
        while not self._is_our_account:
            try:
                await self._require_account()
            except (Unavailable, LedgerError) as error:
                _log.error("akash_other_account", reason=str(error))
                await trio.sleep(self._parts.reconcile_s)
        await self._watching.run(exited)

    # Placing.

    async def _close(self, token: str) -> None:
        row = await self._live(token)
        if row is not None:
            await self._placing.drive(await self._placing.apply(row, events.Close(SESSION_OVER)))

    async def _require_account(self) -> None:
        """Raise Unavailable where deployments of another account are not closed yet.

        Seen from this account they are not there: they would be taken for gone, and go on costing.
        """
        if self._is_our_account:
            return
        others = await other_owners(self._parts.ledger, self._parts.chain.owner)
        if others:
            raise Unavailable(
                f"akash.key_file holds the key of {self._parts.chain.owner}, and deployments of {', '.join(others)} are"
                " not closed yet: put that account's key back until they are (engram akash list)"
            )
        self._is_our_account = True

    async def _place(self, spec: NodeSpec) -> Deployment:
        """Commit to a deployment. Raises NoCapacity, Rejected when the node is not placed any more, Unavailable where
        our clock is behind: what buyers get would be of the past."""
        await self._parts.chain.endpoints.require_clock()
        now = self._parts.clock.now()
        attempts = await self._parts.ledger.read(lambda c: records.attempts(c, spec.token))
        match bidding.plan(attempts, now):
            case bidding.Plan(wide):
                return await self._placing.create(spec, wide=wide)
            case bidding.GiveUp(reason, True):
                raise Rejected(f"the node was not placed on Akash: {reason}")
            case bidding.GiveUp(reason):
                raise NoCapacity(f"the node is not placed on Akash now: {reason}")

    async def _restart(self, row: Deployment) -> Deployment:
        """Send the manifest again, or end the lease when that was done already."""
        self._watching.forget(row.dseq)
        again = row.restarts <= RESTARTS and row.lost_at is None
        after = await self._placing.apply(row, events.Resend() if again else events.Close(UNHEALTHY))
        _log.warning("akash_restart", dseq=row.dseq, provider=row.provider, restarts=row.restarts, replaced=not again)
        return after

    # What is known.

    async def _live(self, token: str) -> Deployment | None:
        return await self._parts.ledger.read(lambda c: records.live(c, token))

    def _is_alive(self, row: Deployment) -> bool:
        return row.state is DeploymentState.SERVING and row.stopped_at is None and not self._watching.is_down(row.dseq)

    @asynccontextmanager
    async def _locked(self, token: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(token, _Lock())
        lock.users += 1
        try:
            async with lock.lock:
                yield
        finally:
            lock.users -= 1
            if not lock.users:
                self._locks.pop(token, None)

    @asynccontextmanager
    async def _try_locked(self, token: str) -> AsyncIterator[bool]:
        """Hold the token's lock if it is free; yields whether it is held."""
        if token in self._locks:
            await trio.lowlevel.checkpoint()
            yield False
            return
        async with self._locked(token):
            yield True


class _Lock:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.users = 0


def _is_listed(row: Deployment) -> bool:
    """Return whether the deployment runs a node that the gateway knows by its token: while one gives way to another,
    one of the two bears a name of our own."""
    return not row.token.endswith(SUCCESSOR) and row.reason != RECLAIMED


def _node(row: Deployment, *, alive: bool) -> Node:
    price = "" if row.price is None else f"{row.price / PICO:.6f}"
    reference = Reference(row.dseq, row.provider or "", price)
    return Node(
        token=row.token,
        session_id=row.session_id,
        endpoint=row.endpoint or "",
        alive=alive,
        reference=msgspec.json.encode(reference).decode(),
        store=str(row.dseq),
    )
