"""Random traces on our supervisor and on Erlang's own must give the same sequence of events."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from actors import (
    NORMAL,
    SHUTDOWN,
    Actor,
    ActorsError,
    ChildSpec,
    Context,
    ExitReason,
    Intensity,
    Message,
    SupervisorSpec,
)
from actors.testing import settle
from tests.conformance.lab import ABNORMAL, KILL, SHUTDOWN_X, Boom, Lab, open_lab
from tests.crashes import may_crash
from tests.sampling import NIGHTLY, SEED

pytestmark = [
    may_crash(Boom),
    pytest.mark.external,
    pytest.mark.skipif(not (shutil.which("erl") and shutil.which("erlc")), reason="no Erlang (erlang-base) here"),
]

COUNT = 500 if NIGHTLY else 50
DRIVER = Path(__file__).with_name("otp_traces.erl")

REASONS = {"normal": NORMAL, "shutdown": SHUTDOWN, "{shutdown,x}": SHUTDOWN_X, "abnormal": ABNORMAL, "kill": KILL}
ANSWERS = {
    "AlreadyPresent": "already_present",
    "AlreadyStarted": "already_started",
    "ChildRunning": "running",
    "ChildRestarting": "restarting",
    "NotFound": "not_found",
    "StartFailed": "start_failed",
}

Child = tuple[str, str, bool]
Operation = tuple[str, Any, Any]
Trace = tuple[str, int, str, list[Child], list[Operation]]


def random_child(rng: random.Random, name: str, auto: str) -> Child:
    restart = rng.choice(["permanent", "transient", "temporary"])
    return name, restart, auto != "never" and restart != "permanent" and rng.random() < 0.5


def random_trace(rng: random.Random) -> Trace:
    strategy = rng.choice(["one_for_one", "one_for_all", "rest_for_one"])
    auto = rng.choice(["never", "never", "any_significant", "all_significant"])
    children = [random_child(rng, f"c{n}", auto) for n in range(rng.randint(1, 4))]
    operations: list[Operation] = []
    for _ in range(rng.randint(1, 12)):
        name = f"c{rng.randrange(len(children) + (rng.random() < 0.2))}"
        what = rng.choice([*["leave"] * 6, "fail", "fail", "stop", "restart", "delete", "start"])
        extra: object = None
        if what == "leave":
            extra = rng.choice(list(REASONS))
        elif what == "fail":
            extra = rng.randint(1, 3)
        elif what == "start":
            extra = random_child(rng, name, auto)
        operations.append((what, name, extra))
    return strategy, rng.choice([0, 1, 2, 3, 8]), auto, children, operations


def _child_term(child: Child) -> str:
    return f"{{{child[0]}, {child[1]}, {str(child[2]).lower()}}}"


def term(trace: Trace) -> str:
    """The trace as an Erlang term."""
    strategy, intensity, auto, children, operations = trace
    told: list[str] = []
    for what, name, extra in operations:
        if what == "start":
            told.append(f"{{start, {_child_term(extra)}}}")
        else:
            told.append(f"{{{what}, {name}}}" if extra is None else f"{{{what}, {name}, {extra}}}")
    listed = ", ".join(map(_child_term, children))
    return f"{{{strategy}, {intensity}, {auto}, [{listed}], [{', '.join(told)}]}}."


def run_on_otp(traces: list[Trace], folder: Path) -> list[list[str]]:
    """The lines of each trace."""
    shutil.copy(DRIVER, folder)
    (folder / "traces").write_text("\n".join(map(term, traces)) + "\n")
    subprocess.run(["erlc", DRIVER.name], cwd=folder, check=True, timeout=60)
    command = ["erl", "-noshell", "-run", "otp_traces", "main", "traces"]
    done = subprocess.run(command, cwd=folder, check=True, timeout=240, capture_output=True, text=True)
    return [part.splitlines()[1:] for part in done.stdout.split("trace")[1:]]


class Leave(Message[None], frozen=True):
    """Ends for a reason of its own."""

    reason: ExitReason


class Leaf(Actor[Leave]):
    """Notes its starts, and its stops by the supervisor."""

    def __init__(self, name: str, lines: list[str], fails: dict[str, int]) -> None:
        self.name, self.lines, self.fails = name, lines, fails
        self.left = False

    async def on_start(self, context: Context) -> None:
        if self.fails.get(self.name, 0) > 0:
            self.fails[self.name] -= 1
            raise Boom("start")
        self.lines.append(f"start {self.name}")

    async def handle(self, message: Leave) -> None:
        self.left = True
        if message.reason.kind == "crashed":
            raise Boom("abnormal")
        self.context.stop(message.reason)

    async def on_stop(self, reason: ExitReason) -> None:
        if not self.left:
            self.lines.append(f"stop {self.name}")


async def run_on_ours(trace: Trace) -> list[str]:
    """The same lines from our supervisor."""
    strategy, intensity, auto, children, operations = trace
    lines: list[str] = []
    fails: dict[str, int] = {}

    def spec(child: Child) -> ChildSpec:
        name, restart, significant = child
        return ChildSpec(
            name,
            lambda: Leaf(name, lines, fails),
            restart=restart,  # type: ignore[arg-type]
            significant=significant,
            name=name,
        )

    async with open_lab() as lab:
        sup = await lab.start(
            SupervisorSpec(
                "sup",
                [spec(child) for child in children],
                strategy,  # type: ignore[arg-type]
                Intensity(intensity, 3600),
                auto_shutdown=auto,  # type: ignore[arg-type]
            )
        )
        for what, name, extra in operations:
            result = "ok"
            try:
                match what:
                    case "leave":
                        result = "left" if await _leave(lab, name, REASONS[extra]) else "absent"
                    case "fail":
                        fails[name] = extra
                        result = "set"
                    case "stop":
                        await sup.stop_child(name)
                    case "restart":
                        await sup.restart_child(name)
                    case "delete":
                        await sup.delete_child(name)
                    case _:
                        await sup.start_child(spec(extra))
            except ActorsError as error:
                result = ANSWERS[type(error).__name__]
            await settle()
            if not lab.running("sup"):
                assert (await lab.ended("sup")).kind == "shutdown"
                return [*lines, "ended shutdown"]
            lines.append(f"result {result}")
            states = await lab.states(sup)
            lines.append("children" + "".join(f" {k}:{str(v == 'running').lower()}" for k, v in states.items()))
        await lab.root.stop_child("sup")
        return [*lines, "done"]


async def _leave(lab: Lab, name: str, reason: ExitReason) -> bool:
    ref = lab.registry.ref(Leaf, name)
    if not ref.alive:
        return False
    ref.tell(Leave(reason))
    await settle()
    return True


async def test_random_traces_are_those_of_otp(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Starts, ends of every kind, stops, deletes, restarts, failing starts, the intensity reached, auto-shutdown."""
    rng = random.Random(f"otp traces {SEED}")
    traces = [random_trace(rng) for _ in range(COUNT)]
    theirs = run_on_otp(traces, tmp_path)
    assert len(theirs) == COUNT
    for trace, wanted in zip(traces, theirs, strict=True):
        assert await run_on_ours(trace) == wanted, term(trace)
