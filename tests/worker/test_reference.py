"""The reference orchestrator against other people's clients: neither side of ours is judged by the other alone."""

import json
from typing import Any

import pytest

from engram.clock import SystemClock
from engram.worker.introduction import Introducer
from tests.worker.harness import ALICE, SIDES, Side, orchestrating, peer_worker

pytestmark = pytest.mark.parametrize("side", SIDES)


def introduction(**changes: Any) -> str:
    return json.dumps(Introducer(ALICE, SystemClock()).introduction({"gpu_count": 0}) | changes)


ENDED = {"npm": "io server disconnect", "python-socketio": "server disconnect"}


@pytest.mark.parametrize("transports", [(), ("websocket",)], ids=["polling first", "websocket"])
async def test_a_worker_of_others_works_for_the_reference_orchestrator(side: Side, transports: tuple[str, ...]) -> None:
    async with (
        orchestrating(ping_s=0.2, patience_s=5.0) as orchestrator,
        peer_worker(side, orchestrator.url, introduction(), *transports) as client,
    ):
        assert (await client.next("auth_success"))["auth_success"] == {"message": "Authenticated"}
        assert (await client.next("reconcile"))["reconcile"] == {"jobs": []}
        await orchestrator.post({"id": "a", "type": "inference", "payload": {"x": [1, None, "ä"]}})
        assert await orchestrator.settled("a") == [{"x": [1, None, "ä"]}]
        assert (await client.next("delivered"))["delivered"] == {"ok": True}
        assert orchestrator.desk.deliveries == {"a": 1}
        await orchestrator.sessions[-1].pinged.wait()
        await orchestrator.sessions[-1].disconnect()
        assert (await client.next("disconnected"))["disconnected"] == ENDED[side]


async def test_the_reference_orchestrator_refuses_what_is_not_signed(side: Side) -> None:
    async with orchestrating() as orchestrator:
        forged = introduction(signature="00" * 64)
        async with peer_worker(side, orchestrator.url, forged, "websocket") as client:
            assert (await client.next("auth_failed"))["auth_failed"] == {"error": "Invalid signature"}
            await client.next("disconnected")
