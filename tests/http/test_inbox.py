import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engram.http.inbox import Inbox

PART = {"type": "http.request", "body": b"x", "more_body": True}
GONE = {"type": "http.disconnect"}


async def test_messages_come_in_order_and_then_for_ever_the_end() -> None:
    inbox = Inbox()
    for body in (b"1", b"2"):
        await inbox.put({**PART, "body": body})
    await inbox.put(GONE)
    assert [(await inbox.receive()).get("body") for _ in range(4)] == [b"1", b"2", None, None]


async def test_a_full_queue_holds_its_writer_up_until_there_is_room(nursery: trio.Nursery) -> None:
    inbox, written = Inbox(), 0

    async def write() -> None:
        nonlocal written
        for _ in range(40):
            await inbox.put(PART)
            written += 1

    nursery.start_soon(write)
    await wait_all_tasks_blocked()
    assert written == 16
    for _ in range(40):
        assert await inbox.receive() == PART
    await wait_all_tasks_blocked()
    assert written == 40


async def test_the_end_never_waits_behind_a_full_queue_and_frees_the_writer(nursery: trio.Nursery) -> None:
    """On a memory channel both sides wait for ever: the application for nothing, the connection for room."""
    inbox, freed = Inbox(), trio.Event()

    async def write() -> None:
        for _ in range(100):
            await inbox.put(PART)
        freed.set()

    nursery.start_soon(write)
    await wait_all_tasks_blocked()
    with trio.fail_after(1):
        await inbox.put(GONE)
        await freed.wait()
    received = [await inbox.receive() for _ in range(17)]
    assert received[-1] == GONE


async def test_a_reader_waits_for_what_comes(nursery: trio.Nursery) -> None:
    inbox, received = Inbox(), list[object]()

    async def read() -> None:
        received.append(await inbox.receive())

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert received == []
    await inbox.put(GONE)
    await wait_all_tasks_blocked()
    assert received == [GONE]


@pytest.mark.parametrize("message", [PART, GONE])
async def test_what_comes_after_the_end_is_dropped(message: dict[str, object]) -> None:
    inbox = Inbox()
    await inbox.put(GONE)
    await inbox.put(message)
    assert await inbox.receive() == GONE


async def test_a_body_that_is_all_there_is_one_message() -> None:
    inbox = Inbox()
    await inbox.put({**PART})
    await inbox.put({"type": "http.request", "body": b"", "more_body": False})
    assert await inbox.receive() == {**PART, "more_body": False}


async def test_a_message_that_is_no_part_of_a_body_is_never_taken_for_its_end() -> None:
    inbox = Inbox()
    for kind in ("websocket.connect", "websocket.receive", "websocket.disconnect"):
        await inbox.put({"type": kind})
    assert [(await inbox.receive())["type"] for _ in range(3)] == [
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
    ]
