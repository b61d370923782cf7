"""The decision core's requests, failed starts and automatic shutdowns, action by action."""

from __future__ import annotations

from typing import Any

import pytest

from actors import NORMAL, SHUTDOWN, Backoff, ExitReason, Intensity, SupervisorSpec
from actors._supervision import (
    Action,
    AnswerRequest,
    AskStop,
    ChildStatus,
    CloseMailbox,
    DeleteChild,
    Disabled,
    End,
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
    StopChild,
    StopTimer,
    Withdraw,
    decide,
)
from tests.actors.test_supervision import CRASH, Shell, kinds, spec

# What is random or small here is not meant for a program.
pytestmark = [pytest.mark.rules, pytest.mark.filterwarnings("ignore::actors.UnreachableIntensity")]

REQUESTS: dict[str, Any] = {"start": StartChild, "stop": StopChild, "restart": RestartChild, "delete": DeleteChild}
TOKEN = 999


def ask(shell: Shell, what: str, name: str = "a") -> list[Action]:
    """The actions that follow a request at once."""
    subject: Any = spec(name) if what == "start" else name
    shell.open.add(TOKEN)
    return shell.feed(REQUESTS[what](TOKEN, subject))


def reply(verdict: Any, name: str = "a", reason: ExitReason | None = None) -> AnswerRequest:
    return AnswerRequest(TOKEN, verdict, name, reason)


def in_state(state: str, strategy: Any = "one_for_one") -> Shell:
    """A supervisor whose child "a" is in this state; "z" runs beside it."""
    shell = Shell(SupervisorSpec("s", strategy=strategy, intensity=Intensity(9, 9))).boot()
    shell.request(StartChild, spec("z"))
    shell.start("z")
    options: dict[str, Any] = {}
    if state == "disabled":
        options = {"on_exceed": "disable", "intensity": Intensity(0, 1)}
    if state == "waiting":
        options = {"backoff": Backoff(1, 2)}
    if state != "absent":
        shell.request(StartChild, spec("a", **options))
    if state in ("absent", "starting"):
        return shell
    shell.start("a")
    match state:
        case "running":
            pass
        case "stopping":
            shell.request(StopChild, "a")
        case "stopped":
            shell.request(StopChild, "a")
            shell.exit("a", SHUTDOWN)
        case "disabled" | "waiting" | "again":
            shell.exit("a")
        case _:
            raise AssertionError(state)
    return shell


STOP: list[Action] = [AskStop("a"), StopTimer("a", 2, 5.0)]
AGAIN_STOP: list[Action] = [AskStop("a"), StopTimer("a", 3, 5.0)]
TABLE: dict[tuple[str, str], list[Action]] = {
    ("start", "starting"): [reply("already_started")],
    ("start", "running"): [reply("already_started")],
    ("start", "stopping"): [reply("already_started")],
    ("start", "again"): [reply("already_present")],
    ("start", "waiting"): [reply("already_present")],
    ("start", "stopped"): [reply("already_present")],
    ("start", "disabled"): [reply("already_present")],
    ("start", "absent"): [Start("a", 2)],
    ("stop", "running"): STOP,
    ("stop", "stopping"): [],
    ("stop", "again"): AGAIN_STOP,
    ("stop", "waiting"): [CloseMailbox("a", SHUTDOWN), reply("ok")],
    ("stop", "stopped"): [reply("ok")],
    ("stop", "disabled"): [reply("ok")],
    ("stop", "absent"): [reply("not_found")],
    ("restart", "starting"): [reply("running")],
    ("restart", "running"): [reply("running")],
    ("restart", "stopping"): [reply("running")],
    ("restart", "again"): [reply("restarting")],
    ("restart", "waiting"): [reply("restarting")],
    ("restart", "stopped"): [Start("a", 3)],
    ("restart", "disabled"): [Start("a", 3)],
    ("restart", "absent"): [reply("not_found")],
    ("delete", "starting"): [reply("running")],
    ("delete", "running"): [reply("running")],
    ("delete", "stopping"): [reply("running")],
    ("delete", "again"): [reply("restarting")],
    ("delete", "waiting"): [reply("restarting")],
    ("delete", "stopped"): [Forget("a", SHUTDOWN), reply("ok")],
    ("delete", "disabled"): [Forget("a", SHUTDOWN), reply("ok")],
    ("delete", "absent"): [reply("not_found")],
}


