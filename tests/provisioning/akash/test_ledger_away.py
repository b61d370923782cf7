"""A ledger whose server does not answer for a while: what watches Akash waits for it, and nothing ends."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from sqlalchemy import Connection
from structlog.testing import capture_logs

from actors import Intensity, Registry, SupervisorSpec, open_system
from config.model import AkashSettings
from engram.ledger.errors import ServerAway
from engram.ledger.inline import InlineLedger
from engram.provisioning.akash import records
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.model import DeploymentState
from engram.provisioning.backends import Backends
from tests.provisioning import fleets
from tests.provisioning.akash.test_reports import sound, until, watched
from tests.provisioning.akash.worlds import QUICK, World, world


class RemoteLedger:
    """A ledger whose server can be away, for writes alone or for both."""

    holds = True

    def __init__(self, inner: InlineLedger) -> None:
        self._inner = inner
        self.refuses_reads = False
        self.refuses_writes = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def away(self, is_away: bool) -> None:
        self.refuses_reads = self.refuses_writes = is_away

    async def read(self, query: Callable[[Connection], Any]) -> Any:
        if self.refuses_reads:
            raise ServerAway("the server is away")
        return await self._inner.read(query)

    async def write(self, transaction: Callable[[Connection], Any]) -> Any:
        if self.refuses_writes:
            raise ServerAway("the server is away")
        return await self._inner.write(transaction)


@asynccontextmanager
async def remote(settings: AkashSettings = QUICK) -> AsyncIterator[tuple[World, RemoteLedger]]:
    async with world(settings=settings) as made:
        ledger = RemoteLedger(made.ledger)
        made.ledger = cast(InlineLedger, ledger)
        made.parts = made.make_parts()
        made.backend = AkashBackend(made.parts)
        yield made, ledger


def said(logs: list[Any]) -> set[str]:
    return {str(line["event"]) for line in logs if line.get("reason") == "the server is away"}


async def test_a_watch_outlives_a_ledger_that_is_away_and_goes_on_where_it_was(virtual_time: None) -> None:
    async with remote() as (made, ledger), watched(made.backend) as exits:
        spec = made.spec(hours=200.0)
        await made.backend.launch(spec)
        (row,) = made.rows()
        with capture_logs() as logs:
            ledger.away(True)
            made.backend._watching.look_at_escrow(row.dseq)
            await until(lambda: {"akash_not_watched", "akash_escrow_not_read"} <= said(logs))
            ledger.away(False)
        await until(lambda: made.rows()[0].deposit_uact > 500_000)
        assert exits == []
        await made.backend.destroy(spec.token)
        sound(made)


async def test_closes_and_orphans_that_cannot_be_written_down_end_no_watch(virtual_time: None) -> None:
    async with remote() as (made, ledger):
        for word in ("t1", "t2"):
            await made.backend.launch(made.spec(session_id=word, word=word))
        closing, orphan = made.rows()
        made.ledger.write_now(
            lambda c: records.set_values(c, closing.dseq, state=DeploymentState.CLOSING, reason="session_over")
        )
        made.forget(orphan.dseq)
        made.double.make_blocks(400, 6.0)  # old enough to be one
        ledger.refuses_writes = True
        async with watched(made.backend):
            with capture_logs() as logs:
                await until(lambda: "akash_not_finished" in said(logs))
                await until(lambda: any(line.get("outcome") == "the server is away" for line in logs))
                ledger.away(False)
            await until(lambda: made.active() == [])
        sound(made)


async def test_a_gateway_keeps_its_branch_of_nodes_while_the_ledger_is_away(virtual_time: None) -> None:
    settings = msgspec.structs.replace(QUICK, watch_s=1.0, escrow_s=1.0, reconcile_s=1.0)
    async with remote(settings) as (made, ledger):
        sold = fleets.World(made.ledger, clock=made.clock)
        backends = Backends([made.backend])
        fleet = fleets.replaced(sold.fleet, registry=Registry(), backends=backends, ledger=ledger)
        await backends.look()
        branch = fleets.fleet_branch(fleet)
        root = SupervisorSpec("root", [branch], strategy="one_for_one", intensity=Intensity(10, 60.0))
        with capture_logs() as logs:
            async with open_system(root, registry=fleet.registry, rng=random.Random(1)):
                ledger.away(True)
                await until(lambda: sum(line["event"] == "akash_not_watched" for line in logs) > 20, within_s=60.0)
                ledger.away(False)
        assert [line for line in logs if "intensity" in str(line)] == []
