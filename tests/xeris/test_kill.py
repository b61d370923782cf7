"""kill -9 of the receiver around each commit of a submission: the emitter's payloads are accepted, each once."""

import signal
from pathlib import Path

import pytest
import trio
from sqlalchemy import select

from engram.ledger import open_inline
from engram.relay.tables import relay_outbox
from engram.xeris.tables import accepted, submissions
from tests import forked
from tests.relay.emitting import emit
from tests.relay.samples import KEYPAIR
from tests.sampling import sample
from tests.xeris.xeris_process import XerisProcess

# Commits of a receiver that starts on a folder that it has used before: some of its own, then one for each submission.
POINTS = [f"{where}:{number}" for number in range(1, 6) for where in ("begin", "commit")]


@pytest.mark.parametrize("point", sample("receiver kills", POINTS, 2))
async def test_a_receiver_that_is_killed_accepts_each_payload_once(
    point: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    receiver = XerisProcess(tmp_path / "xeris", KEYPAIR.ss58)
    request.addfinalizer(receiver.kill)
    await trio.to_thread.run_sync(receiver.start)
    receiver.kill()
    ledger, url = tmp_path / "sent.sqlite3", f"{receiver.url}/payloads"
    emitter = await forked.start(lambda: emit(ledger, url, 3))
    await trio.to_thread.run_sync(receiver.spawn, point)
    was_killed = False
    async with trio.open_nursery() as nursery:

        async def killed() -> None:
            nonlocal was_killed
            assert await receiver.ended() == -signal.SIGKILL
            was_killed = True
            await trio.to_thread.run_sync(receiver.start)

        nursery.start_soon(killed)
        assert await forked.ended(emitter) == 0, receiver.log()
        nursery.cancel_scope.cancel()
    assert was_killed, "the run never came to this point"
    receiver.kill()
    sent, taken = open_inline(tmp_path / "sent.sqlite3"), open_inline(receiver.ledger)
    emitted = sent.write_now(lambda c: list(c.execute(select(relay_outbox.c.signed_hash, relay_outbox.c.state)).all()))
    found = taken.write_now(lambda c: list(c.scalars(select(accepted.c.signed_hash)).all()))
    assert {state for _, state in emitted} == {"delivered"}
    assert sorted(found) == sorted(digest for digest, _ in emitted), "the accepted set is the emitted set, each once"
    verdicts = taken.write_now(lambda c: list(c.scalars(select(submissions.c.verdict)).all()))
    assert verdicts.count("accepted") == len(found)
    assert set(verdicts) <= {"accepted", "repeated"}
    seen = taken.write_now(lambda c: c.execute(select(submissions.c.block, submissions.c.signed_hash).distinct()).all())
    assert len(seen) == len({block for block, _ in seen}) == len(found), "no two hashes for one block"
    sent.close()
    taken.close()
