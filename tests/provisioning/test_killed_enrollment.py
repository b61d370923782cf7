"""kill -9 around the commit and the delivery of a certificate: one key, and a node that is healthy in the end."""

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from engram.hotkeys import certificates
from engram.ledger import open_inline
from tests.fakes.responder import Responder
from tests.provisioning.foreign_nodes import sold
from tests.provisioning.test_enrollment import Provider

ROOT = Path(__file__).resolve().parents[2]


async def gateway(folder: Path, endpoint: str, kill_at: str = "") -> int:
    environ = os.environ | ({"ENGRAM_KILL_AT": kill_at, "ENGRAM_TEST_KILL": "1"} if kill_at else {})
    command = [sys.executable, "-m", "tests.provisioning.killed_enrollment", str(folder), endpoint]
    with trio.fail_after(60.0):
        ended = await trio.run_process(command, cwd=ROOT, env=environ, check=False)
    return ended.returncode


@pytest.mark.parametrize("point", ["begin:1", "commit:1", "certify:noted", "certify:delivered"])
async def test_a_gateway_that_dies_while_it_certifies_goes_on_with_the_same_key(tmp_path: Path, point: str) -> None:
    async with sold(tmp_path, ledger_file=tmp_path / "ledger.sqlite3") as session, trio.open_nursery() as nursery:
        provider = Provider(session)
        endpoint = await nursery.start(Responder(provider.answer).run)
        session.world.ledger.close()
        assert await gateway(tmp_path, endpoint, point) == -signal.SIGKILL
        assert (provider.certificate is not None) == (point == "certify:delivered")
        assert await gateway(tmp_path, endpoint) == 0
        assert provider.certificate is not None
        assert certificates.claimed(provider.certificate).session_key == provider.keypair.ss58
        session.world.ledger = open_inline(tmp_path / "ledger.sqlite3")
        shown = session.world.ledger.write_now(
            lambda c: c.exec_driver_sql("SELECT session_key FROM node_session_keys").scalars().all()
        )
        assert list(shown) == [provider.keypair.public_key]
        session.world.ledger.close()
        nursery.cancel_scope.cancel()
