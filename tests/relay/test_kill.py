"""kill -9 around every commit and effect of an attempt: nothing is lost, and nothing is another thing twice."""

from pathlib import Path

import pytest
import trio
from sqlalchemy import select

from engram.ledger import open_inline
from engram.relay.tables import relay_log, relay_outbox
from tests import forked
from tests.fakes.responder import Answer, Asked, Responder
from tests.relay.emitting import emit
from tests.relay.samples import write
from tests.sampling import sample

# Commits of a first run: queued, settled at the end, between them the purge, what was interrupted, and the claim.
POINTS = [
    *[f"{where}:{number}" for number in range(1, 6) for where in ("begin", "commit")],
    "relay:before",
    "relay:after",
]


POSSIBLE = [([], 0), (["pending"], 0), (["sending"], 0), (["sending"], 1), (["delivered"], 1)]
"""What a killed emitter left: the entry's state and how often the receiver has it; only repeating tells that."""


async def ok(asked: Asked) -> Answer:
    return 200, {}, b"{}"


@pytest.mark.parametrize("point", sample("relay kills", POINTS, 4))
async def test_a_payload_survives_a_kill(point: str, tmp_path: Path, nursery: trio.Nursery) -> None:
    responder = Responder(ok)
    url = await nursery.start(responder.run)
    path = tmp_path / "ledger.sqlite3"
    assert await forked.run(lambda: emit(path, url), kill_at=point) == forked.KILLED
    ledger = open_inline(path)
    states = select(relay_outbox.c.state)
    left = write(ledger, lambda c: list(c.scalars(states)))
    ledger.close()
    sent = len(responder.asked)
    assert (left, sent) in POSSIBLE
    assert point not in ("relay:before", "relay:after") or (left, sent) == (["sending"], point == "relay:after")

    assert await forked.run(lambda: emit(path, url)) == 0
    assert len(responder.asked) == sent + (left != ["delivered"])
    assert len({(asked.body, asked.headers["idempotency-key"]) for asked in responder.asked}) == 1
    ledger = open_inline(path)
    assert write(ledger, lambda c: list(c.scalars(states))) == ["delivered"]
    words = write(ledger, lambda c: list(c.scalars(select(relay_log.c.status).order_by(relay_log.c.id))))
    assert words == (["unknown", "ok"] if left == ["sending"] else ["ok"])
    ledger.close()
