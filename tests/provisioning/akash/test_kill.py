"""kill -9 at every commit and around every broadcast of a session's life on Akash.

The double is this process; the gateway is another one. Whatever was killed, and whenever: the session is served by one
deployment with one lease, and after its end every ACT that left the owner was paid to a provider or came back.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from engram.ledger.inline import open_inline
from engram.provisioning import records
from engram.sessions import SessionEvent, SystemInstants
from engram.sessions import records as session_records
from tests.doubles.akash import bank
from tests.doubles.akash.double import Double, Options, running
from tests.doubles.akash.store import UACT, Params
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
STOP = ["destroy:before", "broadcast:close:before", "broadcast:close:after", "destroy:after", *around_commits(5)]
ROUNDS = int(os.environ.get("ENGRAM_KILL_ROUNDS", "4" if NIGHTLY else "1"))
"""Each point so often at night: two hundred kills."""


class Gateway:
    """A process that works on session `s`; its commits are counted from its start."""

    def __init__(self, folder: Path, double: Double) -> None:
        self.folder = folder
        self.double = double
        ledger = open_inline(folder / "ledger.sqlite3")
        World(ledger, clock=SystemWall()).sell()
        ledger.close()

    async def run(self, **environ: str) -> int:
        module = "tests.provisioning.akash.killed_gateway"
        ended = await trio.run_process(
            [sys.executable, "-m", module, str(self.folder), *self.double.endpoints],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        return ended.returncode

    async def killed_at(self, point: str) -> None:
        with trio.fail_after(60.0):
            code = await self.run(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
        assert code == -9, f"{point} was not reached"

    async def finish(self) -> None:
        with trio.fail_after(60.0):
            assert await self.run() == 0

    def stop(self) -> None:
        ledger = open_inline(self.folder / "ledger.sqlite3")
        now = SystemInstants().now()
        ledger.write_now(partial(session_records.transition, session_id="s", event=SessionEvent.END, now=now))
        ledger.close()

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
