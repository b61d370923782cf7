"""An independent model of a tree of supervisors: plain recursion in the manner of OTP's manual, no events, no plans.

It runs an operation to its end before the next, with the virtual time that stops take. What it says must be what the
real tree shows once that is quiet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Restart = Literal["permanent", "transient", "temporary"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one", "dynamic"]


@dataclass(frozen=True)
class LeafSpec:
    """A worker that takes `stop_s` to stop and is killed after `shutdown_s` (None: brutal_kill)."""

    id: str
    restart: Restart = "permanent"
    stop_s: float = 0.0
    shutdown_s: float | None = 5.0
    significant: bool = False
    own: tuple[int, float] | None = None
    disable: bool = False


@dataclass(frozen=True)
class SupSpec:
    """A supervisor."""

    id: str
    strategy: Strategy
    children: tuple[LeafSpec | SupSpec, ...]
    intensity: tuple[int, float]
    restart: Restart = "permanent"
    auto: Literal["never", "any_significant", "all_significant"] = "never"
    significant: bool = False


@dataclass
class World:
    """What outlives the lives of nodes: starts that are to fail, lives lived, and the clock."""

    fails: dict[str, int] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)
    now: float = 0.0


@dataclass(eq=False)
class Node:
    """One child of one life of a supervisor; the root too."""

    spec: LeafSpec | SupSpec
    path: str
    parent: Node | None
    world: World
    state: Literal["stopped", "running", "disabled"] = "stopped"
    children: list[Node] = field(default_factory=list)
    window: list[float] = field(default_factory=list)

    # --- starting and stopping

    def start(self) -> bool:
        """False when it, or anything in it, fails to start; then nothing of it runs."""
        if isinstance(self.spec, LeafSpec):
            if self.world.fails.get(self.path, 0) > 0:
                self.world.fails[self.path] -= 1
                return False
            self.world.lives[self.path] = self.world.lives.get(self.path, 0) + 1
        else:
            self.window = []
            self.children = [self._child(spec) for spec in self.spec.children]
            for node in self.children:
                if not node.start():
                    self._stop_children()
                    return False
        self.state = "running"
        return True

    def _child(self, spec: LeafSpec | SupSpec) -> Node:
        return Node(spec, f"{self.path}/{spec.id}", self, self.world)

    def stop(self) -> None:
        """Takes its time."""
        if self.state != "running":
            return
        if isinstance(self.spec, LeafSpec):
            limit = self.spec.shutdown_s
            self.world.now += 0.0 if limit is None else min(limit, self.spec.stop_s)
        else:
            self._stop_children()
        self.state = "stopped"

    def _stop_children(self) -> None:
        assert isinstance(self.spec, SupSpec)
        began = latest = self.world.now
        for node in reversed(self.children):
            if self.spec.strategy == "dynamic":
                self.world.now = began
            node.stop()
            latest = max(latest, self.world.now)
        self.world.now = latest
        self.children = [] if self.spec.strategy == "dynamic" else self.children

    # --- what happens to a child, seen by its supervisor

    def child_ended(self, child: Node, *, abnormal: bool) -> None:
        """A running child ended by itself."""
        child.state = "stopped"
        restart = child.spec.restart
        if restart == "permanent" or (restart == "transient" and abnormal):
            self._restart(child)
            return
        self._drop_if_forgotten(child)
        self._auto_shutdown(child)

    def _drop_if_forgotten(self, child: Node) -> None:
        assert isinstance(self.spec, SupSpec)
        if child.spec.restart == "temporary" or self.spec.strategy == "dynamic":
            self.children.remove(child)

    def _auto_shutdown(self, child: Node) -> None:
        assert isinstance(self.spec, SupSpec)
        if not child.spec.significant or self.spec.auto == "never":
            return
        others = [node for node in self.children if node.spec.significant and node.state == "running"]
        if self.spec.auto == "any_significant" or not others:
            self._end()

    def _end(self) -> None:
        self._stop_children()
        self.state = "stopped"
        if self.parent is not None:
            self.parent.child_ended(self, abnormal=False)

    def _restart(self, child: Node | None) -> None:
        assert isinstance(self.spec, SupSpec)
        while child is not None:
            if not self._allowed(child):
                return
            if self.spec.strategy in ("one_for_one", "dynamic"):
                child = None if child.start() else child
                continue
            first = self.children.index(child) if self.spec.strategy == "rest_for_one" else 0
            group = self.children[first:]
            for node in reversed(group):
                node.stop()
                if node.spec.restart == "temporary":
                    self.children.remove(node)
            child = None
            for node in group:
                if node in self.children and node.state == "stopped" and not node.start():
                    child = node
                    break

    def _allowed(self, child: Node) -> bool:
        """Counts a restart; gives up, or disables the child, when that is one too many."""
        assert isinstance(self.spec, SupSpec)
        spec = child.spec
        own = spec.own if isinstance(spec, LeafSpec) else None
        disable = isinstance(spec, LeafSpec) and spec.disable
        window = child.window if own is not None or disable else self.window
        most, period = own or self.spec.intensity
        window[:] = [*(then for then in window if self.world.now <= then + period), self.world.now]
        if len(window) <= most:
            return True
        if disable:
            child.state = "disabled"
            child.window = []
        else:
            self._end()
        return False

    # --- requests; each returns the name of the error, or "ok"

    def start_child(self, spec: LeafSpec) -> str:
        """Adds a worker."""
        known = next((node for node in self.children if node.spec.id == spec.id), None)
        if known is not None:
            return "AlreadyStarted" if known.state == "running" else "AlreadyPresent"
        node = self._child(spec)
        if not node.start():
            return "StartFailed"
        self.children.append(node)
        return "ok"

    def stop_child(self, child: Node) -> str:
        """Stops it for good."""
        child.stop()
        child.state = "stopped"
        self._drop_if_forgotten(child)
        return "ok"

    def restart_child(self, child: Node) -> str:
        """By hand."""
        assert isinstance(self.spec, SupSpec)
        if self.spec.strategy == "dynamic":
            return "NotAllowed"
        if child.state == "running":
            return "ChildRunning"
        child.state = "stopped"
        return "ok" if child.start() else "StartFailed"

    def delete_child(self, child: Node) -> str:
        """Forgets a stopped one."""
        assert isinstance(self.spec, SupSpec)
        if self.spec.strategy == "dynamic":
            return "NotAllowed"
        if child.state == "running":
            return "ChildRunning"
        self.children.remove(child)
        return "ok"

    # --- for comparison

    def shown(self) -> list[tuple[str, str, int]]:
        """Path, state and lives of everything that the tree lists, in its order."""
        lives = self.world.lives.get(self.path, 0) if isinstance(self.spec, LeafSpec) else 0
        rows: list[tuple[str, str, int]] = [(self.path, self.state, lives)]
        if self.state == "running":
            for node in self.children:
                rows.extend(node.shown())
        return rows

    def everything(self) -> list[Node]:
        """All nodes of running supervisors, this one first."""
        found = [self]
        if self.state == "running":
            for node in self.children:
                found.extend(node.everything())
        return found
