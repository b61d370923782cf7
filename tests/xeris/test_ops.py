"""The operator's listener of a receiver."""

from config.model import HttpSettings
from engram.chain.sync.subnets import Subnets
from engram.clock import SeededIds
from engram.xeris import anchoring
from engram.xeris.ops import ops_app
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
    client = app.test_client()

    async def unanchored() -> str:
        answer = await client.get("/metrics")
        text = await answer.get_data(as_text=True)
        (line,) = [line for line in text.splitlines() if line.startswith('engram_xeris_unanchored{kind="scores"}')]
        return line.rpartition(" ")[2]

    assert await unanchored() == "0.0"
    await bench.ledger.write(lambda c: anchoring.mark_overdue(c, 450, 2_000, {ONE.public_key}))
    assert await unanchored() == "1.0"
    shown = (await (await client.get("/status")).get_json())["xeris"]
    assert (shown["hotkey"], shown["accepted"], shown["overdue"]["scores"]) == (OWN.ss58, 1, 1)
    assert (await client.get("/health")).status_code == 200
