"""Random trees and random fates against the model; what holds for one supervisor against every order of events."""

from __future__ import annotations

from typing import Any, NamedTuple

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from actors import (
    NORMAL,
    ActorsError,
    ChildSpec,
    ExitReason,
    Intensity,
    Registry,
    SupervisorSpec,
    System,
    SystemFailed,
    open_system,
)
from actors.testing import run_deterministic
from tests.actors.model import LeafSpec, Node, SupSpec, World
from tests.conformance.lab import End, Proc
from tests.crashes import may_crash
from tests.sampling import NIGHTLY

pytestmark = may_crash(ValueError)

STEP_S = 1000.0
"""Virtual seconds of each operation: more than all stops of a tree can take."""
EXAMPLES = 2000 if NIGHTLY else 200

RESTARTS: list[Any] = ["permanent", "transient", "temporary"]
intensities = st.sampled_from([(0, 1.5), (1, 1.5), (2, 1.5), (1, 2500.5), (3, 2500.5), (5, 1e9)])


@st.composite
def leaves(draw: st.DrawFn, id: str, auto: str = "never") -> LeafSpec:
    restart = draw(st.sampled_from(RESTARTS))
    return LeafSpec(
        id,
        restart,
        stop_s=draw(st.sampled_from([0.0, 0.0, 0.0, 2.0, 40.0])),
        shutdown_s=draw(st.sampled_from([5.0, 5.0, 3.0, None])),
        significant=auto != "never" and restart != "permanent" and draw(st.booleans()),
        own=draw(st.sampled_from([None, None, None, (1, 2500.5)])),
        disable=draw(st.sampled_from([False, False, False, True])),
    )


@st.composite
def trees(draw: st.DrawFn, id: str = "root", depth: int = 3, parent_auto: str = "never") -> SupSpec:
    strategy: Any = draw(st.sampled_from(["one_for_one", "one_for_all", "rest_for_one", "dynamic"]))
    auto: Any = (
        "never"
        if strategy == "dynamic"
        else draw(st.sampled_from(["never", "never", "any_significant", "all_significant"]))
    )
    children: list[LeafSpec | SupSpec] = []
    if strategy != "dynamic":
        for n in range(draw(st.integers(0 if depth < 3 else 1, 3))):
            if depth > 1 and draw(st.booleans()):
                children.append(draw(trees(f"s{n}", depth - 1, auto)))
            else:
                children.append(draw(leaves(f"c{n}", auto)))
    restart = draw(st.sampled_from(RESTARTS))
    significant = parent_auto != "never" and restart != "permanent" and draw(st.booleans())
    return SupSpec(id, strategy, tuple(children), draw(intensities), restart, auto, significant)


class Real:
    """The same tree as real actors."""

    def __init__(self, world: World) -> None:
        self.world = World(fails=world.fails)
        self.registry = Registry()

    def worker(self, spec: LeafSpec, path: str) -> ChildSpec:
        fails, lives = self.world.fails, self.world.lives

        def on_start(context: object) -> None:
            if fails.get(path, 0) > 0:
                fails[path] -= 1
                raise ValueError("start")
            lives[path] = lives.get(path, 0) + 1

        return ChildSpec(
            spec.id,
            lambda: Proc(on_start=on_start, stop_s=spec.stop_s),
            restart=spec.restart,
            shutdown="brutal_kill" if spec.shutdown_s is None else spec.shutdown_s,
            significant=spec.significant,
            intensity=None if spec.own is None else Intensity(*spec.own),
            on_exceed="disable" if spec.disable else "escalate",
            name=path,
        )

    def supervisor(self, spec: SupSpec, path: str) -> SupervisorSpec:
        children = [
            self.worker(child, f"{path}/{child.id}")
            if isinstance(child, LeafSpec)
            else self.supervisor(child, f"{path}/{child.id}")
            for child in spec.children
        ]
        return SupervisorSpec(
            spec.id,
            children,
            spec.strategy,
            Intensity(*spec.intensity),
            restart=spec.restart,
            auto_shutdown=spec.auto,
            significant=spec.significant,
            name=path,
        )

    def shown(self, system: System) -> list[tuple[str, str, int]]:
        lives = self.world.lives
        return [
            (node.path, node.state, lives.get(node.path, 0) if node.kind == "worker" else 0) for node in system.tree()
        ]


class Step(NamedTuple):
    """One operation and what the model says of it."""

    what: str
    path: str
    new: LeafSpec | None = None
    many: int = 0
    answer: str = "ok"
    shown: tuple[tuple[str, str, int], ...] = ()
    ended: bool = False


ENDS = {"crash": ExitReason("crashed", error=ValueError("x")), "kill": ExitReason("killed"), "normal": NORMAL}


