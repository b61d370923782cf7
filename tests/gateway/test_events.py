"""The event stream: what a reader is told, where it goes on, and what it cannot do to the gateway."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio

from actors import ChildSpec, Job, SupervisorSpec, open_system
from engram.gateway.feed import STREAMS_PER_READER, EventFeed, StreamsFull
from engram.gateway.tickets import LIFETIME_S, RENEWAL_S
from engram.gateway.views import TimedStats
from engram.ledger import LedgerUnavailable, open_inline
from engram.sdk import event_stream
from engram.sdk.model import Event
from engram.sessions import SessionEvent, records
from tests.gateway.surface import STRANGER, Gateway, running_gateway
from tests.gateway.test_purchases import assert_error, assert_session


class Reader:
    """Reads a stream event by event over a connection of its own."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._text = ""

    async def open(self, target: str, headers: list[tuple[bytes, bytes]]) -> h11.Response:
        request = h11.Request(method="GET", target=target, headers=[(b"host", b"gateway"), *headers])
        await self._stream.send_all((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        response = await self._event()
        assert isinstance(response, h11.Response)
        return response

    async def next(self) -> Event | None:
        """The next event; None at the end."""
        with trio.fail_after(5):
            while True:
                while "\n\n" in self._text:
                    block, _, self._text = self._text.partition("\n\n")
                    for event in event_stream.parse([*block.split("\n"), ""]):
                        return event
                part = await self._event()
                if not isinstance(part, h11.Data):
                    return None
                self._text += bytes(part.data).decode()

    async def next_id(self) -> str:
        """The id that the next block has, whether it is an event or an id alone; comments are passed over."""
        with trio.fail_after(5):
            while True:
                while "\n\n" in self._text:
                    block, _, self._text = self._text.partition("\n\n")
                    if block.startswith("id: "):
                        return block.partition("\n")[0].removeprefix("id: ")
                part = await self._event()
                assert isinstance(part, h11.Data)
                self._text += bytes(part.data).decode()

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._stream.receive_some(65_536))
        return event


@asynccontextmanager
async def reading(gateway: Gateway, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[Reader]:
    signed = gateway.auth("GET", path) if headers is None else headers
    _, _, port = gateway.url.rpartition(":")
    async with await trio.open_tcp_stream("127.0.0.1", int(port)) as stream:
        reader = Reader(stream)
        lines = [(name.encode(), value.encode("utf-8")) for name, value in signed.items()]
        response = await reader.open(path, lines)
        assert response.status_code == 200
        assert dict(response.headers)[b"content-type"].startswith(b"text/event-stream")
        yield reader


def what(event: Event | None) -> tuple[str, Any]:
    assert event is not None
    return event.event, event.data.get("what")


async def test_a_stream_tells_the_state_then_what_happens_then_the_end() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        async with reading(gateway, f"/sessions/{session_id}/events") as reader:
            first = await reader.next()
            assert what(first) == ("state", "provisioning")
            assert first is not None
            assert first.id is not None
            session = json.loads(json.dumps(first.data["session"]))
            assert_session(session)
            assert session["payment_tx"].startswith("0x")
            await gateway.happen(session_id, SessionEvent.NODE_READY)
            assert what(await reader.next()) == ("state", "active")
            gateway.stats.by_session[session_id] = TimedStats({"vectors": 1}, gateway.clock.monotonic())
            gateway.feed.poke(session_id)
            told = await reader.next()
            assert told is not None
            assert (told.event, told.data["stats"], told.data["age_s"]) == ("stats", {"vectors": 1}, 0)
            await gateway.happen(session_id, SessionEvent.END, SessionEvent.DESTROYED)
            assert what(await reader.next()) == ("state", "stopping")
            assert what(await reader.next()) == ("state", "stopped")
            end = await reader.next()
            assert end is not None
            assert (end.event, end.data["status"]) == ("end", "stopped")
            assert await reader.next() is None
        assert gateway.feed.open_streams == 0


async def test_a_lost_hint_costs_only_one_rereading() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        async with reading(gateway, f"/sessions/{session_id}/events") as reader:
            await reader.next()
            now = gateway.instants.now()
            await gateway.ledger.write(lambda c: records.transition(c, session_id, SessionEvent.NODE_READY, now))
            assert what(await reader.next()) == ("state", "active")


async def test_a_reader_goes_on_after_the_last_event_it_got() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        path = f"/sessions/{session_id}/events"
        async with reading(gateway, path) as reader:
            first = await reader.next()
            assert first is not None
        await gateway.happen(session_id, SessionEvent.NODE_READY, SessionEvent.DEGRADE, SessionEvent.RECOVER)
        resumed = gateway.auth("GET", path) | {"Last-Event-ID": first.id or ""}
        async with reading(gateway, path, resumed) as reader:
            assert [what(await reader.next()) for _ in range(3)] == [
                ("state", "active"),
                ("state", "degraded"),
                ("state", "active"),
            ]


async def test_a_reader_of_a_session_that_is_over_is_told_not_to_come_back() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        path = f"/sessions/{session_id}/events"
        await gateway.happen(session_id, SessionEvent.END, SessionEvent.DESTROYED)
        async with reading(gateway, path) as reader:
            last = await reader.next()
            assert what(last) == ("state", "stopped")
            assert last is not None
        done = await gateway.ask("GET", path, headers={"Last-Event-ID": last.id or ""})
        assert done.status_code == 204
        async with reading(gateway, path, gateway.auth("GET", path) | {"Last-Event-ID": "0"}) as reader:
            assert what(await reader.next()) == ("state", "payment_pending")


@pytest.mark.parametrize("last", ["-1", "x", "9" * 30, "", "1.5", "٣"])
async def test_an_unreadable_last_event_id_counts_as_none(last: str) -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        path = f"/sessions/{session_id}/events"
        async with reading(gateway, path, gateway.auth("GET", path) | {"Last-Event-ID": last}) as reader:
            assert what(await reader.next()) == ("state", "provisioning")


async def test_a_ticket_opens_the_stream_of_its_session_for_a_while() -> None:
    async with running_gateway() as gateway:
        session_id, other = [(await gateway.buy())["session_id"] for _ in range(2)]
        issued = (await gateway.ask("POST", f"/sessions/{session_id}/ticket")).json()
        assert issued["expires_in_s"] == LIFETIME_S
        async with reading(gateway, issued["url"], {}) as reader:
            assert what(await reader.next()) == ("state", "provisioning")
        for path in (f"/sessions/{other}/events?ticket={issued['ticket']}", f"/sessions/{session_id}/events?ticket=x"):
            assert_error(await gateway.client.get(gateway.url + path), 401, code="bad_ticket")
        gateway.clock.advance(LIFETIME_S + 1)
        assert_error(await gateway.client.get(gateway.url + issued["url"]), 401, code="bad_ticket")
        stolen = await gateway.ask("POST", f"/sessions/{session_id}/ticket", keypair=STRANGER)
        assert_error(stolen, 403)
        assert_error(await gateway.client.get(f"{gateway.url}/sessions/{session_id}/events"), 401, "Unauthorized.")


async def test_one_hotkey_cannot_hold_all_streams() -> None:
    async with running_gateway(http={"event_streams": 3}) as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/events"
        async with reading(gateway, path) as one, reading(gateway, path) as two, reading(gateway, path) as three:
            for reader in (one, two, three):
                await reader.next()
            full = await gateway.ask("GET", path)
            assert full.status_code == 503
            assert full.headers["Retry-After"]
    feed = EventFeed(open_inline(), per_reader=2)
    with feed.subscribe(b"a", "s"), feed.subscribe(b"a", "t"):
        with pytest.raises(StreamsFull), feed.subscribe(b"a", "s"):
            pass
        with feed.subscribe(b"b", "s"):
            assert feed.open_streams == 3
    assert feed.open_streams == 0
    assert STREAMS_PER_READER >= 2


async def test_a_feed_whose_ledger_fails_once_goes_on(autojump_clock: object) -> None:
    class Ledger:
        """Fails at the second reading."""

        def __init__(self) -> None:
            self.answers = iter([5, LedgerUnavailable("the disk"), {"s": 6}, {}, {}, {}, {}])

        async def read(self, _query: object) -> object:
            answer = next(self.answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def write(self, transaction: object) -> object:
            raise NotImplementedError

    feed = EventFeed(Ledger())  # type: ignore[arg-type]  # answers whatever is asked
    root = SupervisorSpec("root", (ChildSpec("feed", start=lambda: Job(feed.run)),))
    async with open_system(root) as system:
        with feed.subscribe(b"reader", "s") as subscription, trio.fail_after(10):
            await subscription.changed()
        assert [node.restarts for node in system.tree()] == [0, 0]


async def test_a_head_request_opens_no_stream() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/events"
        head = await gateway.ask("HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        with trio.fail_after(5):
            assert (await gateway.client.get(gateway.url + "/tiers")).status_code == 200
        assert gateway.feed.open_streams == 0


async def test_a_reader_that_leaves_frees_its_place() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/events"
        async with reading(gateway, path) as reader:
            await reader.next()
            assert gateway.feed.open_streams == 1
        with trio.fail_after(5):
            while gateway.feed.open_streams:
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_streams_end_when_the_gateway_stops() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/events"
        async with reading(gateway, path) as reader, trio.open_nursery() as nursery:
            await reader.next()
            with trio.fail_after(2):
                nursery.start_soon(gateway.system.stop)
                assert await reader.next() is None


async def test_a_reader_that_takes_nothing_costs_nothing() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        async with reading(gateway, f"/sessions/{session_id}/events") as reader:
            await reader.next()
            for number in range(2_000):
                gateway.stats.by_session[session_id] = TimedStats({"text": "x" * 2_000}, float(number))
                gateway.feed.poke(session_id)
                if number % 50 == 0:
                    await trio.lowlevel.checkpoint()
            told = 0
            with trio.move_on_after(1):
                while (event := await reader.next()) is not None:
                    told += event.event == "stats"
            assert 0 < told < 500


# Coming back with a ticket.


async def ticket_url(gateway: Gateway, session_id: str) -> str:
    return str((await gateway.ask("POST", f"/sessions/{session_id}/ticket")).json()["url"])


async def test_a_ticket_opens_one_stream() -> None:
    async with running_gateway() as gateway:
        url = await ticket_url(gateway, (await gateway.buy())["session_id"])
        assert (await gateway.client.head(gateway.url + url)).status_code == 200  # a look uses nothing up
        async with reading(gateway, url, {}) as reader:
            await reader.next()
            assert_error(await gateway.client.get(gateway.url + url), 401, code="bad_ticket")
        assert_error(await gateway.client.get(gateway.url + url), 401, code="bad_ticket")


async def test_a_reader_comes_back_with_the_id_it_saw_last_long_after_its_ticket_ended() -> None:
    """As EventSource does: to the URL of the used ticket, with Last-Event-ID."""
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        url = await ticket_url(gateway, session_id)
        last, seen = "", []
        for event in (SessionEvent.NODE_READY, SessionEvent.DEGRADE, SessionEvent.RECOVER):
            async with reading(gateway, url, {"Last-Event-ID": last} if last else {}) as reader:
                told = await reader.next()
                seen.append(what(told))
                assert told is not None
                last = told.id or ""
            await gateway.happen(session_id, event)
            gateway.clock.advance(RENEWAL_S - 1)
        assert seen == [("state", "provisioning"), ("state", "active"), ("state", "degraded")]
        gateway.clock.advance(1)
        late = await gateway.client.get(gateway.url + url, headers={"Last-Event-ID": last})
        assert_error(late, 401, code="bad_ticket")


async def test_a_reader_that_comes_back_and_hears_of_nothing_can_come_back_again() -> None:
    async with running_gateway() as gateway:
        url = await ticket_url(gateway, (await gateway.buy())["session_id"])
        async with reading(gateway, url, {}) as reader:
            told = await reader.next()
            assert told is not None
        last = told.id or ""
        for _ in range(3):
            async with reading(gateway, url, {"Last-Event-ID": last}) as reader:
                renewed = await reader.next_id()
                assert renewed.partition(".")[0] == last.partition(".")[0]
                assert renewed != last
                last = renewed


async def test_a_renewal_opens_again_until_a_later_one_was_used_and_ends_the_stream_before() -> None:
    async with running_gateway() as gateway:
        url = await ticket_url(gateway, (await gateway.buy())["session_id"])
        async with reading(gateway, url, {}) as first:
            told = await first.next()
            assert told is not None
            old = {"Last-Event-ID": told.id or ""}
            async with reading(gateway, url, old):  # its answer is lost on the way
                assert await first.next() is None
                async with reading(gateway, url, old) as third:
                    newer = {"Last-Event-ID": await third.next_id()}
            async with reading(gateway, url, newer):
                assert_error(await gateway.client.get(gateway.url + url, headers=old), 401, code="bad_ticket")


async def test_a_renewal_is_replaced_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.gateway.events.RENEW_EVERY_S", 0.05)
    async with running_gateway() as gateway:
        url = await ticket_url(gateway, (await gateway.buy())["session_id"])
        async with reading(gateway, url, {}) as reader:
            told = await reader.next()
            assert told is not None
            assert len({told.id, await reader.next_id(), await reader.next_id()}) == 3


async def test_a_new_ticket_goes_on_after_an_id_of_an_old_one() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        async with reading(gateway, await ticket_url(gateway, session_id), {}) as reader:
            told = await reader.next()
            assert told is not None
        await gateway.happen(session_id, SessionEvent.NODE_READY)
        for old in (told.id, (told.id or "").partition(".")[0]):
            url = f"{await ticket_url(gateway, session_id)}&last_event_id={old}"
            async with reading(gateway, url, {}) as reader:
                assert what(await reader.next()) == ("state", "active")


async def test_ids_of_a_signed_reader_are_the_historys_alone() -> None:
    async with running_gateway() as gateway:
        path = f"/sessions/{(await gateway.buy())['session_id']}/events"
        async with reading(gateway, path) as reader:
            told = await reader.next()
            assert told is not None
            assert (told.id or "").isdecimal()
