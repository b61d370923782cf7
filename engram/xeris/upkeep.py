"""What the receiver does besides taking payloads: it records permits, marks what is overdue, and forgets what is old.

While the ledger does not answer, either job logs that and goes on looking.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import structlog
import trio
from sqlalchemy import Connection

from actors import Context
from engram.chain.model import Metagraph
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock
from engram.ledger import Ledger, LedgerError
from engram.telemetry.metrics import Metrics
from engram.xeris import anchoring, records, submissions
from engram.xeris.judging import SKEW_S
from engram.xeris.ops import measure_kept

LOOK_S: Final = 3.0
PURGE_S: Final = 3_600.0

_log = structlog.get_logger("engram.xeris")


@final
class PermitWatch:
    """The job that records who holds a permit at each block that the syncer has read, and marks payloads as overdue
    that no anchor had within `anchor_epochs`."""

    def __init__(
        self,
        ledger: Ledger,
        subnets: Subnets,
        netuids: Sequence[int],
        clock: Clock,
        metrics: Metrics,
        anchor_epochs: int,
    ) -> None:
        self._ledger = ledger
        self._subnets = subnets
        self._netuids = netuids
        self._clock = clock
        self._metrics = metrics
        self._anchor_epochs = anchor_epochs
        self._noted: dict[int, int] = {}

    async def run(self, context: Context) -> None:
        """Look until cancelled."""
        context.ready()
        while True:
            try:
                await self._look()
            except LedgerError as error:
                _log.error("permits_not_noted", reason=str(error))
            await trio.sleep(LOOK_S)

    async def _look(self) -> None:
        for netuid in self._netuids:
            metagraph = self._subnets.get(netuid)
            if metagraph is not None and self._noted.get(netuid) != metagraph.block:
                await self._note(metagraph)
                await self._mark_overdue(metagraph)
                self._noted[netuid] = metagraph.block

    async def _note(self, metagraph: Metagraph) -> None:
        holders = [neuron.hotkey for neuron in metagraph.neurons if neuron.validator_permit]
        tempo = metagraph.parameters.tempo
        await self._ledger.write(lambda c: records.note_permits(c, metagraph.netuid, metagraph.block, holders, tempo))

    async def _mark_overdue(self, metagraph: Metagraph) -> None:
        before = metagraph.block - self._anchor_epochs * (metagraph.parameters.tempo + 1)
        registered = metagraph.uid_by_hotkey.keys()
        marked: Mapping[str, int] = await self._ledger.write(
            lambda c: anchoring.mark_overdue(c, metagraph.netuid, before, registered)
        )
        for kind, payloads in marked.items():
            self._metrics.xeris_overdue.labels(kind).inc(payloads)
            _log.error("not_anchored_in_time", kind=kind, payloads=payloads, netuid=metagraph.netuid)
        # In a process with a gateway the operator's listener is that one's.
        await measure_kept(self._ledger, self._metrics, self._clock.now(), self._subnets.running_s)


@final
class Retention:
    """The job that forgets payloads and lines of the submissions' log once they need not be kept any longer.

    All is forgotten in batches, as many as it takes, so that a flood of refusals cannot outgrow its bound and no batch
    holds up the ledger's writer for long.
    """

    def __init__(self, ledger: Ledger, clock: Clock, *, keep_s: float, log_kept_s: float) -> None:
        """Keep payloads for `keep_s`, lines of the log for `log_kept_s`."""
        self._ledger = ledger
        self._clock = clock
        self._keep_s = keep_s
        self._log_kept_s = log_kept_s

    async def run(self, context: Context) -> None:
        """Forget every hour until cancelled."""
        context.ready()
        while True:
            try:
                await self.forget()
            except LedgerError as error:
                _log.error("not_purged", reason=str(error))
            await trio.sleep(PURGE_S)

    async def forget(self) -> None:
        """Forget what is too old or too much by now. Raises LedgerError."""
        now = self._clock.now()
        # A payload may be dated SKEW_S ahead, and would be taken again for as long: its nonce is needed till then.
        before = await self._ledger.read(lambda c: records.kept_from(c, now, self._keep_s + SKEW_S))
        await self._forget(lambda c: records.purge(c, before), records.PURGED_AT_ONCE)
        await self._forget(lambda c: anchoring.purge(c, before), anchoring.PURGED_AT_ONCE)
        lines_before = now - self._log_kept_s
        await self._forget(lambda c: submissions.purge(c, lines_before), submissions.PURGED_AT_ONCE)

    async def _forget(self, purge: Callable[[Connection], int], at_once: int) -> None:
        while await self._ledger.write(purge) == at_once:
            await trio.lowlevel.checkpoint()
