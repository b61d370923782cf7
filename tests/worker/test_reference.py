"""The reference orchestrator against npm's socket.io client: neither side of ours is judged by the other alone."""

import json
from typing import Any

import pytest

from engram.clock import SystemClock
from engram.worker.introduction import Introducer
from tests.worker.harness import ALICE, needs_socket_io, node_program, orchestrating

pytestmark = [needs_socket_io, pytest.mark.external]


def introduction(**changes: Any) -> str:
    return json.dumps(Introducer(ALICE, SystemClock()).introduction({"gpu_count": 0}) | changes)


async def test_npm_socket_io_works_for_the_reference_orchestrator() -> None:
    async with (
        orchestrating(ping_s=0.2, patience_s=5.0) as orchestrator,
        node_program("worker_client.mjs", orchestrator.url, introduction()) as client,
    ):
        assert (await client.next("auth_success"))["auth_success"] == {"message": "Authenticated"}
        assert (await client.next("reconcile"))["reconcile"] == {"jobs": []}
        await orchestrator.post({"id": "a", "type": "inference", "payload": {"x": [1, None, "ä"]}})
        assert await orchestrator.settled("a") == [{"x": [1, None, "ä"]}]
        assert (await client.next("delivered"))["delivered"] == {"ok": True}
        assert orchestrator.desk.deliveries == {"a": 1}
        await orchestrator.sessions[-1].pinged.wait()
        await orchestrator.sessions[-1].disconnect()
        assert (await client.next("disconnected"))["disconnected"] == "io server disconnect"


async def test_the_reference_orchestrator_refuses_what_is_not_signed() -> None:
    async with orchestrating() as orchestrator:
        forged = introduction(signature="00" * 64)
        async with node_program("worker_client.mjs", orchestrator.url, forged) as client:
            assert (await client.next("auth_failed"))["auth_failed"] == {"error": "Invalid signature"}
            await client.next("disconnected")
