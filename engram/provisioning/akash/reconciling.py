"""The chain against the ledger, at the start and every few minutes: what nobody wants is closed, what cost is noted."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, final

import msgspec
import structlog
import trio

from engram.ledger import LedgerError
from engram.provisioning.akash import chain_model, reconciling_rules, records
from engram.provisioning.akash.messages import CloseDeployment, DeploymentID
from engram.provisioning.akash.model import Deployment
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.reconciling_rules import Verdict
from engram.provisioning.akash.signing import Rejected
from engram.provisioning.akash.transactions import Subject, TxState
from engram.provisioning.errors import Unavailable

CLOSED_AT_ONCE: Final = 8
COSTS_SINCE_S: Final = 7 * 86_400.0
AT_ONCE: Final = 50
"""Deployments that are compared without giving the loop back."""

_log = structlog.get_logger("engram.provisioning.akash")


class Found(msgspec.Struct, frozen=True):
    """A deployment that the chain shows as active."""

    info: chain_model.DeploymentInfo
    row: Deployment | None
    verdict: Verdict


def judge(
    infos: Iterable[chain_model.DeploymentInfo],
    known: Mapping[bytes, Deployment],
    ledger_id: str,
    now: float,
    orphan_age_s: float,
    live: Collection[int] = (),
) -> list[Found]:
    """Return each active deployment with its row and verdict; `known` are the ledger's rows by manifest hash, `live`
    the numbers of those that are not closed."""
    found = []
    for info in infos:
        row = known.get(info.hash)
        is_live = info.dseq in live
        verdict = reconciling_rules.verdict(info.dseq, row, ledger_id, now, orphan_age_s, is_live=is_live)
        if is_live and row is None:
            _log.error("akash_manifest_differs", dseq=info.dseq, shown=info.hash.hex())
        found.append(Found(info, row, verdict))
    return found


@final
class Reconciler:
    """Compares, closes orphans, and writes down what closed deployments cost."""

    def __init__(self, parts: AkashParts) -> None:
        self._parts = parts

    async def compare(self) -> Sequence[Found]:
        """Return every active deployment of the account with its verdict. Raises Unavailable."""
        parts = self._parts
        infos = await parts.chain.deployments()
        # Read after the chain: a deployment is committed to before it is made.
        now = parts.clock.now()
        live = await parts.ledger.read(records.live_numbers)
        found: list[Found] = []
        for first in range(0, len(infos), AT_ONCE):
            some = infos[first : first + AT_ONCE]
            known = await parts.ledger.read(partial(records.by_hash, hashes=[info.hash for info in some]))
            found += judge(some, known, parts.ledger_id, now, parts.orphan_age_s, live)
        return found

    async def run(self) -> None:
        """Close what nobody wants and note what closed deployments cost. Raises Unavailable.

        Another endpoint is asked first each time: none alone hides a deployment for long.
        """
        self._parts.chain.endpoints.rotate()
        found = await self.compare()
        foreign = [one.info.dseq for one in found if one.verdict is Verdict.FOREIGN]
        if foreign:
            _log.info("akash_foreign_deployments", count=len(foreign), first=foreign[:5])
        limit = trio.CapacityLimiter(CLOSED_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for one in found:
                if one.verdict is Verdict.CLOSE:
                    nursery.start_soon(self._close, one.info.dseq, limit)
        await self._note_costs()
        before = self._parts.clock.now() - records.KEPT_S
        await self._parts.ledger.write(lambda c: records.forget_closed(c, before))
        self._parts.metrics.akash_deployments.show({"foreign": len(foreign), "ours": len(found) - len(foreign)})

    async def close(self, dseq: int) -> str:
        """Close a deployment that no row drives; return what came of it in a word. Raises Unavailable."""
        parts = self._parts
        async with parts.sender.turn():
            message = CloseDeployment(DeploymentID(parts.chain.owner, dseq))
            made = await parts.sender.prepare((message,), Subject.CLOSE, dseq)
            if isinstance(made, Rejected):
                return made.text[:300]
            if not await parts.sender.commit(made):
                return "not committed"
            return str((await parts.sender.follow(made)).state)

    async def _close(self, dseq: int, limit: trio.CapacityLimiter) -> None:
        async with limit:
            outcome = "not known yet"
            try:
                with trio.move_on_after(self._parts.reconcile_s):
                    outcome = await self.close(dseq)
            except (Unavailable, LedgerError) as error:
                outcome = str(error)
        if outcome != TxState.INCLUDED:  # the next comparison finds it again
            _log.error("akash_orphan_not_closed", dseq=dseq, outcome=outcome)
            return
        self._parts.metrics.akash_orphans.inc()
        _log.warning("akash_orphan_closed", dseq=dseq)

    async def _note_costs(self) -> None:
        """Write down what the escrows of closed deployments have paid, once each."""
        parts = self._parts
        since = parts.clock.now() - COSTS_SINCE_S
        for row in await parts.ledger.read(lambda c: records.unpriced(c, since)):
            try:
                info = None if row.price is None else await parts.chain.deployment_agreed(row.dseq)
            except Unavailable as error:
                _log.warning("akash_cost_not_read", dseq=row.dseq, reason=str(error))
                continue
            if info is not None and info.is_active:
                continue
            spent = 0 if info is None else info.spent_uact
            await parts.ledger.write(partial(records.set_values, dseq=row.dseq, cost_uact=spent))