class Trees(RuleBasedStateMachine):
    """The rules choose from what the model shows and step the model; at the end the same steps are taken by real
    actors, in one run of virtual time, and held against what the model said of each."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.steps: list[Step] = []

    @initialize(tree=trees(), seed=st.integers(0, 3))
    def boot(self, tree: SupSpec, seed: int) -> None:
        self.tree, self.seed = tree, seed
        self.root = Node(tree, tree.id, None, self.world)
        assert self.root.start()

    @precondition(lambda self: self.workers(running=True))
    @rule(how=st.sampled_from(["crash", "crash", "crash", "kill", "normal"]), which=st.integers(0, 40))
    def child_ends(self, how: str, which: int) -> None:
        node = _pick(self.workers(running=True), which)
        assert node.parent is not None
        node.parent.child_ended(node, abnormal=how != "normal")
        self.note(Step(how, node.path))

    @precondition(lambda self: self.workers())
    @rule(which=st.integers(0, 40), many=st.integers(0, 3))
    def next_starts_fail(self, which: int, many: int) -> None:
        node = _pick(self.workers(), which)
        self.world.fails[node.path] = many
        self.note(Step("fail", node.path, many=many))

    @precondition(lambda self: self.up)
    @rule(which=st.integers(0, 40), many=st.integers(0, 3), restart=st.sampled_from(RESTARTS))
    def start_child(self, which: int, many: int, restart: Any) -> None:
        nodes = [node for node in self.root.everything() if isinstance(node.spec, SupSpec)]
        node = _pick([node for node in nodes if node.state == "running"], which)
        new = LeafSpec(f"n{many}", restart, stop_s=float(many), shutdown_s=2.0)
        self.note(Step("start", node.path, new, answer=node.start_child(new)))

    @precondition(lambda self: self.up and len(self.root.everything()) > 1)
    @rule(what=st.sampled_from(["stop", "restart", "delete"]), which=st.integers(0, 40))
    def administer(self, what: str, which: int) -> None:
        node = _pick(self.root.everything()[1:], which)
        parent = node.parent
        assert parent is not None
        ask = {"stop": parent.stop_child, "restart": parent.restart_child, "delete": parent.delete_child}[what]
        self.note(Step(what, node.path, answer=ask(node)))

    @rule(steps=st.integers(1, 3))
    def advance_the_clock(self, steps: int) -> None:
        for _ in range(steps if self.up else 0):
            self.note(Step("sleep", self.root.path))

    @property
    def up(self) -> bool:
        return self.root.state == "running"

    def workers(self, *, running: bool = False) -> list[Node]:
        nodes = [node for node in self.root.everything() if isinstance(node.spec, LeafSpec)] if self.up else []
        return [node for node in nodes if not running or node.state == "running"]

    def note(self, step: Step) -> None:
        """To be called when the model has taken it."""
        self.steps.append(step._replace(shown=tuple(self.root.shown()), ended=not self.up))
        self.world.now = len(self.steps) * STEP_S

    def teardown(self) -> None:
        if hasattr(self, "root"):
            run_deterministic(_replay, self.tree, self.steps, seed=self.seed)


def _pick(nodes: list[Node], which: int) -> Node:
    return nodes[which % len(nodes)]


async def _replay(tree: SupSpec, steps: list[Step]) -> None:
    real = Real(World())
    taken = 0
    try:
        async with open_system(real.supervisor(tree, tree.id), registry=real.registry) as system:
            began = trio.current_time()
            for n, step in enumerate(steps):
                await trio.sleep_until(began + n * STEP_S)
                await _take(real, step)
                await trio.sleep_until(began + n * STEP_S + STEP_S / 2)
                assert tuple(real.shown(system)) == step.shown, step
                taken = n + 1
            await system.stop()
    except SystemFailed:
        pass
    # A root that ends takes the block with it, in the step of which the model says so and in no other.
    ended = bool(steps) and steps[-1].ended
    assert taken == len(steps) - ended, steps[taken]
    assert system.outcome is not None


async def _take(real: Real, step: Step) -> None:
    if step.what in ENDS:
        real.registry.ref(Proc, step.path).tell(End(ENDS[step.what]))
    elif step.what == "fail":
        real.world.fails[step.path] = step.many
    elif step.what != "sleep":
        assert await _request(real, step) == step.answer, step


async def _request(real: Real, step: Step) -> str:
    parent, _, child_id = step.path.rpartition("/")
    try:
        match step.what:
            case "stop":
                await real.registry.supervisor(parent).stop_child(child_id)
            case "restart":
                await real.registry.supervisor(parent).restart_child(child_id)
            case "delete":
                await real.registry.supervisor(parent).delete_child(child_id)
            case _:
                assert step.new is not None
                new = real.worker(step.new, f"{step.path}/{step.new.id}")
                await real.registry.supervisor(step.path).start_child(new)
    except ActorsError as error:
        return type(error).__name__
    return "ok"


TestEveryTreeDoesWhatTheModelSays = Trees.TestCase
TestEveryTreeDoesWhatTheModelSays.settings = settings(max_examples=EXAMPLES, stateful_step_count=14)