@pytest.mark.parametrize(("what", "state"), TABLE)
def test_the_table_of_requests(what: str, state: str) -> None:
    assert ask(in_state(state), what) == TABLE[what, state]


@pytest.mark.parametrize("state", ["starting", "running", "stopping", "again", "waiting", "absent"])
def test_the_table_of_requests_to_a_dynamic_supervisor(state: str) -> None:
    assert ask(in_state(state, "dynamic"), "restart") == [reply("not_allowed")]
    assert ask(in_state(state, "dynamic"), "delete") == [reply("not_allowed")]
    if state == "waiting":
        assert ask(in_state(state, "dynamic"), "stop") == [Forget("a", SHUTDOWN), reply("ok")]
    elif state != "starting":
        assert ask(in_state(state, "dynamic"), "stop") == TABLE["stop", state]
    if state != "stopping":
        assert ask(in_state(state, "dynamic"), "start") == TABLE["start", state]


@pytest.mark.parametrize(
    ("what", "actions"),
    [
        ("start", [reply("already_present")]),
        ("stop", [Forget("a", SHUTDOWN), reply("ok")]),
        ("restart", [Start("a", 3)]),
        ("delete", [Forget("a", SHUTDOWN), reply("ok")]),
    ],
)
def test_a_disabled_dynamic_child_takes_every_request(what: str, actions: list[Action]) -> None:
    assert ask(in_state("disabled", "dynamic"), what) == actions


def test_a_disabled_dynamic_child_that_fails_to_restart_can_be_deleted() -> None:
    shell = in_state("disabled", "dynamic")
    ask(shell, "restart")
    assert CloseMailbox in [type(action) for action in shell.fail("a")]
    assert shell.state.children["a"].status is ChildStatus.DISABLED
    assert ask(shell, "delete") == [Forget("a", SHUTDOWN), reply("ok")]


def test_stopping_a_child_that_starts_fails_its_start() -> None:
    shell = in_state("starting")
    assert ask(shell, "stop") == [AnswerRequest(2, "start_failed", "a", SHUTDOWN), *STOP]
    assert shell.exit("a", SHUTDOWN) == [Forget("a", SHUTDOWN), reply("ok")]


def test_stopping_twice_answers_both() -> None:
    shell = in_state("stopping")
    assert ask(shell, "stop") == []
    first = shell.asked
    assert shell.exit("a", CRASH) == [CloseMailbox("a", CRASH), AnswerRequest(first, "ok", "a"), reply("ok")]
    assert shell.state.children["a"].last_exit is CRASH


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_group_supervisors_do_one_thing_at_a_time(strategy: Any) -> None:
    shell = in_state("running", strategy)
    assert ask(shell, "stop") == STOP
    for token, what in enumerate(("start", "restart", "delete", "stop"), 100):
        subject: Any = spec("b") if what == "start" else "b"
        shell.open.add(token)
        assert shell.feed(REQUESTS[what](token, subject)) == []
    assert shell.exit("a", SHUTDOWN) == [CloseMailbox("a", SHUTDOWN), reply("ok"), Start("b", 3)]
    assert shell.feed(Started("b", 3, 0.0)) == [
        AnswerRequest(100, "ok", "b"),
        AnswerRequest(101, "running", "b"),
        AnswerRequest(102, "running", "b"),
        AskStop("b"),
        StopTimer("b", 3, 5.0),
    ]
    shell.live["b"] = 3
    assert shell.exit("b", SHUTDOWN) == [CloseMailbox("b", SHUTDOWN), AnswerRequest(103, "ok", "b")]
    assert ask(shell, "restart") == [Start("a", 4)]
    assert shell.start("a") == [reply("ok")]


