"""Every number that reaches a shared timer is refused where it is given, and what is taken hurts nobody."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from actors import (
    Backoff,
    CallTimeout,
    ChildSpec,
    Context,
    EventStream,
    Intensity,
    MailboxPolicy,
    Registry,
    SupervisorSpec,
    UnreachableIntensity,
    open_system,
)
from actors.testing import settle
from tests.actors.messages import Add, Counter, Ping, Sleep

NAN, INF = math.nan, math.inf
NEVER: list[object] = [NAN, -NAN, -INF, -1.0, -5e-324, True, False, "1", None, 1 + 0j]
TOO_MUCH: list[object] = [INF, 10**400]

# name -> (what is given the number, further values that it refuses, values that it takes)
SPECS: dict[str, tuple[Callable[[Any], object], list[object], list[object]]] = {
    "shutdown": (lambda n: ChildSpec("a", Counter, shutdown=n), TOO_MUCH, [0, 0.0, 1e-320, 1e308]),
    "shutdown of a supervisor": (lambda n: SupervisorSpec("a", shutdown=n), [None, *TOO_MUCH], [0, 1e308]),
    "restarts": (lambda n: Intensity(n, 1.0), [1.5, *TOO_MUCH[:1]], [0, 1]),
    "period_s": (lambda n: Intensity(1, n), [0, 0.0, *TOO_MUCH], [1e-320, 1e308]),
    "min_s": (lambda n: Backoff(n, 1e308), [0, *TOO_MUCH], [1e-320, 1e308]),
    "max_s": (lambda n: Backoff(1e-320, n), [0, *TOO_MUCH], [1e-320, 1e308]),
    "factor": (lambda n: Backoff(1, 2, factor=n), [0.5, *TOO_MUCH], [1, 1e308]),
    "jitter": (lambda n: Backoff(1, 2, jitter=n), [1.5, *TOO_MUCH], [0, 1]),
    "reset_after_s": (lambda n: Backoff(1, 2, reset_after_s=n), TOO_MUCH, [None, 0, 1e308]),
    "bound": (lambda n: MailboxPolicy(bound=n), [0, 1.5, INF], [1]),
    "max_children": (lambda n: SupervisorSpec("a", strategy="dynamic", max_children=n), [1.5, INF], [None, 0]),
    "bound of a subscription": (lambda n: EventStream().subscribe(n).__enter__(), [0, 1.5, INF], [1]),
}
TAKES_NONE = ("shutdown", "reset_after_s", "max_children")


@pytest.mark.parametrize("field", SPECS)
def test_a_number_that_is_none_is_refused_where_it_is_given(field: str) -> None:
    give, refused, taken = SPECS[field]
    for number in [*NEVER, *refused]:
        if number is None and field in TAKES_NONE:
            continue
        with pytest.raises(ValueError, match=r"\S"):
            give(number)
    for number in taken:
        give(number)


CONTEXT: dict[str, tuple[Callable[[Context, Any], object], list[object]]] = {
    "after": (lambda context, n: context.after(n, Ping()), TOO_MUCH),
    "every": (lambda context, n: context.every(n, Ping()), [0, 0.0, *TOO_MUCH]),
    "jitter": (lambda context, n: context.every(1.0, Ping(), jitter=n), [1.5, *TOO_MUCH]),
}


@pytest.mark.parametrize("field", CONTEXT)
async def test_a_timer_that_is_refused_leaves_the_timers_of_everybody_alone(
    autojump_clock: MockClock, field: str
) -> None:
    give, refused = CONTEXT[field]
    contexts: list[Context] = []

    class Holder(Counter):
        async def on_start(self, context: Context) -> None:
            contexts.append(context)

    registry = Registry()
    children = [ChildSpec("a", Holder, name="a"), ChildSpec("b", Counter, name="b")]
    async with open_system(SupervisorSpec("root", children), registry=registry) as system:
        before = len(system.timers)
        for number in [*NEVER, *refused]:
            with pytest.raises(ValueError, match=rf"{field}.* wanted"):
                give(contexts[0], number)
            assert len(system.timers) == before
        with pytest.raises(CallTimeout):
            await registry.ref(Counter, "b").call(Sleep(10), timeout=1)


@pytest.mark.parametrize("number", [*NEVER, 10**400])
async def test_a_timeout_that_is_none_is_refused_and_nothing_is_sent(autojump_clock: MockClock, number: Any) -> None:
    registry = Registry()
    ref = registry.ref(Counter, "a")
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Counter, name="a")]), registry=registry) as system:
        ref.tell(Sleep(2))
        lanes = (1.0, 0.0)  # a bool is equal to each
        async with trio.open_nursery() as nursery:
            for timeout in lanes:
                nursery.start_soon(_expires, ref, timeout)
            await settle()
            with pytest.raises(ValueError, match="timeout is"):
                await ref.call(Add(1), timeout=number)
        assert await ref.call(Add(1)) == 1
        assert await ref.call(Add(1), timeout=math.inf) == 2
        assert system.tree()[1].mailbox_depth == 0


async def test_calls_with_whole_seconds_expire_each(autojump_clock: MockClock) -> None:
    registry = Registry()
    ref = registry.ref(Counter, "a")
    async with open_system(SupervisorSpec("root", [ChildSpec("a", Counter, name="a")]), registry=registry):
        ref.tell(Sleep(100))
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(_expires, ref, 1)
        assert trio.current_time() - began == 1


async def _expires(ref: Any, timeout: float) -> None:
    with pytest.raises(CallTimeout):
        await ref.call(Ping(), timeout=timeout)


@pytest.mark.parametrize("seconds", [1e-320, 5e-324, 1e-12])
async def test_a_timer_of_no_length_leaves_others_their_turn(autojump_clock: MockClock, seconds: float) -> None:
    class Racing(Counter):
        async def on_start(self, context: Context) -> None:
            context.every(seconds, Add(1), jitter=1.0)

    registry = Registry()
    children = [ChildSpec("a", Racing), ChildSpec("b", Counter, name="b")]
    async with open_system(SupervisorSpec("root", children), registry=registry):
        for total in range(1, 50):
            assert await registry.ref(Counter, "b").call(Add(1)) == total


POSITIVE = st.floats(min_value=5e-324, max_value=1.7e308)


@given(
    st.tuples(POSITIVE, POSITIVE).map(sorted),
    st.floats(min_value=1.0, max_value=1.7e308),
    st.floats(0, 1),
    st.integers(0, 10**9),
    st.floats(0, 1, exclude_max=True),
)
def test_every_backoff_that_is_taken_waits_from_0_to_its_maximum(
    between: list[float], factor: float, jitter: float, attempt: int, roll: float
) -> None:
    delay_s = Backoff(between[0], between[1], factor=factor, jitter=jitter).delay_s(attempt, roll)
    assert 0 <= delay_s <= between[1]


UNREACHABLE = Backoff(1, 60)
GIVEN: dict[str, Callable[[], object]] = {
    "with an intensity of its own": lambda: ChildSpec("a", Counter, backoff=UNREACHABLE, intensity=Intensity()),
    "as the only child": lambda: SupervisorSpec("s", [ChildSpec("a", Counter, backoff=UNREACHABLE)]),
    "disabled alone": lambda: SupervisorSpec(
        "s", [ChildSpec("b", Counter), ChildSpec("a", Counter, backoff=UNREACHABLE, on_exceed="disable")]
    ),
}


@pytest.mark.parametrize("way", GIVEN)
def test_a_backoff_that_makes_the_intensity_unreachable_warns_where_it_is_given(way: str) -> None:
    with pytest.warns(UnreachableIntensity, match="'a' never exceeds 3 restarts in 5 s"):
        GIVEN[way]()


def test_an_intensity_that_can_be_reached_or_means_no_limit_warns_of_nothing(
    recwarn: pytest.WarningsRecorder,
) -> None:
    ChildSpec("a", Counter, backoff=UNREACHABLE, intensity=Intensity(3, 60))
    ChildSpec("a", Counter, backoff=UNREACHABLE, intensity=Intensity(1_000_000, 1))
    assert [str(warning.message) for warning in recwarn] == []
