"""The official conformance suite, pinned, against the server with the suite's fixtures: both wires."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import yaml

from engram.clock import SystemClock
from engram.http.router import Router
from engram.mcp.access import ALL, Access, Policy
from engram.mcp.http import McpEndpoint
from tests.http.harness import make_app, serving
from tests.mcp.fixtures import dispatcher
from tests.mcp.official_sides import MODULES, needs_node_sdk, node

pytestmark = [pytest.mark.heavy, pytest.mark.external, needs_node_sdk]

HERE: Final = Path(__file__).parent
REVISIONS: Final = ("2025-11-25", "2026-07-28")


async def never(key: bytes, token_id: str) -> bool:
    return False


@asynccontextmanager
async def fixtures() -> AsyncIterator[str]:
    """The server with the fixtures; its URL."""
    app = make_app()
    endpoint = McpEndpoint(dispatcher(), Access(Policy(loopback=ALL), SystemClock(), never))
    router = Router(app)
    router.add("POST", "/mcp", endpoint.post, hot=True)
    async with serving(app) as running:
        yield f"http://127.0.0.1:{running.port}/mcp"


async def conformance(url: str, revision: str, results: Path) -> tuple[int, str]:
    """Exit status and output of the suite with the committed baseline."""
    baseline = HERE / f"expected-failures-{revision}.yml"
    found = await node(
        str(MODULES / ".bin" / "conformance"),
        *("server", "--url", url, "--requirements", revision, "--expected-failures", str(baseline), "-o", str(results)),
    )
    return found.returncode, found.stdout.decode()


@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_suite_fails_only_what_is_expected_with_its_reason(revision: str, tmp_path: Path) -> None:
    async with fixtures() as url:
        status, output = await conformance(url, revision, tmp_path)
    assert status == 0, output[-6_000:]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_suite_fails_where_no_server_is(revision: str, tmp_path: Path) -> None:
    status, output = await conformance("http://127.0.0.1:1/mcp", revision, tmp_path)
    assert status == 1, output[-2_000:]


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_expected_failure_has_its_reason_beside_it(revision: str) -> None:
    text = (HERE / f"expected-failures-{revision}.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)["server"]
    assert entries
    for entry in entries:
        [line] = [line for line in text.splitlines() if re.match(rf"  - {re.escape(entry)}( |$)", line)]
        assert len(line.partition("  # ")[2]) > 20, line
