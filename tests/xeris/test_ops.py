"""The operator's listener of a receiver."""

from config.model import HttpSettings
from engram.chain.sync.subnets import Subnets
from engram.clock import SeededIds
from engram.xeris import anchoring
from engram.xeris.ops import ops_app
from tests.http.asgi_client import AsgiClient
from tests.xeris.test_judging import ONE, scores
from tests.xeris.test_receiver import OWN, Bench, bench

__all__ = ("bench",)


async def test_it_shows_what_is_kept_and_what_is_overdue(bench: Bench) -> None:
    await bench.permit(1000, ONE)
    await bench.post(scores())
    app = ops_app(
        bench.ledger,
        Subnets(bench.clock, (450,), 60.0),
        OWN.ss58,
        settings=HttpSettings(),
        clock=bench.clock,
        ids=SeededIds(1),
        metrics=bench.metrics,
    )
    client = AsgiClient(app)

    async def unanchored() -> str:
        answer = await client.get("/metrics")
        text: str = await answer.get_data(as_text=True)
        (line,) = [line for line in text.splitlines() if line.startswith('engram_xeris_unanchored{kind="scores"}')]
        return line.rpartition(" ")[2]

    assert await unanchored() == "0.0"
    await bench.ledger.write(lambda c: anchoring.mark_overdue(c, 450, 2_000, {ONE.public_key}))
    assert await unanchored() == "1.0"
    shown = (await (await client.get("/status")).get_json())["xeris"]
    assert (shown["hotkey"], shown["accepted"], shown["overdue"]["scores"]) == (OWN.ss58, 1, 1)
    assert (await client.get("/health")).status_code == 200


async def test_it_shows_how_old_the_newest_payload_is(bench: Bench) -> None:
    app = ops_app(
        bench.ledger,
        Subnets(bench.clock, (450,), 60.0),
        OWN.ss58,
        settings=HttpSettings(),
        clock=bench.clock,
        ids=SeededIds(1),
        metrics=bench.metrics,
    )
    client = AsgiClient(app)
    bench.clock.advance(7)
    assert (await client.get("/metrics")).status_code == 200
    age = bench.metrics.registry.get_sample_value("engram_xeris_newest_age_seconds")
    assert age == 7.0, "since the start before the first payload"
    await bench.permit(1000, ONE)
    assert (await bench.post(scores()))[0] == 200
    bench.clock.advance(30)
    shown = await (await client.get("/metrics")).get_data(as_text=True)
    assert "engram_xeris_newest_age_seconds 30.0" in shown
    assert 'engram_chain_changes_total{kind="removed",netuid="450"} 0.0' in shown
    status = (await (await client.get("/status")).get_json())["xeris"]
    assert (status["accepted"], status["newest_at"]) == (1, bench.clock.now() - 30)
