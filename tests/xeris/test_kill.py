"""kill -9 of the receiver around each commit of a submission: the emitter's payloads are accepted, each once."""

import json
import signal
from pathlib import Path

import pytest
import trio
from sqlalchemy import select

from engram.clock import ManualClock
from engram.hotkeys import Keypair, PublicKey
from engram.ledger import open_inline
from engram.relay.tables import relay_outbox
from engram.xeris import records
from engram.xeris.receiver import XerisReceiver
from engram.xeris.tables import accepted, anchors, submissions
from tests import forked
from tests.relay.emitting import emit
from tests.relay.samples import KEYPAIR
from tests.sampling import sample
from tests.xeris.test_judging import NOW, ONE, TWO, scores
from tests.xeris.test_refusals_over_http import BLOCK, anchored
from tests.xeris.xeris_process import XerisProcess

# Commits of a receiver that starts on a folder that it has used before: three of its own, one for each submission. The
# first two points are passed first as the ledger is opened, and meet a receiver there.
POINTS = [f"{where}:{number}" for number in range(1, 7) for where in ("begin", "commit")]


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


async def test_the_kills_of_a_receiver_are_all_commits_that_there_are(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    receiver = XerisProcess(tmp_path / "xeris", KEYPAIR.ss58)
    request.addfinalizer(receiver.kill)
    await trio.to_thread.run_sync(receiver.start)
    receiver.kill()
    trace = tmp_path / "trace"
    await trio.to_thread.run_sync(receiver.spawn, "", str(trace))
    assert await forked.run(lambda: emit(tmp_path / "sent.sqlite3", f"{receiver.url}/payloads", 3)) == 0
    receiver.kill()
    passed = [line for line in trace.read_text().splitlines() if line.partition(":")[0] in ("begin", "commit")]
    assert len(passed) > 8, "opening the ledger is two commits, counted apart"
    assert set(passed) <= set(POINTS), "two requests that come at once share a commit: there may be fewer"


BUNDLE = scores(cosigners=(TWO,))
ANCHOR = anchored(BUNDLE["output_hash"])
# 1 the permits are noted, 2 the bundle, 3 the anchor is looked at before the chain is read, 4 it is kept.
COMMITS = 4
OF_BUNDLES = [f"{where}:{number}" for number in range(1, 1 + COMMITS) for where in ("begin", "commit")]


async def take(path: Path) -> None:
    """A start of the receiver, to which a validator sends its bundle and its anchor (again)."""
    ledger = open_inline(path)

    async def read_root(netuid: int, hotkey: PublicKey, block: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes.fromhex(ANCHOR["root"])

    receiver = XerisReceiver(
        ledger,
        Keypair.from_seed(bytes([9]) * 32),
        ManualClock(NOW),
        gateways=frozenset(),
        netuids=(450,),
        quorum=2,
        keep_s=86_400.0,
        read_root=read_root,
    )
    held = [ONE.public_key, TWO.public_key]
    ledger.write_now(lambda c: records.note_permits(c, 450, BLOCK, held, 360))
    for document in (BUNDLE, ANCHOR):
        await receiver.take(json.dumps(document).encode())
    ledger.close()


@pytest.mark.parametrize("point", sample("bundle kills", OF_BUNDLES, 2))
async def test_a_bundle_and_its_anchor_are_accepted_once_whenever_the_receiver_is_killed(
    point: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger"
    assert await forked.run(lambda: take(path), kill_at=point) == forked.KILLED
    for _ in range(2):
        assert await forked.run(lambda: take(path)) == 0
    ledger = open_inline(path)
    found = ledger.read_now(
        lambda c: c.execute(select(accepted.c.kind, accepted.c.signers, accepted.c.anchor_id)).all()
    )
    assert [tuple(row) for row in found] == [("scores", 2, 1), ("anchor", 1, None)]
    assert len(ledger.read_now(lambda c: c.execute(select(anchors.c.id)).all())) == 1
    verdicts = ledger.read_now(lambda c: list(c.scalars(select(submissions.c.verdict))))
    assert verdicts.count("accepted") == 2
    ledger.close()


async def test_the_kills_of_a_bundle_and_its_anchor_are_all_commits_that_there_are(tmp_path: Path) -> None:
    assert await forked.run(lambda: take(tmp_path / "last"), kill_at=f"commit:{COMMITS}") == forked.KILLED
    assert await forked.run(lambda: take(tmp_path / "none"), kill_at=f"begin:{COMMITS + 1}") == 0
