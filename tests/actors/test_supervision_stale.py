"""Events that come too late, or while the supervisor is busy or over: nothing of it is left to chance."""

from __future__ import annotations

from typing import Any

import pytest

from actors import SHUTDOWN, ExitReason, SupervisorSpec
from actors._supervision import (
    Action,
    AnswerRequest,
    AskStop,
    Boot,
    ChildStatus,
    End,
    Event,
    Exited,
    Ignored,
    Kill,
    KillChild,
    Phase,
    Shutdown,
    Started,
    StartFailed,
    StopChild,
    StopTimer,
    SupervisorState,
    Withdraw,
    decide,
    new_state,
)
from tests.actors.test_supervision import CRASH, spec


def after(strategy: Any, *events: Event) -> SupervisorState:
    """Two children, a (serial 1) and b (serial 2), both started; then `events`."""
    state = new_state(SupervisorSpec("s", [spec("a"), spec("b")], strategy))
    for event in (Boot(), Started("a", 1, 0.0), Started("b", 2, 0.0), *events):
        state, _ = decide(state, event)
    return state


def given(state: SupervisorState, event: Event) -> list[Action]:
    return decide(state, event)[1]


def over() -> SupervisorState:
    state = after("one_for_one", Shutdown(), Exited("b", 2, SHUTDOWN, 1.0), Exited("a", 1, SHUTDOWN, 1.0))
    assert state.phase is Phase.ENDED
    return state


@pytest.mark.parametrize("event", [Shutdown(), Kill()], ids=lambda event: type(event).__name__)
def test_a_supervisor_that_is_over_is_not_stopped_again(event: Event) -> None:
    assert given(over(), event) == []


def test_a_supervisor_that_is_stopping_is_not_asked_twice() -> None:
    assert given(after("one_for_one", Shutdown()), Shutdown(ExitReason("shutdown", "again"))) == []


@pytest.mark.parametrize(
    "event",
    [Started("a", 7, 1.0), Ignored("a", 7), StartFailed("a", 7, CRASH, 1.0), Exited("a", 7, CRASH, 1.0)],
    ids=lambda event: type(event).__name__,
)
def test_reports_of_another_life_change_nothing(event: Event) -> None:
    state = after("one_for_one")
    assert given(state, event) == []
    assert [child.status for child in state.children.values()] == [ChildStatus.RUNNING, ChildStatus.RUNNING]


def test_a_kill_is_for_those_that_run() -> None:
    state = after("one_for_one", StopChild(1, "b"), Exited("b", 2, SHUTDOWN, 1.0))
    assert given(state, Kill()) == [AskStop("a"), StopTimer("a", 1, 5), KillChild("a")]
    assert End(ExitReason("killed")) in given(state, Exited("a", 1, ExitReason("killed"), 2.0))


def test_an_end_answers_the_held_requests_and_drops_the_held_reports() -> None:
    # The crash of a starts a group restart that waits for b; meanwhile z, before them, ends and a request comes.
    state = new_state(SupervisorSpec("s", [spec("z"), spec("a"), spec("b")], "one_for_all"))
    up: list[Event] = [Boot(), Started("z", 1, 0.0), Started("a", 2, 0.0), Started("b", 3, 0.0)]
    held: list[Event] = [Exited("a", 2, CRASH, 1.0), Exited("z", 1, CRASH, 1.0), StopChild(1, "a")]
    for event in up + held:
        state, _ = decide(state, event)
    assert len(state.backlog) == 2
    assert AnswerRequest(1, "down", "a") in given(state, Shutdown())
    assert not state.backlog


def test_of_the_held_requests_only_the_withdrawn_one_goes() -> None:
    state = after("one_for_all", Exited("a", 1, CRASH, 1.0), StopChild(1, "a"), StopChild(2, "a"))
    assert given(state, Withdraw(2)) == []
    assert list(state.backlog) == [StopChild(1, "a")]


def test_a_start_that_declines_while_the_supervisor_stops_moves_no_plan() -> None:
    state = new_state(SupervisorSpec("s", [spec("a"), spec("b")], "one_for_all"))
    for event in (Boot(), Started("a", 1, 0.0), Shutdown()):
        state, _ = decide(state, event)
    assert given(state, Ignored("b", 2))
    assert state.phase is Phase.ENDING
