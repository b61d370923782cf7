"""The operator's listener of a receiver."""

from config.model import HttpSettings
from engram.chain import Subnets
from engram.clock import SeededIds
from engram.xeris.ops import ops_app
from tests.xeris.test_judging import ONE, scores
from tests.xeris.test_receiver import Bench


async def test_metrics_and_status_say_what_is_kept_and_how_old_the_newest_is() -> None:
    bench = Bench()
    subnets = Subnets(bench.clock, (450,), 60.0)
    app = ops_app(
        bench.ledger, subnets, settings=HttpSettings(), clock=bench.clock, ids=SeededIds(1), metrics=bench.metrics
    )
    client = app.test_client()
    assert (await (await client.get("/health")).get_json())["status"] == "ok"
    assert (await client.get("/metrics")).status_code == 200
    assert bench.metrics.registry.get_sample_value("engram_xeris_newest_age_seconds") is None
    await bench.permit(1000, ONE)
    assert (await bench.post(scores()))[0] == 200
    bench.clock.advance(30)
    shown = await (await client.get("/metrics")).get_data(as_text=True)
    assert "engram_xeris_newest_age_seconds 30.0" in shown
    assert 'engram_chain_changes_total{kind="removed",netuid="450"} 0.0' in shown
    status = await (await client.get("/status")).get_json()
    assert (status["payloads"], status["newest_at"]) == (1, bench.clock.now() - 30)
    bench.ledger.close()
