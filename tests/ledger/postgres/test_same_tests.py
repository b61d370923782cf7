"""The areas' own tests of their ledger, with every ledger on PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import cluster, needs_postgresql

pytestmark = needs_postgresql
ROOT = Path(__file__).parents[3]
FILES = (
    "tests/ledger/test_prepared.py",
    "tests/sessions/test_records.py",
    "tests/payments/test_records.py",
    "tests/relay/test_records.py",
    "tests/relay/test_signers.py",
    "tests/facilitator/test_service.py",
    "tests/worker/test_jobs.py",
    "tests/xeris/test_leaves.py",
)


@pytest.mark.parametrize("file", FILES)
def test_they_pass_on_postgresql(file: str, address: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, "-p", "tests.ledger.postgres.same_tests", file],
        cwd=ROOT,
        env={**os.environ, "ENGRAM_TEST_POSTGRESQL": address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Rules are shown here and no durability: without fsync, since each test makes all tables."""
    with cluster("-c fsync=off") as server:
        yield server.base
