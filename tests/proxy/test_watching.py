"""Clients are watched once their requests have taken a moment, and are read by no one afterwards."""

from typing import Any

import trio
from structlog.testing import capture_logs

from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.watching import Watches


class Client:
    """What a request receives of its client."""

    def __init__(self, error: Exception | None = None) -> None:
        self.leaves = trio.Event()
        self.reads = 0
        self._error = error

    async def receive(self) -> dict[str, Any]:
        self.reads += 1
        if self._error is not None:
            raise self._error
        try:
            await self.leaves.wait()
        finally:
            self.reads -= 1
        return {"type": "http.disconnect"}

    @property
    def request(self) -> Incoming:
        scope = {"type": "http", "headers": [], "raw_path": b"/", "query_string": b"", "scheme": "http"}
        return Incoming(scope, self.receive, None, "ab", "192.0.2.1", "192.0.2.1", 0.0)  # type: ignore[arg-type]


async def test_a_request_that_is_answered_at_once_is_never_watched(autojump_clock: trio.abc.Clock) -> None:
    quick, slow, gone = Client(), Client(), trio.Event()
    async with trio.open_nursery() as nursery:
        watches = Watches()
        await nursery.start(watches.run)
        first = watches.begin(quick.request, gone.set)
        await trio.sleep(0.01)
        await watches.end(first)
        second = watches.begin(slow.request, gone.set)
        await trio.sleep(0.05)
        assert (quick.reads, slow.reads) == (0, 1)
        await watches.end(second)
        assert (slow.reads, gone.is_set()) == (0, False)
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_is_noticed_within_two_moments(autojump_clock: trio.abc.Clock) -> None:
    client, gone = Client(), trio.Event()
    async with trio.open_nursery() as nursery:
        watches = Watches()
        await nursery.start(watches.run)
        watched = watches.begin(client.request, gone.set)
        client.leaves.set()
        with trio.fail_after(0.05):
            await gone.wait()
        await watches.end(watched)
        nursery.cancel_scope.cancel()


async def test_a_fault_in_watching_one_client_ends_its_request_alone(autojump_clock: trio.abc.Clock) -> None:
    faulty, other, gone = Client(ValueError("no message")), Client(), trio.Event()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            watches = Watches()
            await nursery.start(watches.run)
            one, two = watches.begin(faulty.request, gone.set), watches.begin(other.request, lambda: None)
            await gone.wait()
            await watches.end(one)
            assert other.reads == 1
            await watches.end(two)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs] == ["watch_failed"]
