"""What a request takes before it is passed on: its address's rate and concurrency until the caller is proven, then its
key's, then one of the places; each is given back exactly once.
"""

from collections.abc import Callable, Hashable
from typing import Final, Literal, final

import trio

from engram.proxy.exchange.incoming import Incoming
from engram.proxy.exchange.refusing import Refusal
from engram.proxy.limits.holders import Holders, NoRoom, TooMany
from engram.proxy.limits.places import Places
from engram.proxy.limits.rates import FULL, Rates
from engram.proxy.limits.turnover import Turnover
from engram.proxy.settings.model import LimitSettings

Whose = Literal["address", "key"]

_FULL_RETRY_S: Final = 5.0


@final
class Slot:
    """A place in progress; `release` may be called again."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give it back."""
        release, self._release = self._release, None
        if release is not None:
            release()


@final
class Admission:
    """The limits of the proxy; their counters survive a change of settings."""

    def __init__(self, settings: LimitSettings) -> None:
        table = settings.callers
        self._settings = settings
        self.address_rates = Rates(settings.requests_per_minute_per_address, table)
        self.key_rates = Rates(settings.requests_per_minute_per_key, table)
        self.addresses = Holders(settings.concurrent_per_address, table)
        self.keys = Holders(settings.concurrent_per_key, table)
        self.places = Places(settings.concurrent, settings.queue)
        self._turnover = Turnover()

    def change(self, settings: LimitSettings) -> None:
        """Apply other limits from now on; what is counted stays counted, and the tables keep their size."""
        self._settings = settings
        self.address_rates.change(settings.requests_per_minute_per_address)
        self.key_rates.change(settings.requests_per_minute_per_key)
        self.addresses.limit = settings.concurrent_per_address
        self.keys.limit = settings.concurrent_per_key
        self.places.change(settings.concurrent, settings.queue)

    def count_address(self, request: Incoming) -> None:
        """Count a request for its address. Raises Refusal (rate, callers_full)."""
        _take(self.address_rates, request.bucket, "address")

    def enter_unproven(self, request: Incoming) -> Slot:
        """Let a request begin whose caller is not proven. Raises Refusal (concurrency, callers_full)."""
        return _enter(self.addresses, request.bucket, "address")

    def count_key(self, request: Incoming) -> None:
        """Count a request for its proven key. Raises Refusal (rate, callers_full)."""
        assert request.caller is not None
        _take(self.key_rates, request.caller, "key")

    def enter_key(self, request: Incoming) -> Slot:
        """Let a request begin that costs the miner work. Raises Refusal (concurrency, callers_full)."""
        assert request.caller is not None
        return _enter(self.keys, request.caller, "key")

    def place_now(self) -> Slot | None:
        """Take one of the places if one is free and no one waits for it."""
        return self._held() if self.places.take() else None

    def _held(self) -> Slot:
        began = trio.current_time()

        def give_back() -> None:
            self._turnover.note(trio.current_time() - began)
            self.places.give_back()

        return Slot(give_back)

    async def place(self, request: Incoming) -> Slot:
        """Take one of the places, waiting in the queue. Raises Refusal (queue_full, queue_late)."""
        if (slot := self.place_now()) is not None:
            return slot
        request.phase = "queue"
        admitted = trio.Event()
        waiter = self.places.wait(admitted.set)
        if waiter is None:
            raise Refusal("queue_full", "The miner is busy and its queue is full", retry_after_s=self._again_s())
        wait_s = self._settings.queue_s
        try:
            with trio.move_on_after(wait_s):
                await admitted.wait()
            if not waiter.admitted:
                detail = f"No place became free within {wait_s:g} s"
                raise Refusal("queue_late", detail, retry_after_s=self._again_s())
        except BaseException:  # a place may have been given in the same instant in which the wait was cancelled
            self.places.leave(waiter)
            raise
        return self._held()

    def _again_s(self) -> float:
        settings = self._settings
        return self._turnover.wait_s(self.places.waiting, settings.concurrent, settings.queue_s)


def _take(rates: Rates, caller: Hashable, whose: Whose) -> None:
    wait_s = rates.take(caller, trio.current_time())
    if wait_s == FULL:
        raise _no_room()
    if wait_s:
        raise Refusal(
            "rate",
            f"Too many requests of this {whose}",
            reason=f"rate_{whose}",
            retry_after_s=wait_s,
            extra={"retry_after_s": round(wait_s, 3)},
        )


def _enter(holders: Holders, caller: Hashable, whose: Whose) -> Slot:
    entered = holders.enter(caller, trio.current_time())
    match entered:
        case TooMany(limit, held, oldest_s):
            raise Refusal(
                "concurrency",
                f"Too many requests of this {whose} in progress",
                reason=f"concurrency_{whose}",
                retry_after_s=1,
                message=f"{held} requests of this {whose} are in progress, the oldest for {oldest_s:.1f} s "
                f"(at most {limit})",
                extra={"limit": limit, "in_progress": held, "oldest_s": round(oldest_s, 1)},
            )
        case NoRoom():
            raise _no_room()
        case ticket:
            return Slot(lambda: holders.leave(caller, ticket))


def _no_room() -> Refusal:
    return Refusal("callers_full", "The miner counts too many callers now", retry_after_s=_FULL_RETRY_S)