@pytest.mark.parametrize("end", [Shutdown(), Kill()])
def test_requests_that_wait_are_turned_down_at_the_end(end: Any) -> None:
    shell = in_state("running", "one_for_all")
    ask(shell, "stop")
    for token, what in enumerate(("start", "restart", "delete", "stop"), 100):
        subject: Any = spec("b") if what == "start" else "b"
        shell.open.add(token)
        shell.feed(REQUESTS[what](token, subject))
    actions = shell.feed(end)
    assert actions[:4] == [AnswerRequest(token, "down", "b") for token in range(100, 104)]
    shell.exit("a", SHUTDOWN)
    assert shell.verdict(TOKEN) == "ok"
    for what in REQUESTS:
        assert ask(shell, what, "q") == [reply("down", "q")]


def test_a_child_added_at_run_time_that_fails_is_not_kept() -> None:
    for strategy in ("one_for_one", "one_for_all", "rest_for_one", "dynamic"):
        shell = in_state("absent", strategy)
        ask(shell, "start")
        assert shell.fail("a") == [reply("start_failed", "a", CRASH), Forget("a", CRASH)]
        assert "a" not in shell.state.children
        assert ask(shell, "stop", "z") == [AskStop("z"), StopTimer("z", 1, 5.0)]


def test_a_restart_by_request_that_fails_leaves_the_child_listed() -> None:
    for strategy in ("one_for_one", "one_for_all", "rest_for_one"):
        shell = in_state("stopped", strategy)
        ask(shell, "restart")
        assert shell.fail("a") == [reply("start_failed", "a", CRASH), CloseMailbox("a", CRASH)]
        child = shell.state.children["a"]
        assert (child.status, child.last_exit, child.restarts) == (ChildStatus.STOPPED, CRASH, 0)
        assert ask(shell, "restart") == [Start("a", 4)]


def test_an_ignored_start() -> None:
    for strategy, rest in (("one_for_one", CloseMailbox), ("rest_for_one", CloseMailbox), ("dynamic", Forget)):
        shell = in_state("absent", strategy)
        ask(shell, "start")
        assert shell.finish("a", Ignored("a", 2)) == [reply("ignored"), rest("a", SHUTDOWN)]
        assert ask(shell, "stop", "z") == [AskStop("z"), StopTimer("z", 1, 5.0)]


def test_an_ignored_start_that_was_told_to_stop_is_stopped() -> None:
    shell = in_state("starting")
    ask(shell, "stop")
    assert shell.finish("a", Ignored("a", 2)) == [Forget("a", SHUTDOWN), reply("ok")]


def test_an_ignored_start_at_the_end_lets_the_end_go_on() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b")])).boot()
    shell.exit("a")
    assert shell.feed(Shutdown()) == [AskStop("b"), StopTimer("b", 2, 5.0)]
    assert shell.finish("a", Ignored("a", 3)) == [CloseMailbox("a", SHUTDOWN)]
    assert shell.exit("b", SHUTDOWN) == [End(SHUTDOWN)]


def test_a_failed_start_at_the_end_is_not_tried_again() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b")])).boot()
    shell.exit("a")
    shell.feed(Shutdown())
    assert shell.fail("a") == []
    assert shell.state.children["a"].status is ChildStatus.STOPPED
    assert shell.exit("b", SHUTDOWN) == [End(SHUTDOWN)]


def test_a_requested_start_that_fails_at_the_end_is_answered() -> None:
    shell = Shell(SupervisorSpec("s", [spec("b")])).boot()
    ask(shell, "start")
    shell.request(StartChild, spec("c"))
    shell.feed(Shutdown())
    assert shell.fail("a") == [reply("start_failed", "a", CRASH)]
    shell.exit("c", SHUTDOWN)
    assert shell.exit("b", SHUTDOWN) == [End(SHUTDOWN)]


