"""The real engine is killed around every call of a launch and of a removal: one node comes of it, and then none."""

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from engram.http.client import HttpClient, Response
from engram.http.errors import HttpError
from engram.provisioning import Node, Unavailable, Unknown
from tests.engine import on_an_engine
from tests.provisioning.docker.real import DockerBench
from tests.sampling import sample

pytestmark = on_an_engine
CALLS = 12
"""Of a launch: container, list, image, those of its session, volume, its making, a look, creation, orders, start."""
POINTS = [(when, number) for number in range(1, CALLS + 1) for when in ("before", "after")]


def kill_engine() -> None:
    os.kill(int(Path(os.environ["ENGRAM_ENGINE_PID"]).read_text()), signal.SIGKILL)


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Arms one death of the engine: before or after the n-th call from now on."""
    due: list[tuple[str, int]] = []
    send, calls = HttpClient.request, 0

    async def request(self: HttpClient, method: str, url: str, **more: object) -> Response:
        nonlocal calls
        calls += 1
        if ("before", calls) in due:
            due.clear()
            kill_engine()
        answer = await send(self, method, url, **more)  # type: ignore[arg-type]  # passed on as it came
        if ("after", calls) in due:
            due.clear()
            kill_engine()
        return answer

    monkeypatch.setattr(HttpClient, "request", request)

    def arm(when: str, number: int) -> None:
        nonlocal calls
        calls = 0
        due[:] = [(when, number)]

    return arm


async def until_done(call: Callable[[], Awaitable[Node | None]]) -> Node | None:
    """Repeat the call, as a saga does, until its outcome is known."""
    with trio.fail_after(90.0):
        while True:
            try:
                return await call()
            except (Unavailable, Unknown):
                await trio.sleep(0.2)


@pytest.mark.parametrize(("when", "number"), sample("deaths of an engine", POINTS, 1))
async def test_an_engine_killed_anywhere_has_one_node_and_then_none(
    docker: DockerBench, armed: Callable[[str, int], None], when: str, number: int
) -> None:
    spec = await docker.spec()
    await docker.backend.offers()
    armed(when, number)
    node = await until_done(lambda: docker.backend.launch(spec))
    assert node is not None
    node = await until_done(lambda: docker.backend.launch(spec))  # it may have been killed after its last call
    assert node is not None
    await docker.until_healthy(node.endpoint, spec.token)
    assert await until_done(lambda: docker.backend.inspect(spec.token)) == node

    armed(when, number)
    await until_done(lambda: docker.backend.destroy(spec.token))
    armed("never", 0)

    async def left() -> Node | None:
        try:
            assert await docker.engine.ask("GET", "/containers/json?all=1") == (200, [])
        except HttpError as error:
            raise Unavailable(f"{error}") from error
        return await docker.backend.inspect(spec.token)

    assert await until_done(left) is None
