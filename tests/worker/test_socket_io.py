"""The worker against other people's servers: the events, acknowledgements and texts of the seed, byte for byte."""

import pytest

from engram.hotkeys import ss58, verify
from tests.worker.harness import ALICE, GPU, SIDES, Echo, Side, peer_orchestrator, working

pytestmark = pytest.mark.parametrize("side", SIDES)
LEFT = {"npm": "client namespace disconnect", "python-socketio": "client disconnect"}


async def test_a_worker_speaks_to_servers_of_others(side: Side) -> None:
    echo = Echo()
    async with peer_orchestrator(side) as server, working(server.url, {"inference": echo}) as bench:
        said = (await server.next("authenticate"))["authenticate"]
        assert not server.of("authenticate")[0].get("wants_ack")
        assert list(said) == ["hotkey", "timestamp", "signature", "gpu_info"]
        assert said["gpu_info"] == GPU
        message = f"auth:{said['hotkey']}:{said['timestamp']}".encode()
        assert verify(ss58.decode(said["hotkey"]), message, bytes.fromhex(said["signature"]))
        assert server.of("connected")[0]["hotkey"] == ALICE.ss58

        # A job of the seed: no id, answered by the acknowledgement alone.
        await server.do("job", data={"type": "inference", "payload": {"prompt": "a cat"}})
        assert (await server.next("answer"))["answer"] == {"prompt": "a cat"}
        await server.do("job", data={"type": "painting", "payload": {}})
        assert (await server.next("answer", 2))["answer"] == {"error": "Unknown job type"}
        await server.do("job", data="no object")
        assert (await server.next("answer", 3))["answer"] == {"error": "Job is not an object with type and payload"}

        # Binary attachments, there and back.
        await server.do(
            "job", data={"type": "inference", "payload": {"image": {"hex": "00ff10"}, "n": [1, {"hex": ""}]}}
        )
        assert (await server.next("answer", 4))["answer"] == {"image": {"hex": "00ff10"}, "n": [1, {"hex": ""}]}

        # With an id: the acknowledgement, and the event until that is acknowledged.
        assert not server.of("job_result")
        await server.do("job", data={"type": "inference", "payload": {"bytes": {"hex": "abcd"}}, "id": "one"})
        assert (await server.next("answer", 5))["answer"] == {"bytes": {"hex": "abcd"}}
        assert (await server.next("job_result"))["job_result"] == {"id": "one", "result": {"bytes": {"hex": "abcd"}}}
        await server.do("tell", data={"type": "inference", "payload": 7, "id": "two"})
        assert (await server.next("job_result", 2))["job_result"] == {"id": "two", "result": 7}

        # Sent again it is answered, not run again.
        runs = len(echo.runs)
        await server.do("job", data={"type": "inference", "payload": 7, "id": "two"})
        assert (await server.next("answer", 6))["answer"] == 7
        await server.do("job", data={"type": "inference", "payload": 8, "id": "two"})
        assert (await server.next("answer", 7))["answer"] == {"error": "Job id was used for another job"}
        assert len(echo.runs) == runs

        # The end: the session is closed as a client does.
        await bench.stop()
        assert (await server.next("disconnected"))["disconnected"] == LEFT[side]


async def test_a_lost_or_ended_session_is_opened_again_once_each(side: Side) -> None:
    async with peer_orchestrator(side, 0, 1_000, 1_000) as server, working(server.url) as bench:
        await server.next("authenticate")
        await server.do("drop")
        await server.next("authenticate", 2)
        await server.do("cut")
        await server.next("authenticate", 3)
        await server.do("job", data={"type": "inference", "payload": 1})
        assert (await server.next("answer"))["answer"] == 1
        assert (len(server.of("connected")), len(server.of("disconnected"))) == (3, 2)
        assert bench.service.link.status.connections == 3
        timestamps = [int(line["authenticate"]["timestamp"]) for line in server.of("authenticate")]
        assert sorted(set(timestamps)) == timestamps