ENDED = End(ExitReason("shutdown", "significant children ended"))


def significant(mode: Any, restart: Any) -> Shell:
    children = [spec(name, restart=restart, significant=True, shutdown="infinity") for name in ("a", "b")]
    return Shell(SupervisorSpec("s", [*children, spec("c", restart=restart)], auto_shutdown=mode)).boot()


def test_any_significant_child_ends_its_supervisor() -> None:
    shell = significant("any_significant", "transient")
    assert shell.exit("c", NORMAL) == [CloseMailbox("c", NORMAL)]
    assert shell.exit("a", NORMAL) == [CloseMailbox("a", NORMAL), AskStop("b")]
    assert shell.exit("b", SHUTDOWN) == [ENDED]


def test_the_last_significant_child_ends_its_supervisor() -> None:
    for restart, gone in (("transient", CloseMailbox), ("temporary", Forget)):
        shell = significant("all_significant", restart)
        assert shell.exit("b", NORMAL) == [gone("b", NORMAL)]
        assert shell.exit("c", NORMAL) == [gone("c", NORMAL)]
        assert shell.exit("a", NORMAL) == [gone("a", NORMAL), ENDED]


def test_the_last_significant_child_does_not_count_when_it_is_stopped() -> None:
    shell = significant("all_significant", "transient")
    shell.exit("b", NORMAL)
    assert ask(shell, "stop") == [AskStop("a")]
    assert shell.exit("a", SHUTDOWN) == [CloseMailbox("a", SHUTDOWN), reply("ok")]
    assert shell.state.phase is Phase.UP


def test_a_significant_child_in_restart_is_still_there() -> None:
    children = [
        spec("a", restart="transient", significant=True, backoff=Backoff(1, 2)),
        spec("b", restart="transient", significant=True),
    ]
    shell = Shell(SupervisorSpec("s", children, auto_shutdown="all_significant")).boot()
    assert shell.exit("a") == [RetryAfter("a", 1, 0)]
    assert shell.exit("b", NORMAL) == [CloseMailbox("b", NORMAL)]
    assert shell.state.phase is Phase.UP


def test_a_disabled_significant_child_is_gone() -> None:
    children = [
        spec("a", restart="transient", significant=True, on_exceed="disable", intensity=Intensity(0, 1)),
        spec("b", restart="transient", significant=True),
    ]
    shell = Shell(SupervisorSpec("s", children, auto_shutdown="all_significant")).boot()
    assert shell.exit("a") == [Disabled("a", CRASH), CloseMailbox("a", CRASH)]
    assert shell.exit("b", NORMAL) == [CloseMailbox("b", NORMAL), ENDED]


def test_giving_up_says_who_and_why() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b", shutdown="brutal_kill")], intensity=Intensity(0, 1))).boot()
    assert shell.exit("a") == [GivingUp("a", CRASH), KillChild("b")]
    (end,) = shell.exit("b")
    assert isinstance(end, End)
    assert (end.reason.kind, end.reason.error) == ("shutdown", CRASH.error)
    assert "'a'" in end.reason.detail


def test_restarts_of_a_child_with_its_own_intensity_do_not_count_for_others() -> None:
    children = [spec("a", intensity=Intensity(1, 9)), spec("b")]
    shell = Shell(SupervisorSpec("s", children, intensity=Intensity(1, 9))).boot()
    assert shell.exit("a") == [Start("a", 3)]
    shell.start("a")
    assert shell.exit("b") == [Start("b", 4)]
    shell.start("b")
    assert kinds(shell.exit("a"))[0] == "GivingUp"


