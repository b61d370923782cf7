"""The saga's decisions, driven at random against a model of what the world may do."""

from typing import assert_never

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning import rules
from engram.provisioning.rules import Effect, Facts, Outcome, Saga
from engram.sessions import TERMINAL, SessionState

pytestmark = pytest.mark.rules

LIMIT = 3


class World:
    """The ledger and the backend, as far as a saga sees them; checks every step on the way."""

    def __init__(self, state: SessionState, *, row: bool, runs: bool, attempts: int) -> None:
        self.state, self.row, self.runs, self.attempts = state, row, runs, attempts
        self.unsent = False

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
                if luck == "unreached" and not self.unsent:
                    luck = "unanswered"
                if luck in ("refused", "rejected", "unreached"):
                    return Outcome(luck)
                self.unsent = False
                self.runs = self.runs or luck != "unanswered"
                return Outcome.UNANSWERED if luck == "unanswered" else Outcome.DONE
            case Effect.AWAIT_HEALTH | Effect.INSPECT:
                return Outcome.DONE if luck == "done" and self.runs else Outcome.UNHEALTHY
            case Effect.SERVE:
                return self._move({SessionState.PROVISIONING, SessionState.DEGRADED}, SessionState.ACTIVE)
            case Effect.DEGRADE:
                return self._move({SessionState.ACTIVE}, SessionState.DEGRADED)
            case Effect.WITHDRAW:
                assert self.row
                assert self.unsent, "only a launch that was never sent is withdrawn"
                self.row, self.attempts = False, self.attempts - 1
                return Outcome.DONE
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
        self.row, self.attempts, self.unsent = True, self.attempts + 1, True
        return Outcome.DONE

    def _move(self, before: set[SessionState], after: SessionState) -> Outcome:
        if self.state not in before:
            return Outcome.DONE if after is SessionState.ACTIVE and self.state is after else Outcome.LOST
        self.state = after
        return Outcome.DONE

    def _end_node(self, luck: str, *, keep_row: bool) -> Outcome:
        if luck in ("unanswered", "unreached"):
            return Outcome.UNANSWERED
        self.runs, self.row = False, keep_row
        return Outcome.DONE


LUCK = st.sampled_from(["done", "refused", "rejected", "unanswered", "unreached"])


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


def test_a_launch_that_was_never_sent_is_withdrawn_so_that_another_backend_may_have_it() -> None:
    saga = Saga(Facts(SessionState.PROVISIONING, node=True, attempts=1), LIMIT, doing=Effect.LAUNCH)
    saga, step = rules.decide(saga, Outcome.UNREACHED)
    assert step is Effect.WITHDRAW
    assert rules.decide(saga, Outcome.DONE)[1] is Effect.REREAD


def test_waits_grow_to_a_bound() -> None:
    assert [rules.wait_s(failures) for failures in range(9)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0]
    assert rules.wait_s(1_000) == 30.0


STEPS = """
payment_pending  none   -
payment_pending  there  -
provisioning     none   plan
provisioning     there  launch
active           none   degrade
active           there  inspect
degraded         none   plan
degraded         there  launch
stopping         none   finish
stopping         there  destroy
stopped          none   -
stopped          there  destroy
expired          none   -
expired          there  destroy
failed           none   -
failed           there  destroy
"""
"""Session, node, and the next step."""


@pytest.mark.parametrize("row", STEPS.strip().splitlines())
def test_the_next_step_follows_from_the_facts(row: str) -> None:
    session, node, step = row.split()
    facts = Facts(SessionState(session), node == "there", attempts=LIMIT - 1)
    saga, taken = rules.decide(rules.begin(LIMIT), facts)
    assert (saga.facts, taken or "-") == (facts, step)
    assert saga.doing == (step if taken else Effect.REREAD)


def test_every_state_has_its_steps() -> None:
    assert {row.split()[0] for row in STEPS.strip().splitlines()} == set(SessionState)


@pytest.mark.parametrize(
    ("attempts", "hopeless", "step"),
    [(LIMIT - 1, False, "plan"), (LIMIT, False, "give_up"), (LIMIT + 1, False, "give_up"), (0, True, "give_up")],
)
def test_a_first_launch_is_given_up_after_the_limit_or_when_it_is_hopeless(
    attempts: int, hopeless: bool, step: str
) -> None:
    saga = msgspec.structs.replace(rules.begin(LIMIT), hopeless=hopeless)
    assert rules.decide(saga, Facts(SessionState.PROVISIONING, node=False, attempts=attempts))[1] == step
    assert rules.decide(saga, Facts(SessionState.DEGRADED, node=False, attempts=attempts))[1] == "plan"


