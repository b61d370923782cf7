"""kill -9 at every commit and around every broadcast of a session's life on Akash, of its node's successor and restart,
of the close of an orphan, and of a mint.

The double is this process; the gateway is another one. Whatever was killed, and whenever: the session is served by one
deployment with one lease, and after its end every ACT that left the owner was paid to a provider or came back.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection, delete

from engram.ledger.inline import open_inline
from engram.provisioning import records
from engram.provisioning.akash import records as akash_records
from engram.provisioning.akash import transactions
from engram.provisioning.akash.model import Deployment, DeploymentState
from engram.provisioning.akash.tables import deployments
from engram.provisioning.akash.transactions import Subject, TxState
from engram.sessions import SessionEvent, SystemInstants
from engram.sessions import records as session_records
from tests.doubles.akash import bank
from tests.doubles.akash.double import Double, Options, running
from tests.doubles.akash.store import UACT, Params
from tests.provisioning.akash.killed_gateway import MINT_AKT
from tests.provisioning.akash.worlds import CHAIN_ID, KEY
from tests.provisioning.fleets import World
from tests.provisioning.test_kill import SystemWall, around_commits
from tests.sampling import NIGHTLY, sample

ROOT = Path(__file__).resolve().parents[3]
FUNDED_UACT = 10**9
LAUNCH = [
    "spawn:before",
    *(f"broadcast:{subject}:{when}" for subject in ("create", "lease") for when in ("before", "after")),
    "manifest:before",
    "manifest:after",
    "spawn:after",
    *around_commits(13),
]
STOP = ["destroy:before", "broadcast:close:before", "broadcast:close:after", "destroy:after", *around_commits(7)]
EXTEND = ["broadcast:deposit:before", "broadcast:deposit:after", *around_commits(4)]
MINT = ["broadcast:mint:before", "broadcast:mint:after", *around_commits(5)]
SENT = ["broadcast:{}:before", "broadcast:{}:after"]
REPLACE = [
    *(point.format(subject) for subject in ("create", "lease", "close") for point in SENT),
    "manifest:before",
    "manifest:after",
    *around_commits(13),
]
RESTART = ["manifest:before", "manifest:after", *around_commits(5)]
ORPHAN = [*(point.format("close") for point in SENT), *around_commits(4)]
ROUNDS = int(os.environ.get("ENGRAM_KILL_ROUNDS", "3" if NIGHTLY else "1"))
"""Each point so often at night: more than two hundred kills."""

RUNS_WITHIN_S = 120.0
"""One life of the gateway, on a machine that is busy with others."""


class Gateway:
    """A process that works on session `s`; its commits are counted from its start."""

    def __init__(self, folder: Path, double: Double) -> None:
        self.folder = folder
        self.double = double
        ledger = open_inline(folder / "ledger.sqlite3")
        World(ledger, clock=SystemWall()).sell()
        ledger.close()

    async def run(self, job: str, **environ: str) -> int:
        module = "tests.provisioning.akash.killed_gateway"
        ended = await trio.run_process(
            [sys.executable, "-m", module, job, str(self.folder), *self.double.endpoints],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        return ended.returncode

    async def killed_at(self, point: str, job: str = "session") -> None:
        with trio.fail_after(RUNS_WITHIN_S):
            code = await self.run(job, ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        assert code == -9, f"{point} was not reached"

    async def finish(self, job: str = "session") -> None:
        with trio.fail_after(RUNS_WITHIN_S):
            assert await self.run(job) == 0

    def stop(self) -> None:
        ledger = open_inline(self.folder / "ledger.sqlite3")
        now = SystemInstants().now()
        ledger.write_now(partial(session_records.transition, session_id="s", event=SessionEvent.END, now=now))
        ledger.close()

    def gives_notice(self) -> None:
        """Let the provider take its machine back in ten minutes, as the watch has read it from the chain."""
        self._change(lambda c, row: akash_records.set_values(c, row.dseq, reclaim_at=SystemWall().now() + 600.0))

    def loses_its_ledger(self) -> None:
        """Take the deployment out of the ledger, as one that was restored from a backup never had it."""
        self._change(lambda c, row: c.execute(delete(deployments).where(deployments.c.dseq == row.dseq)))

    def _change(self, work: Callable[[Connection, Deployment], object]) -> None:
        ledger = open_inline(self.folder / "ledger.sqlite3")
        (row,) = ledger.write_now(akash_records.all_live)
        ledger.write_now(lambda c: bool(work(c, row)))
        ledger.close()

    def live(self) -> list[Deployment]:
        """Deployments that are not closed, by the ledger."""
        ledger = open_inline(self.folder / "ledger.sqlite3")
        found = ledger.write_now(akash_records.all_live)
        ledger.close()
        return found

    def state(self) -> tuple[str, int]:
        """State of the session, nodes in the ledger that are not gone."""
        ledger = open_inline(self.folder / "ledger.sqlite3")
        session = ledger.write_now(partial(session_records.get, session_id="s"))
        nodes = ledger.write_now(records.live_backends)
        ledger.close()
        assert session is not None
        return str(session.state), len(nodes)

    def on_chain(self) -> tuple[int, int, int]:
        """Deployments ever made, active ones, and leases that are paid."""
        state = self.double.chain.state
        ours = [row for row in state.deployments.values() if row.owner == KEY.address]
        paid = sum(1 for lease in state.leases.values() if lease.owner == KEY.address and lease.serves)
        return len(ours), sum(1 for row in ours if row.state == "active"), paid

    def deposits(self) -> tuple[int, int, int]:
        """Deposits made after the first, and what the escrow got: by the ledger, and by the owner's account."""
        ledger = open_inline(self.folder / "ledger.sqlite3")
        (row,) = ledger.write_now(akash_records.all_of)
        sent = ledger.write_now(partial(transactions.of_deployment, dseq=row.dseq))
        ledger.close()
        made = [one for one in sent if one.subject is Subject.DEPOSIT and one.state is TxState.INCLUDED]
        return len(made), row.deposit_uact, FUNDED_UACT - bank.balance(self.double.chain.state, KEY.address, UACT)

    def unaccounted_uact(self) -> int:
        """ACT of the owner that is neither on its account nor was paid to a provider."""
        state = self.double.chain.state
        paid = sum(
            amount
            for row in state.escrow.values()
            if row.owner == KEY.address
            for denom, amount in row.transferred
            if denom == UACT
        )
        return FUNDED_UACT - bank.balance(state, KEY.address, UACT) - -(-paid // 10**18)


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    options = Options(block_s=0.1, watch_s=0.2, funded=(KEY.address,), params=Params(chain_id=CHAIN_ID))
    async with running(options) as double:
        yield Gateway(folder, double)


@pytest.mark.parametrize("point", sample("kill a launch on akash", LAUNCH * ROUNDS, 1))
async def test_a_launch_that_was_killed_becomes_one_deployment_with_one_lease(tmp_path: Path, point: str) -> None:
    async with gateway(tmp_path) as killed:
        await killed.killed_at(point)
        await killed.finish()
        assert killed.state() == ("active", 1)
        assert killed.on_chain() == (1, 1, 1)


@pytest.mark.parametrize("point", sample("kill a stop on akash", STOP * ROUNDS, 1))
async def test_a_stop_that_was_killed_leaves_no_lease_and_no_deposit(tmp_path: Path, point: str) -> None:
    async with gateway(tmp_path) as killed:
        await killed.finish()
        killed.stop()
        await killed.killed_at(point)
        await killed.finish()
        assert killed.state() == ("stopped", 0)
        assert killed.on_chain() == (1, 0, 0)
        assert abs(killed.unaccounted_uact()) <= 1


@pytest.mark.parametrize("point", sample("kill an extension on akash", EXTEND * ROUNDS, 1))
async def test_an_extension_that_was_killed_deposits_once_and_the_stop_brings_back_the_rest(
    tmp_path: Path, point: str
) -> None:
    async with gateway(tmp_path) as killed:
        await killed.finish()
        await killed.killed_at(point, "extend")
        await killed.finish("extend")
        made, by_the_ledger, on_chain = killed.deposits()
        assert (made, by_the_ledger) == (1, on_chain)
        killed.stop()
        await killed.finish()
        assert killed.on_chain() == (1, 0, 0)
        assert abs(killed.unaccounted_uact()) <= 1


@pytest.mark.parametrize("point", sample("kill a replacement on akash", REPLACE * ROUNDS, 1))
async def test_a_replacement_that_was_killed_leaves_the_session_one_node_and_one_lease(
    tmp_path: Path, point: str
) -> None:
    async with gateway(tmp_path) as killed:
        await killed.finish()
        (old,) = killed.live()
        killed.gives_notice()
        await killed.killed_at(point, "replace")
        await killed.finish("replace")
        (new,) = killed.live()
        assert (new.token, new.state, new.reclaim_at) == (old.token, DeploymentState.SERVING, None)
        assert new.provider != old.provider
        assert killed.on_chain() == (2, 1, 1)
        killed.stop()
        await killed.finish()
        assert killed.state() == ("stopped", 0)
        assert killed.on_chain() == (2, 0, 0)
        assert abs(killed.unaccounted_uact()) <= 2


@pytest.mark.parametrize("point", sample("kill a restart on akash", RESTART * ROUNDS, 1))
async def test_a_restart_that_was_killed_serves_on_the_same_lease(tmp_path: Path, point: str) -> None:
    async with gateway(tmp_path) as killed:
        await killed.finish()
        (before,) = killed.live()
        await killed.killed_at(point, "restart")
        await killed.finish("restart")
        (after,) = killed.live()
        assert (after.dseq, after.state, after.stopped_at) == (before.dseq, DeploymentState.SERVING, None)
        assert killed.on_chain() == (1, 1, 1)


@pytest.mark.parametrize("point", sample("kill the close of an orphan on akash", ORPHAN * ROUNDS, 1))
async def test_an_orphan_whose_close_was_killed_is_closed_and_its_deposit_comes_back(
    tmp_path: Path, point: str
) -> None:
    async with gateway(tmp_path) as killed:
        await killed.finish()
        killed.loses_its_ledger()
        await killed.killed_at(point, "orphan")
        await killed.finish("orphan")
        assert killed.on_chain() == (1, 0, 0)
        assert abs(killed.unaccounted_uact()) <= 1


@pytest.mark.parametrize("point", sample("kill a mint on akash", MINT * ROUNDS, 1))
async def test_a_mint_that_was_killed_burns_once_and_every_act_of_it_arrives(tmp_path: Path, point: str) -> None:
    async with gateway(tmp_path) as killed:
        state = killed.double.chain.state
        killed.double.chain.drain(KEY.address, UACT)
        await killed.killed_at(point, "mint")
        await killed.finish("mint")
        (minted,) = state.mints.values()
        assert (minted.status, minted.burned) == ("executed", int(MINT_AKT * 1_000_000))
        assert bank.balance(state, KEY.address, UACT) == minted.minted - minted.spread


@pytest.mark.nightly
async def test_no_point_is_left_out_of_these_lists(tmp_path: Path) -> None:
    async def passed(job: str) -> set[str]:
        trace = tmp_path / f"{job}.trace"
        trace.unlink(missing_ok=True)
        with trio.fail_after(RUNS_WITHIN_S):
            assert await killed.run(job, ENGRAM_TEST_KILL="1", ENGRAM_KILL_TRACE=str(trace)) == 0
        return set(trace.read_text().split())

    async with gateway(tmp_path) as killed:
        assert await passed("session") == set(LAUNCH)
        assert await passed("extend") == set(EXTEND)
        assert await passed("restart") == set(RESTART)
        killed.gives_notice()
        assert await passed("replace") == set(REPLACE)
        killed.stop()
        assert await passed("session") == set(STOP)
        killed.double.chain.drain(KEY.address, UACT)
        assert await passed("mint") == set(MINT)


@pytest.mark.nightly
async def test_no_point_of_the_close_of_an_orphan_is_left_out(tmp_path: Path) -> None:
    trace = tmp_path / "orphan.trace"
    async with gateway(tmp_path) as killed:
        await killed.finish()
        killed.loses_its_ledger()
        with trio.fail_after(RUNS_WITHIN_S):
            assert await killed.run("orphan", ENGRAM_TEST_KILL="1", ENGRAM_KILL_TRACE=str(trace)) == 0
    assert set(trace.read_text().split()) == set(ORPHAN)
