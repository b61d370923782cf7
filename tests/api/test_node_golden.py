"""Every answer of a node is what it was before its endpoints were declared in one table."""

import json
import os
from pathlib import Path

from config.model import HttpSettings
from engram.clock import ManualClock, SeededIds
from engram.miner.app import make_app
from tests.api.node_answers import Noted, Walk
from tests.miner.nodes import serving

ANSWERS = Path(__file__).parent / "golden" / "node_answers.json"


async def walked(folder: Path, *, require_signature: bool) -> list[Noted]:
    clock = ManualClock()
    folder.mkdir()
    async with serving(folder, clock=clock, tenants="anyone", require_signature=require_signature) as service:
        settings = HttpSettings(requests_per_minute_per_ip=0, max_body_bytes=100_000)
        app = make_app(service, settings=settings, clock=clock, ids=SeededIds(1), metrics=service.metrics)
        walk = Walk(app, clock)
        return await (walk.refusals() if require_signature else walk.all())


async def test_every_answer_is_what_it_was_byte_for_byte_but_for_chance(tmp_path: Path) -> None:
    """ENGRAM_GOLDEN=1 records them anew."""
    noted = await walked(tmp_path / "open", require_signature=False)
    noted += await walked(tmp_path / "signed", require_signature=True)
    lines = [json.dumps(each, ensure_ascii=False) for each in noted]
    if os.environ.get("ENGRAM_GOLDEN"):
        ANSWERS.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    recorded = [json.dumps(each, ensure_ascii=False) for each in json.loads(ANSWERS.read_text(encoding="utf-8"))]
    for now, before in zip(lines, recorded, strict=True):
        assert now == before