def test_a_disabled_child_without_its_own_intensity_is_counted_alone_by_the_supervisors() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a", on_exceed="disable"), spec("b")], intensity=Intensity(1, 9))).boot()
    assert shell.exit("b") == [Start("b", 3)]
    shell.start("b")
    assert shell.exit("a") == [Start("a", 4)]
    shell.start("a")
    assert shell.exit("a") == [Disabled("a", CRASH), CloseMailbox("a", CRASH)]
    assert shell.state.children["a"].status is ChildStatus.DISABLED
    assert ask(shell, "restart") == [Start("a", 5)]
    shell.start("a")
    assert shell.exit("a") == [Start("a", 6)]


def test_a_retry_that_comes_while_the_supervisor_is_busy_waits() -> None:
    shell = Shell(SupervisorSpec("s", [spec("b", backoff=Backoff(1, 2)), spec("c")], "rest_for_one")).boot()
    ask(shell, "start")
    shell.start("a")
    assert shell.exit("b") == [RetryAfter("b", 1, 0)]
    assert ask(shell, "stop") == [AskStop("a"), StopTimer("a", 3, 5.0)]
    assert shell.feed(RetryDue("b", 1, 0.0)) == []
    assert shell.exit("a", SHUTDOWN) == [
        CloseMailbox("a", SHUTDOWN),
        reply("ok"),
        AskStop("c"),
        StopTimer("c", 2, 5.0),
    ]
    assert shell.exit("c", SHUTDOWN) == [Start("b", 4)]


def test_a_withdrawn_restart_is_undone_and_the_child_stays() -> None:
    for strategy in ("one_for_one", "rest_for_one"):
        shell = in_state("stopped", strategy)
        ask(shell, "restart")
        assert shell.feed(Withdraw(TOKEN)) == [AskStop("a"), StopTimer("a", 3, 5.0)]
        shell.open.discard(TOKEN)
        assert shell.exit("a", SHUTDOWN) == [CloseMailbox("a", SHUTDOWN)]
        assert ask(shell, "stop", "z") == [AskStop("z"), StopTimer("z", 1, 5.0)]
        assert shell.feed(Withdraw("nobody's")) == []


def test_every_kind_of_request_can_be_withdrawn_while_it_waits() -> None:
    for what in REQUESTS:
        shell = in_state("running", "one_for_all")
        shell.request(StopChild, "a")
        ask(shell, what, "b")
        shell.feed(Withdraw(TOKEN))
        shell.open.discard(TOKEN)
        shell.exit("a", SHUTDOWN)
        assert shell.verdict(TOKEN) is None
        assert "b" not in shell.state.children


def test_max_children() -> None:
    shell = Shell(SupervisorSpec("s", strategy="dynamic", max_children=1)).boot()
    assert ask(shell, "start") == [Start("a", 1)]
    shell.start("a")
    assert ask(shell, "start", "b") == [reply("max_children", "b")]
    assert ask(shell, "start") == [reply("already_started")]
    assert ask(shell, "stop") == [AskStop("a"), StopTimer("a", 1, 5.0)]
    shell.exit("a", NORMAL)
    assert ask(shell, "start", "b") == [Start("b", 2)]
    assert ask(Shell(SupervisorSpec("s", strategy="dynamic", max_children=0)).boot(), "start") == [
        reply("max_children")
    ]


def test_the_state_is_the_one_that_was_given() -> None:
    shell = Shell(SupervisorSpec("s"))
    state, _ = decide(shell.state, Shutdown())
    assert state is shell.state
    assert state.phase is Phase.ENDED


def test_a_stop_that_waits_finds_its_child_ended_by_itself() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b"), spec("c")], "rest_for_one", Intensity(9, 9))).boot()
    assert shell.exit("b") == [AskStop("c"), StopTimer("c", 3, 5.0)]
    assert ask(shell, "stop") == []
    assert shell.exit("a") == []
    assert shell.exit("c", SHUTDOWN) == [Start("b", 4)]
    shell.start("b")
    assert shell.start("c") == [CloseMailbox("a", SHUTDOWN), reply("ok")]
    assert (shell.state.children["a"].status, shell.state.children["a"].restarts) == (ChildStatus.STOPPED, 0)


