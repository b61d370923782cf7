"""kill -9 around every commit and effect of a launch and of a stop, with real processes and a real ledger."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.ledger.inline import open_inline
from engram.provisioning import processes, records
from engram.sessions import SessionEvent, SystemInstants
from engram.sessions import records as session_records
from tests.provisioning.fleets import World
from tests.provisioning.test_local import no_processes_left
from tests.sampling import sample

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ["spawn:before", "spawn:unrecorded", "spawn:after"]
STOP = ["destroy:before", "destroy:after"]


def around_commits(count: int) -> list[str]:
    return [f"{word}:{n}" for n in range(1, count + 1) for word in ("begin", "commit")]


class Gateway:
    """A process that works on session `s`; its commits are counted from its start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = random.randrange(20_000, 30_000)
        ledger = open_inline(folder / "ledger.sqlite3")
        World(ledger, clock=SystemWall()).sell()
        ledger.close()

    def run(self, **environ: str) -> int:
        command = [sys.executable, "-m", "tests.provisioning.killed_gateway", str(self.folder), str(self.port)]
        environment = {**os.environ, **environ}
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=60, check=False).returncode

    def killed_at(self, point: str) -> None:
        assert self.run(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point) == -9, f"{point} was not reached"

    def stop(self) -> None:
        ledger = open_inline(self.folder / "ledger.sqlite3")
        now = SystemInstants().now()
        ledger.write_now(lambda c: session_records.transition(c, "s", SessionEvent.END, now))
        ledger.close()

    def state(self) -> tuple[str, int, int]:
        """State of the session, nodes in the ledger that are not gone, node processes."""
        ledger = open_inline(self.folder / "ledger.sqlite3")
        session = ledger.write_now(lambda c: session_records.get(c, "s"))
        tokens = set(ledger.write_now(records.live_backends))
        ledger.close()
        assert session is not None
        return str(session.state), len(tokens), len(processes.session_leaders_naming(str(self.folder)))


class SystemWall:
    def now(self) -> float:
        return SystemInstants().now().wall

    def monotonic(self) -> float:
        return SystemInstants().now().monotonic


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with no_processes_left(tmp_path):
        yield Gateway(tmp_path)


@pytest.mark.parametrize("point", sample("kill a launch", [*LAUNCH, *around_commits(4)], 4))
def test_a_launch_that_was_killed_becomes_one_node(gateway: Gateway, point: str) -> None:
    gateway.killed_at(point)
    assert gateway.run() == 0
    assert gateway.state() == ("active", 1, 1)
    assert (gateway.folder / "nodes" / "s" / "data" / "starts").read_text() == "x"


@pytest.mark.parametrize("point", sample("kill a stop", [*STOP, *around_commits(2)], 2))
def test_a_stop_that_was_killed_leaves_nothing(gateway: Gateway, point: str) -> None:
    assert gateway.run() == 0
    gateway.stop()
    gateway.killed_at(point)
    assert gateway.run() == 0
    assert gateway.state() == ("stopped", 0, 0)
    assert list((gateway.folder / "nodes").iterdir()) == []
