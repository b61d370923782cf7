"""The operator's listener of a validator."""

from actors import ActorDown
from config.model import HttpSettings
from engram.chain.sync.subnets import Subnets
from engram.clock import ManualClock, SeededIds
from engram.ledger import open_inline
from engram.relay import RelayStatus, records
from engram.telemetry.metrics import Metrics
from engram.validator.ops import ops_app
from tests.http.asgi_client import AsgiClient
from tests.relay.samples import NOW, queue
from tests.validator.benches import NETUID, key


async def test_it_shows_how_the_relay_stands_and_what_waits_and_was_delivered() -> None:
    ledger, clock, metrics = open_inline(), ManualClock(NOW), Metrics()
    queue(ledger, 1, 2)

    async def relay() -> RelayStatus:
        return await ledger.read(lambda c: records.status(c, enabled=True, failures_in_a_row=7))

    app = ops_app(
        ledger,
        Subnets(clock, (NETUID,), 60.0),
        NETUID,
        key(1).public_key,
        relay=relay,
        settings=HttpSettings(),
        clock=clock,
        ids=SeededIds(1),
        metrics=metrics,
    )
    client = AsgiClient(app)
    shown = await (await client.get("/relay/status")).get_json()
    assert (shown["outbox_pending"], shown["failures_in_a_row"]) == (2, 7)
    answer = await client.get("/metrics")
    lines = (await answer.get_data(as_text=True)).splitlines()
    assert 'engram_relay_entries{state="pending"} 2.0' in lines
    assert 'engram_relay_entries{state="delivered"} 0.0' in lines
    ledger.close()


async def test_an_emitter_that_is_down_is_no_error_of_the_server() -> None:
    ledger, clock = open_inline(), ManualClock(NOW)

    async def relay() -> RelayStatus:
        raise ActorDown("relay_emitter")

    app = ops_app(
        ledger,
        Subnets(clock, (NETUID,), 60.0),
        NETUID,
        key(1).public_key,
        relay=relay,
        settings=HttpSettings(),
        clock=clock,
        ids=SeededIds(1),
        metrics=Metrics(),
    )
    answer = await AsgiClient(app).get("/relay/status")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    ledger.close()