def test_a_temporary_child_that_ends_while_its_group_is_stopped_is_forgotten() -> None:
    children = [spec("a"), spec("t", restart="temporary"), spec("c")]
    shell = Shell(SupervisorSpec("s", children, "one_for_all", Intensity(9, 9))).boot()
    assert shell.exit("a") == [AskStop("c"), StopTimer("c", 3, 5.0)]
    assert shell.exit("t") == []
    assert shell.exit("c", SHUTDOWN) == [Forget("t", SHUTDOWN), Start("a", 4)]
    shell.start("a")
    assert shell.start("c") == []
    assert list(shell.state.children) == ["a", "c"]


def test_a_temporary_child_that_its_group_stops_is_forgotten_when_it_did() -> None:
    children = [spec("a"), spec("t", restart="temporary")]
    shell = Shell(SupervisorSpec("s", children, "one_for_all", Intensity(9, 9))).boot()
    assert shell.exit("a") == [AskStop("t"), StopTimer("t", 2, 5.0)]
    assert shell.exit("t", SHUTDOWN) == [Forget("t", SHUTDOWN), Start("a", 3)]


def test_a_restart_by_hand_starts_the_backoff_over() -> None:
    shell = Shell(SupervisorSpec("s", [spec("a", backoff=Backoff(1, 9))], intensity=Intensity(9, 9))).boot()
    assert shell.exit("a") == [RetryAfter("a", 1, 0)]
    ask(shell, "stop")
    assert ask(shell, "restart") == [Start("a", 2)]
    shell.start("a")
    assert shell.exit("a") == [RetryAfter("a", 2, 0)]


def test_a_kill_asks_those_that_were_not_asked_and_fails_their_starts() -> None:
    shell = Shell(SupervisorSpec("s", strategy="dynamic")).boot()
    ask(shell, "start")
    assert shell.feed(Kill()) == [
        reply("start_failed", "a", SHUTDOWN),
        AskStop("a"),
        StopTimer(None, 0, 5.0),
        KillChild("a"),
    ]
    shell = Shell(SupervisorSpec("s", [spec("a"), spec("b")])).boot()
    shell.request(StartChild, spec("n"))
    assert shell.feed(Kill())[-3:] == [KillChild("a"), KillChild("b"), KillChild("n")]
    assert [child.status for child in shell.state.children.values()] == [ChildStatus.STOPPING] * 3


@pytest.mark.parametrize("alone", [Intensity(1, 9), None])
def test_a_child_counted_alone_gives_up_at_its_own_limit(alone: Intensity | None) -> None:
    shell = Shell(SupervisorSpec("s", [spec("a", intensity=alone)], intensity=Intensity(2, 9))).boot()
    for n in range(1 if alone else 2):
        assert shell.exit("a") == [Start("a", n + 2)]
        shell.start("a")
    assert kinds(shell.exit("a")) == ["GivingUp", "End"]
    assert shell.state.children["a"].status is ChildStatus.STOPPED
    assert len(shell.state.window) == (0 if alone else 3)


def test_a_kill_fails_every_start_that_is_waited_for() -> None:
    shell = Shell(SupervisorSpec("s")).boot()
    for token, name in ((1, "n1"), (2, "n2")):
        shell.open.add(token)
        shell.feed(StartChild(token, spec(name, shutdown="infinity")))
    assert shell.feed(Kill()) == [
        AnswerRequest(2, "start_failed", "n2", SHUTDOWN),
        AskStop("n2"),
        AnswerRequest(1, "start_failed", "n1", SHUTDOWN),
        KillChild("n1"),
        KillChild("n2"),
    ]


def test_a_start_that_fails_after_it_was_told_to_stop_is_stopped_with_its_reason() -> None:
    shell = in_state("again")
    ask(shell, "stop")
    assert shell.fail("a") == [CloseMailbox("a", CRASH), reply("ok")]
    assert shell.state.children["a"].last_exit is CRASH