AFTER_DONE = {
    "plan": "launch",
    "launch": "await_health",
    "await_health": "serve",
    "serve": None,
    "inspect": None,
    "degrade": "reread",
    "withdraw": "reread",
    "stop_node": "wait",
    "destroy": "reread",
    "give_up": None,
    "finish": None,
    "wait": "reread",
    "reread": "reread",
}
"""What follows a step that worked."""


def saga_doing(step: Effect, state: SessionState, failures: int = 0) -> Saga:
    return Saga(Facts(state, node=True, attempts=1), LIMIT, doing=step, failures=failures)


@pytest.mark.parametrize("step", Effect)
@pytest.mark.parametrize("state", [SessionState.PROVISIONING, SessionState.ACTIVE, SessionState.DEGRADED])
def test_what_follows_a_step_that_worked(step: Effect, state: SessionState) -> None:
    before = saga_doing(step, state)
    after, following = rules.decide(before, Outcome.DONE)
    assert following == AFTER_DONE[step]
    assert after == msgspec.structs.replace(before, doing=following or step)


def test_a_launch_that_failed_is_waited_for_once_it_is_undone() -> None:
    assert rules.decide(saga_doing(Effect.DESTROY, SessionState.PROVISIONING, 1), Outcome.DONE)[1] is Effect.WAIT
    assert rules.decide(saga_doing(Effect.DESTROY, SessionState.STOPPING, 1), Outcome.DONE)[1] is Effect.REREAD


def failed(step: Effect, outcome: Outcome, *, first: bool) -> tuple[str, int, bool]:
    """Step, failures in a row and whether there is no hope, after a step that did not work."""
    match outcome, step:
        case Outcome.LOST, _:
            return "reread", 0, False
        case Outcome.UNREACHED, Effect.LAUNCH:
            return "withdraw", 1, False
        case Outcome.UNHEALTHY, Effect.INSPECT:
            return "degrade", 0, False
        case Outcome.UNHEALTHY, _:
            return "destroy" if first else "stop_node", 1, False
        case Outcome.REJECTED, Effect.LAUNCH if first:
            return "destroy", 1, True
        case Outcome.REJECTED, _ if first:
            return "reread", 1, True
        case Outcome.REFUSED, Effect.LAUNCH if first:
            return "destroy", 1, False
        case _:
            return "wait", 1, False


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.DONE])
@pytest.mark.parametrize("step", Effect)
@pytest.mark.parametrize("state", [SessionState.PROVISIONING, SessionState.DEGRADED])
def test_what_follows_a_step_that_did_not_work(state: SessionState, step: Effect, outcome: Outcome) -> None:
    after, following = rules.decide(saga_doing(step, state), outcome)
    expected = failed(step, outcome, first=state is SessionState.PROVISIONING)
    assert (following, after.failures, after.hopeless) == expected
    assert after.doing is following


@pytest.mark.parametrize(
    ("step", "outcome", "state", "failures", "following", "left", "hopeless"),
    [
        ("launch", "unanswered", "provisioning", 8, "wait", 9, False),
        ("launch", "unanswered", "provisioning", 9, "destroy", 0, False),
        ("launch", "unanswered", "provisioning", 10, "destroy", 0, False),
        ("launch", "unanswered", "degraded", 9, "wait", 10, False),
        ("plan", "unanswered", "provisioning", 9, "wait", 10, False),
        ("plan", "refused", "provisioning", 8, "wait", 9, False),
        ("plan", "refused", "provisioning", 9, "reread", 10, True),
        ("plan", "refused", "degraded", 9, "wait", 10, False),
        ("stop_node", "refused", "provisioning", 9, "wait", 10, False),
    ],
)
def test_ten_steps_in_a_row_that_bring_nothing_end_a_first_launch(
    step: str, outcome: str, state: str, failures: int, following: str, left: int, hopeless: bool
) -> None:
    saga = saga_doing(Effect(step), SessionState(state), failures)
    after, taken = rules.decide(saga, Outcome(outcome))
    assert (taken, after.failures, after.hopeless) == (following, left, hopeless)


def test_a_saga_begins_by_reading_and_knows_nothing() -> None:
    assert rules.begin(LIMIT) == Saga(Facts(SessionState.PAYMENT_PENDING, node=False, attempts=0), LIMIT)
    assert Saga(rules.begin(LIMIT).facts, LIMIT) == Saga(
        rules.begin(LIMIT).facts, LIMIT, doing=Effect.REREAD, failures=0, hopeless=False
    )
