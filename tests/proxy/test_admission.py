"""A place in the queue is given back whatever ends the wait for it."""

import pytest
import trio

from engram.proxy.exchange.admission import Admission
from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Refusal
from engram.proxy.settings.model import LimitSettings


def request() -> Incoming:
    scope = {"type": "http", "headers": [], "raw_path": b"/", "query_string": b"", "scheme": "http"}
    return Incoming(scope, None, None, "ab", "192.0.2.1", "192.0.2.1", 0.0)  # type: ignore[arg-type]


async def test_a_place_given_in_the_instant_in_which_its_waiter_is_cancelled_is_not_lost() -> None:
    admission = Admission(LimitSettings(concurrent=1, queue=1))
    slot = await admission.place(request())
    with trio.CancelScope() as waiting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(admission.place, request())
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel()
            slot.release()
    assert waiting.cancelled_caught
    assert (admission.places.taken, admission.places.waiting) == (0, 0)


async def test_a_wait_that_is_over_gives_its_place_in_the_queue_to_others(autojump_clock: trio.abc.Clock) -> None:
    admission = Admission(LimitSettings(concurrent=1, queue=1, queue_s=1.0))
    slot = await admission.place(request())
    for _ in range(2):
        with pytest.raises(Refusal, match="queue_late"):
            await admission.place(request())
    slot.release()
    assert (admission.places.taken, admission.places.waiting) == (0, 0)
