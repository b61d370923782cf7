"""The decision core on its own: every order of events, stale ones too, keeps the invariants; then single rules."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import KILLED, NORMAL, SHUTDOWN, Backoff, ChildSpec, ExitReason, Intensity, Job, SupervisorSpec
from actors._supervision import (
    Action,
    AnswerRequest,
    AskStop,
    Boot,
    Booted,
    BootFailed,
    ChildStatus,
    CloseMailbox,
    DeleteChild,
    Disabled,
    End,
    Event,
    Exited,
    Forget,
    GivingUp,
    Ignored,
    Kill,
    KillChild,
    Phase,
    RestartChild,
    RetryAfter,
    RetryDue,
    Shutdown,
    Start,
    StartChild,
    Started,
    StartFailed,
    StopChild,
    StopTimedOut,
    StopTimer,
    SupervisorState,
    Withdraw,
    decide,
    new_state,
)
from tests.sampling import NIGHTLY

# What is random or small here is not meant for a program.
pytestmark = [pytest.mark.rules, pytest.mark.filterwarnings("ignore::actors.UnreachableIntensity")]

CRASH = ExitReason("crashed", error=ValueError("x"))


def _nothing() -> Job:
    raise NotImplementedError


def spec(name: str, **options: Any) -> ChildSpec:
    return ChildSpec(name, _nothing, **options)


class Shell:
    """Performs actions by remembering what must be answered, and answers in any order."""

    def __init__(self, supervisor: SupervisorSpec) -> None:
        self.state: SupervisorState = new_state(supervisor)
        self.actions: list[Action] = []
        self.now = 0.0
        self.live: dict[str, int] = {}
        """Serial of each life that has not ended."""
        self.starting: set[str] = set()
        self.told: set[str] = set()
        self.due: list[Event] = []
        self.open: set[int] = set()
        self.asked = 0
        self.ended: list[End] = []
        self.outcomes: list[Action] = []

    def feed(self, event: Event) -> list[Action]:
        self.state, actions = decide(self.state, event)
        for action in actions:
            self._perform(action)
        alive = (ChildStatus.STARTING, ChildStatus.RUNNING, ChildStatus.STOPPING)
        assert self.state.alive == sum(child.status in alive for child in self.state.children.values())
        for name, serial in self.live.items():
            child = self.state.children[name]
            assert child.serial == serial
            assert child.status in alive
        if self.state.phase is Phase.ENDED:
            assert not self.live
            assert len(self.ended) == 1
            assert {child.status for child in self.state.children.values()} <= {
                ChildStatus.STOPPED,
                ChildStatus.DISABLED,
            }
        self.actions.extend(actions)
        return actions

    def _perform(self, action: Action) -> None:
        match action:
            case Start(name, serial):
                assert name not in self.live, "two lives of one child"
                self.live[name] = serial
                self.starting.add(name)
                self.told.discard(name)
            case AskStop(name) | KillChild(name):
                assert name in self.live
                self.told.add(name)
            case StopTimer(name, serial, seconds):
                self.due.append(StopTimedOut(name, serial, seconds))
            case RetryAfter(name, serial, _):
                self.due.append(RetryDue(name, serial, 0.0))
            case AnswerRequest(request, _, _):
                assert isinstance(request, int)
                assert request in self.open, "answered twice"
                self.open.discard(request)
            case End():
                assert not self.ended
                self.ended.append(action)
            case CloseMailbox(name, _) | Forget(name, _):
                assert name not in self.live
            case Disabled() | GivingUp() | Booted() | BootFailed():
                self.outcomes.append(action)

    def finish(self, name: str, event: Event) -> list[Action]:
        """The life is over."""
        del self.live[name]
        self.starting.discard(name)
        return self.feed(event)

    def start(self, name: str) -> list[Action]:
        """Acknowledges its start."""
        self.starting.discard(name)
        return self.feed(Started(name, self.live[name], self.now))

    def exit(self, name: str, reason: ExitReason = CRASH) -> list[Action]:
        """It ends."""
        return self.finish(name, Exited(name, self.live[name], reason, self.now))

    def fail(self, name: str) -> list[Action]:
        """Its start fails."""
        return self.finish(name, StartFailed(name, self.live[name], CRASH, self.now))

    def request(self, make: Any, subject: Any) -> int:
        """Makes a request and returns its token."""
        self.asked += 1
        self.open.add(self.asked)
        self.feed(make(self.asked, subject))
        return self.asked

    def verdict(self, token: int) -> str | None:
        """What it was answered with."""
        found = [
            action.verdict for action in self.actions if isinstance(action, AnswerRequest) and action.request == token
        ]
        return found[0] if found else None

    def boot(self) -> Shell:
        """Boots and acknowledges every start."""
        self.feed(Boot())
        while self.starting:
            self.start(next(iter(self.starting)))
        return self


def random_spec(rng: random.Random) -> SupervisorSpec:
    strategy: Any = rng.choice(["one_for_one", "one_for_all", "rest_for_one", "dynamic"])
    auto: Any = "never" if strategy == "dynamic" else rng.choice(["never", "any_significant", "all_significant"])
    children = [] if strategy == "dynamic" else [random_child(rng, f"c{n}", auto) for n in range(rng.randrange(5))]
    limit = rng.choice([None, 2]) if strategy == "dynamic" else None
    intensity = Intensity(rng.choice([0, 1, 3, 1000]), rng.choice([0.5, 10.0]))
    return SupervisorSpec("s", children, strategy, intensity, auto_shutdown=auto, max_children=limit)


def random_child(rng: random.Random, name: str, auto: str) -> ChildSpec:
    restart: Any = rng.choice(["permanent", "transient", "temporary"])
    return spec(
        name,
        restart=restart,
        shutdown=rng.choice([1.0, 2.0, "infinity", "brutal_kill"]),
        significant=auto != "never" and restart != "permanent" and rng.random() < 0.5,
        backoff=rng.choice([None, None, Backoff(1, 4)]),
        intensity=rng.choice([None, None, Intensity(1, 1.0)]),
        on_exceed=rng.choice(["escalate", "escalate", "disable"]),
    )


def step(shell: Shell, rng: random.Random) -> None:
    """One event that the shell may bring now."""
    shell.now += rng.choice([0.0, 0.1, 2.0])
    state = shell.state
    choice = rng.random()
    if choice < 0.55 and shell.live:
        name = rng.choice(sorted(shell.live))
        serial = shell.live[name]
        if name in shell.starting and rng.random() < 0.7:
            shell.start(name)
        elif name in shell.starting:
            ends: list[Event] = [StartFailed(name, serial, CRASH, shell.now), Ignored(name, serial)]
            if name in shell.told:
                ends.append(Exited(name, serial, SHUTDOWN, shell.now))
            shell.finish(name, rng.choice(ends))
        else:
            shell.exit(name, rng.choice([NORMAL, SHUTDOWN, KILLED, CRASH]))
    elif choice < 0.7 and shell.due:
        due = shell.due.pop(rng.randrange(len(shell.due)))
        shell.feed(RetryDue(due.id, due.serial, shell.now) if isinstance(due, RetryDue) else due)
    elif choice < 0.9:
        name = f"c{rng.randrange(7)}"
        kind = rng.randrange(5)
        if kind == 0:
            shell.request(StartChild, random_child(rng, name, state.spec.auto_shutdown))
        elif kind < 4:
            shell.request([StopChild, RestartChild, DeleteChild][kind - 1], name)
        elif shell.open:
            token = rng.choice(sorted(shell.open))
            shell.feed(Withdraw(token))
            shell.open.discard(token) if token not in _still_expected(shell) else None
    elif choice < 0.97:
        stale = max(0, state.serial - rng.randrange(1, 4))
        if stale not in shell.live.values():
            name = f"c{rng.randrange(7)}"
            before = len(shell.actions)
            events: list[Event] = [
                Started(name, -1, shell.now),
                StartFailed(name, -1, CRASH, shell.now),
                Exited(name, -1, CRASH, shell.now),
                Ignored(name, -1),
                RetryDue(name, -1, shell.now),
                StopTimedOut(name, -1, 1.0),
            ]
            shell.feed(rng.choice(events))
            assert len(shell.actions) == before, "a stale event had an effect"
    elif rng.random() < 0.2:
        shell.feed(Shutdown())
    elif rng.random() < 0.1:
        shell.feed(Kill())


def _still_expected(shell: Shell) -> set[int]:
    """Requests that a withdrawal does not take back: stops under way."""
    found: set[int] = set()
    for child in shell.state.children.values():
        found.update(token for token in child.stop_requests or () if isinstance(token, int))
    return found


@settings(max_examples=2000 if NIGHTLY else 300)
@given(st.integers(0, 1 << 48))
def test_every_order_of_events_keeps_the_invariants(seed: int) -> None:
    rng = random.Random(seed)
    shell = Shell(random_spec(rng))
    shell.feed(Boot())
    for _ in range(rng.randrange(60)):
        if shell.state.phase is Phase.ENDED:
            break
        step(shell, rng)
    last: list[Event] = [Shutdown(), Kill()]
    shell.feed(rng.choice(last))
    for _ in range(1000):
        if shell.state.phase is Phase.ENDED:
            break
        if shell.live:
            name = rng.choice(sorted(shell.live))
            assert shell.told or shell.starting, "it waits for a child that it did not ask to stop"
            if name in shell.told:
                shell.exit(name, rng.choice([SHUTDOWN, KILLED, CRASH]))
            elif name in shell.starting:
                rng.choice([shell.start, shell.fail])(name)
    assert shell.state.phase is Phase.ENDED
    assert not shell.open, "a request without an answer"
    assert shell.feed(Shutdown()) == shell.feed(Kill()) == []
    token = shell.request(StartChild, spec("late"))
    assert shell.verdict(token) == "down"


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def test_the_window_is_closed_at_its_end() -> None:
    """A restart at `then` counts until `then + period`, that moment included."""
    for gap, fine in ((2.0, False), (2.0001, True)):
        shell = Shell(SupervisorSpec("s", [spec("a")], intensity=Intensity(1, 2.0))).boot()
        shell.exit("a")
        shell.start("a")
        shell.now += gap
        shell.exit("a")
        assert ("a" in shell.live) == fine


def test_a_retry_is_counted_when_it_is_due() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a")], intensity=Intensity(2, 5.0))).boot()
    assert kinds(shell.exit("a")) == ["Start"]
    assert shell.fail("a") == [RetryAfter("a", 2, None)]
    assert kinds(shell.feed(shell.due.pop())) == ["Start"]
    shell.fail("a")
    assert kinds(shell.feed(shell.due.pop())) == ["GivingUp", "End"]


def test_a_backoff_is_counted_at_the_crash_and_grows_until_it_is_reset() -> None:
    child = spec("a", backoff=Backoff(1, 9, reset_after_s=5.0))
    shell = Shell(SupervisorSpec("s", [child], intensity=Intensity(100, 1.0))).boot()
    waits: list[int | None] = []

    def crash_after(seconds: float) -> None:
        shell.now += seconds
        (action,) = shell.exit("a")
        assert isinstance(action, RetryAfter)
        waits.append(action.attempt)
        shell.feed(RetryDue("a", action.serial, shell.now))
        shell.start("a")

    for seconds in (1.0, 1.0, 4.9, 5.0, 0.0):
        crash_after(seconds)
    assert waits == [0, 1, 2, 0, 1]
    assert shell.state.children["a"].restarts == 5


def test_a_failed_start_after_a_backoff_waits_for_the_next_attempt() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a", backoff=Backoff(1, 9))], intensity=Intensity(2, 99.0))).boot()
    shell.exit("a")
    shell.feed(RetryDue("a", 1, 0.0))
    assert shell.fail("a") == [RetryAfter("a", 2, 1)]
    shell.feed(RetryDue("a", 2, 0.0))
    assert shell.fail("a") == [RetryAfter("a", 3, 2)]
    assert kinds(shell.feed(RetryDue("a", 3, 0.0))) == ["GivingUp", "End"]


def test_the_reset_time_is_the_longest_wait_when_it_is_not_given() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a", backoff=Backoff(1, 9))], intensity=Intensity(99, 1.0))).boot()
    attempts: list[int | None] = []
    for seconds in (0.0, 8.0, 9.0):
        shell.now += seconds
        (action,) = shell.exit("a")
        assert isinstance(action, RetryAfter)
        attempts.append(action.attempt)
        shell.feed(RetryDue("a", action.serial, shell.now))
        shell.start("a")
    assert attempts == [0, 1, 0]


def test_dynamic_children_stop_at_once_with_one_timer_for_each_time() -> None:
    shell = Shell(SupervisorSpec("s", strategy="dynamic")).boot()
    for n, shutdown in enumerate([1.0, 2.0, 1.0, "infinity", "brutal_kill"]):
        shell.request(StartChild, spec(f"c{n}", shutdown=shutdown))
        shell.start(f"c{n}")
    actions = shell.feed(Shutdown())
    assert kinds(actions) == ["AskStop", "AskStop", "AskStop", "AskStop", "KillChild", "StopTimer", "StopTimer"]
    assert actions[-2:] == [StopTimer(None, 0, 1.0), StopTimer(None, 0, 2.0)]
    assert shell.feed(StopTimedOut(None, 0, 1.0)) == [KillChild("c0"), KillChild("c2")]
    for n in (0, 2, 4, 1):
        assert shell.exit(f"c{n}", SHUTDOWN) == []
    assert shell.exit("c3", SHUTDOWN) == [End(SHUTDOWN)]


def test_static_children_stop_one_by_one_in_reverse() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b", shutdown=2.0)])).boot()
    assert shell.feed(Shutdown()) == [AskStop("b"), StopTimer("b", 2, 2.0)]
    assert shell.feed(StopTimedOut("b", 2, 2.0)) == [KillChild("b")]
    assert shell.exit("b", KILLED) == [AskStop("a"), StopTimer("a", 1, 5.0)]
    assert shell.exit("a", SHUTDOWN) == [End(SHUTDOWN)]
    assert shell.feed(StopTimedOut("a", 1, 5.0)) == []


def test_a_kill_does_not_wait_in_line() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b")])).boot()
    shell.feed(Shutdown())
    assert shell.feed(Kill()) == [KillChild("a"), KillChild("b")]
    shell.exit("a", KILLED)
    assert shell.exit("b", KILLED) == [End(KILLED)]


def test_a_failed_boot_stops_what_was_started_and_says_who_failed() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b"), spec("c")]))
    shell.feed(Boot())
    shell.start("a")
    assert shell.fail("b") == [AskStop("a"), StopTimer("a", 1, 5.0)]
    assert shell.exit("a", SHUTDOWN) == [BootFailed("b", CRASH), End(CRASH)]


def test_a_shutdown_while_booting_is_a_failed_boot() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a")]))
    shell.feed(Boot())
    shell.feed(Shutdown())
    assert shell.fail("a") == [BootFailed("s", SHUTDOWN), End(SHUTDOWN)]


def test_an_end_while_the_supervisor_is_busy_is_judged_afterwards() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b")], "rest_for_one", Intensity(9, 9)))
    shell.feed(Boot())
    shell.start("a")
    assert shell.exit("a") == []
    assert shell.state.children["a"].status is ChildStatus.EXITED
    assert kinds(shell.start("b")) == ["Booted", "AskStop", "StopTimer"]


def test_an_end_is_covered_by_the_group_restart_that_stops_it() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b"), spec("c")], "one_for_all", Intensity(1, 9))).boot()
    assert shell.exit("a")[:1] == [AskStop("c")]
    assert shell.exit("b") == []
    assert kinds(shell.exit("c", SHUTDOWN)) == ["Start"]
    shell.start("a")
    shell.start("b")
    assert shell.start("c") == []
    assert shell.state.children["b"].restarts == 0


def test_a_request_waits_until_the_plan_is_done() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b")], "one_for_all")).boot()
    shell.exit("a")
    token = shell.request(StopChild, "b")
    assert shell.verdict(token) is None
    shell.exit("b", SHUTDOWN)
    shell.start("a")
    assert kinds(shell.start("b")) == ["AskStop", "StopTimer"]
    shell.exit("b", SHUTDOWN)
    assert shell.verdict(token) == "ok"


def test_a_withdrawn_request_is_never_taken_up() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b")], "one_for_all")).boot()
    shell.exit("a")
    token = shell.request(StartChild, spec("new"))
    shell.feed(Withdraw(token))
    shell.open.discard(token)
    shell.exit("b", SHUTDOWN)
    shell.start("a")
    assert shell.start("b") == []
    assert "new" not in shell.state.children


def test_a_withdrawn_start_is_undone() -> None:
    shell = Shell(SupervisorSpec("s")).boot()
    token = shell.request(StartChild, spec("a"))
    assert kinds(shell.feed(Withdraw(token))) == ["AskStop", "StopTimer"]
    shell.open.discard(token)
    assert kinds(shell.exit("a", SHUTDOWN)) == ["Forget"]
    assert shell.state.children == {}


def test_a_disabled_child_keeps_out_of_a_group_restart() -> None:
    children = [spec("a", on_exceed="disable", intensity=Intensity(0, 1)), spec("b")]
    shell = Shell(SupervisorSpec("s", children, "one_for_all", Intensity(9, 9))).boot()
    assert kinds(shell.exit("a")) == ["Disabled", "CloseMailbox"]
    assert kinds(shell.exit("b")) == ["Start"]
    assert shell.start("b") == []
    token = shell.request(StopChild, "a")
    assert (shell.verdict(token), shell.state.children["a"].status) == ("ok", ChildStatus.STOPPED)
    shell.request(RestartChild, "a")
    shell.start("a")
    assert kinds(shell.exit("a")) == ["Disabled", "CloseMailbox"]


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, KILLED, CRASH])
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
def test_the_table_of_ends(restart: Any, reason: ExitReason) -> None:
    shell = Shell(SupervisorSpec("s", [spec("a", restart=restart)])).boot()
    done = kinds(shell.exit("a", reason))
    if restart == "temporary":
        assert done == ["Forget"]
    elif restart == "transient" and not reason.abnormal:
        assert done == ["CloseMailbox"]
    else:
        assert done == ["Start"]
