"""An upgrade from the first version that was shipped, whose code is in the history of this checkout."""

import subprocess
from pathlib import Path

import pytest

from engram.ledger import LEDGER_FILE, backup
from engram.ledger.migrations import MIGRATIONS
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import FAST, GatewayProcess

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.heavy, pytest.mark.external, pytest.mark.nightly]


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False).stdout


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """The first version's files."""
    found = git("rev-list", "--first-parent", "--reverse", "HEAD", "--", "shipping/binary.py").decode().split()
    if not found or (ROOT / ".git" / "shallow").exists():
        pytest.skip("the history of this checkout does not reach back to the first version that was shipped")
    folder = tmp_path / "former"
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=git("archive", found[0]), check=True)
    return folder


def test_sessions_of_the_first_version_live_on_and_it_refuses_what_was_migrated(former: Path, tmp_path: Path) -> None:
    buyer = Buyer()
    data, settings = tmp_path / "data", FAST + '[shutdown]\nnodes = "keep"\n'
    first = GatewayProcess(data, settings=settings, program=former / "run.py", is_warm=False).start()
    buyer.quote(first.url)
    session = buyer.pay(first.url).body["session_id"]
    buyer.wait(first.url, session, "active")
    nodes = first.nodes()
    assert first.terminate() == 0
    before = backup.check(data / LEDGER_FILE)
    assert before.schema_version < len(MIGRATIONS)

    newer = GatewayProcess(data, settings=settings, is_warm=False).start()
    assert buyer.wait(newer.url, session, "active")["status"] == "active"
    assert set(nodes) <= set(newer.nodes())
    assert newer.terminate() == 0
    assert backup.check(data / f"{LEDGER_FILE}.schema-{before.schema_version}").rows == before.rows

    first.spawn()
    assert not first.wait_ready()
    assert first.wait() == 2
    assert f"schema version {len(MIGRATIONS)}" in first.log()

    newer.start()
    buyer.stop(newer.url, session)
    buyer.wait(newer.url, session, "stopped")
    assert newer.nodes() == []
    assert newer.terminate() == 0
