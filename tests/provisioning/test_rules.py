"""The saga's decisions, driven at random against a model of what the world may do."""

from typing import assert_never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning import rules
from engram.provisioning.rules import Effect, Facts, Outcome, Saga
from engram.sessions import TERMINAL, SessionState

LIMIT = 3


class World:
    """The ledger and the backend, as far as a saga sees them; checks every step on the way."""

    def __init__(self, state: SessionState, *, row: bool, runs: bool, attempts: int) -> None:
        self.state, self.row, self.runs, self.attempts = state, row, runs, attempts

    def facts(self) -> Facts:
        return Facts(self.state, self.row, self.attempts)

    def perform(self, step: Effect, luck: str, stop: bool) -> Facts | Outcome:
        if stop and self.state in (SessionState.PROVISIONING, SessionState.ACTIVE, SessionState.DEGRADED):
            self.state = SessionState.STOPPING
        match step:
            case Effect.REREAD:
                return self.facts()
            case Effect.PLAN:
                return self._plan(luck)
            case Effect.LAUNCH:
                assert self.row, "a launch is committed before it is made"
                if luck in ("refused", "rejected"):
                    return Outcome(luck)
                self.runs = self.runs or luck != "unanswered"
                return Outcome.UNANSWERED if luck == "unanswered" else Outcome.DONE
            case Effect.AWAIT_HEALTH | Effect.INSPECT:
                return Outcome.DONE if luck == "done" and self.runs else Outcome.UNHEALTHY
            case Effect.SERVE:
                return self._move({SessionState.PROVISIONING, SessionState.DEGRADED}, SessionState.ACTIVE)
            case Effect.DEGRADE:
                return self._move({SessionState.ACTIVE}, SessionState.DEGRADED)
            case Effect.STOP_NODE:
                assert self.state is not SessionState.PROVISIONING
                return self._end_node(luck, keep_row=True)
            case Effect.DESTROY:
                assert self.row, "only a node that was committed to is destroyed"
                return self._end_node(luck, keep_row=False)
            case Effect.GIVE_UP:
                assert not self.row, "nobody gives up while a node may run"
                assert self.attempts >= LIMIT or luck, "attempts are used up, or launching is hopeless"
                return self._move({SessionState.PROVISIONING}, SessionState.FAILED)
            case Effect.FINISH:
                assert not self.row, "a session is over only when no node is left"
                return self._move({SessionState.STOPPING}, SessionState.STOPPED)
            case Effect.WAIT:
                return Outcome.DONE
            case _:
                assert_never(step)

    def _plan(self, luck: str) -> Outcome:
        assert not self.row, "one node at a time"
        if self.state not in (SessionState.PROVISIONING, SessionState.DEGRADED):
            return Outcome.LOST
        assert self.attempts < LIMIT or self.state is SessionState.DEGRADED
        if luck != "done":
            return Outcome.REFUSED
        self.row, self.attempts = True, self.attempts + 1
        return Outcome.DONE

    def _move(self, before: set[SessionState], after: SessionState) -> Outcome:
        if self.state not in before:
            return Outcome.DONE if after is SessionState.ACTIVE and self.state is after else Outcome.LOST
        self.state = after
        return Outcome.DONE

    def _end_node(self, luck: str, *, keep_row: bool) -> Outcome:
        if luck == "unanswered":
            return Outcome.UNANSWERED
        self.runs, self.row = False, keep_row
        return Outcome.DONE


LUCK = st.sampled_from(["done", "refused", "rejected", "unanswered"])


@given(
    st.sampled_from(SessionState),
    st.booleans(),
    st.booleans(),
    st.integers(0, LIMIT),
    st.lists(st.tuples(LUCK, st.integers(0, 15).map(lambda n: n == 0)), max_size=60),
)
def test_whatever_the_world_does_the_saga_ends_where_it_should(
    state: SessionState, row: bool, runs: bool, attempts: int, tape: list[tuple[str, bool]]
) -> None:
    world = World(state, row=row, runs=row and runs, attempts=attempts)
    saga, step = rules.begin(LIMIT), Effect.REREAD
    fates = iter(tape)
    for _ in range(400):
        luck, stop = next(fates, ("done", False))
        saga, following = rules.decide(saga, world.perform(step, luck, stop))
        assert saga.failures >= 0
        if following is None:
            break
        assert saga.doing is following
        step = following
    else:
        pytest.fail("a world that behaves from some moment on is brought to an end")
    assert world.state not in (SessionState.PROVISIONING, SessionState.STOPPING, SessionState.DEGRADED)
    if world.state in TERMINAL:
        assert not world.row
        assert not world.runs
    if world.state is SessionState.ACTIVE:
        assert world.runs


def test_a_launch_that_is_rejected_is_undone_and_given_up_at_once() -> None:
    saga = Saga(Facts(SessionState.PROVISIONING, node=True, attempts=1), LIMIT, doing=Effect.LAUNCH)
    saga, step = rules.decide(saga, Outcome.REJECTED)
    assert step is Effect.DESTROY
    _, step = rules.decide(saga, Facts(SessionState.PROVISIONING, node=False, attempts=1))
    assert step is Effect.GIVE_UP
    planning = Saga(Facts(SessionState.PROVISIONING, node=False, attempts=0), LIMIT, doing=Effect.PLAN)
    assert rules.decide(planning, Outcome.REJECTED)[1] is Effect.REREAD


def test_a_running_session_is_never_destroyed_by_failures() -> None:
    for outcome in Outcome:
        saga = Saga(Facts(SessionState.DEGRADED, node=True, attempts=1), LIMIT, doing=Effect.LAUNCH)
        for _ in range(30):
            saga, step = rules.decide(saga, outcome)
            assert step is not Effect.DESTROY
            assert step is not Effect.GIVE_UP
            saga = Saga(saga.facts, LIMIT, doing=Effect.LAUNCH, failures=saga.failures)


def test_a_backend_that_never_answers_is_asked_only_so_often() -> None:
    saga = Saga(Facts(SessionState.PROVISIONING, node=True, attempts=1), LIMIT, doing=Effect.LAUNCH, failures=9)
    assert rules.decide(saga, Outcome.UNANSWERED)[1] is Effect.DESTROY
    planning = Saga(Facts(SessionState.PROVISIONING, node=False, attempts=1), LIMIT, doing=Effect.PLAN, failures=9)
    after, step = rules.decide(planning, Outcome.REFUSED)
    assert step is Effect.REREAD
    assert rules.decide(after, after.facts)[1] is Effect.GIVE_UP


def test_waits_grow_to_a_bound() -> None:
    waits = [rules.wait_s(failures) for failures in range(12)]
    assert waits == sorted(waits)
    assert waits[0] == 0.0
    assert waits[-1] == 30.0
