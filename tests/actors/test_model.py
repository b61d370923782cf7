"""Random trees and random fates against the model; what holds for one supervisor against every order of events."""

from __future__ import annotations

from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import (
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
from tests.sampling import NIGHTLY

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


operations = st.lists(
    st.tuples(
        st.sampled_from(
            ["crash", "crash", "crash", "kill", "normal", "fail", "stop", "restart", "delete", "start", "sleep"]
        ),
        st.integers(0, 40),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=14,
)


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


async def _request(real: Real, what: str, node: Node, new: LeafSpec | None) -> str:
    try:
        if new is not None:
            await real.registry.supervisor(node.path).start_child(real.worker(new, f"{node.path}/{new.id}"))
        else:
            assert node.parent is not None
            parent = real.registry.supervisor(node.parent.path)
            await {"stop": parent.stop_child, "restart": parent.restart_child, "delete": parent.delete_child}[what](
                node.spec.id
            )
    except ActorsError as error:
        return type(error).__name__
    return "ok"


async def _run(tree: SupSpec, fates: list[tuple[str, int, int]]) -> None:
    model_world, real = World(), Real(World())
    model = Node(tree, tree.id, None, model_world)
    assert model.start()
    try:
        async with open_system(real.supervisor(tree, tree.id), registry=real.registry) as system:
            began = trio.current_time()
            for step, (what, which, many) in enumerate(fates):
                model_world.now = step * STEP_S
                await trio.sleep_until(began + step * STEP_S)
                await _fate(model, real, what, which, many)
                await trio.sleep_until(began + step * STEP_S + STEP_S / 2)
                assert real.shown(system) == model.shown(), (what, which, many)
            await system.stop()
    except SystemFailed:
        pass
    assert model.state == "stopped" or system.outcome is not None
    if model.state == "stopped":
        assert system.outcome is not None


async def _fate(model: Node, real: Real, what: str, which: int, many: int) -> None:
    nodes = model.everything()
    workers = [node for node in nodes if isinstance(node.spec, LeafSpec)]
    running = [node for node in workers if node.state == "running"]
    if what in ("crash", "kill", "normal") and running:
        node = running[which % len(running)]
        reason = {"crash": ExitReason("crashed", error=ValueError("x")), "kill": ExitReason("killed")}.get(
            what, ExitReason("normal")
        )
        real.registry.ref(Proc, node.path).tell(End(reason))
        assert node.parent is not None
        node.parent.child_ended(node, abnormal=what != "normal")
    elif what == "fail" and workers:
        path = workers[which % len(workers)].path
        model.world.fails[path] = real.world.fails[path] = many
    elif what == "start":
        supervisors = [node for node in nodes if isinstance(node.spec, SupSpec) and node.state == "running"]
        node = supervisors[which % len(supervisors)]
        new = LeafSpec(f"n{many}", RESTARTS[which % 3], stop_s=float(many), shutdown_s=2.0)
        answer = await _request(real, what, node, new)
        assert answer == node.start_child(new)
    elif what in ("stop", "restart", "delete") and len(nodes) > 1:
        node = nodes[1 + which % (len(nodes) - 1)]
        assert node.parent is not None
        answer = await _request(real, what, node, None)
        assert answer == {
            "stop": node.parent.stop_child,
            "restart": node.parent.restart_child,
            "delete": node.parent.delete_child,
        }[what](node)


@settings(max_examples=EXAMPLES)
@given(trees(), operations, st.integers(0, 3))
def test_every_tree_does_what_the_model_says(tree: SupSpec, fates: list[tuple[str, int, int]], seed: int) -> None:
    run_deterministic(_run, tree, fates, seed=seed)
