"""Who waits for whom: a wait whose answer could never come is refused before it begins.

A handler that waits is a link of a circle only when nothing but that circle can end its waits. A reply that was put
off, a task of the handler that does something else and may cancel the rest, and a wait that ends well before the
others of its circle make a circle harmless: it is left to end by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final, Protocol

import trio

from actors._errors import CallCycle
from actors._interrupts import protect
from actors._mailbox import Link, Mailbox, PendingCall, WaitNode

asker: Final[ContextVar[Mailbox | None]] = ContextVar("actors_asker", default=None)
"""The mailbox whose handler the current task is, or was started by, if any."""

_USUAL_S: Final = 5.0
"""The length at which a wait without a timeout is compared with one that has one: the default timeout of a call."""
_MOST_LINKS: Final = 10_000
_MOST_BRANCHES: Final = 50
"""A search that meets more of them finds nothing: then the deadlines decide."""


class Wanted(Protocol):
    """What a task waits for."""

    @property
    def done(self) -> bool:
        """True once it has come or failed, though the task may not have run yet."""
        ...


class Wait:
    """The wait of the current task, which a handler waits for, for what `target` must bring."""

    __slots__ = ("cancelled_at", "target", "task", "wanted")

    def __init__(self, target: WaitNode, wanted: Wanted) -> None:
        self.target = target
        self.wanted = wanted
        self.task = trio.lowlevel.current_task()
        self.cancelled_at = trio.current_effective_deadline()

    @property
    def binds(self) -> bool:
        """False when it is over, or when its reply was put off and so depends on no handler."""
        wanted = self.wanted
        return not wanted.done and not (isinstance(wanted, PendingCall) and wanted.kept is not None)

    def left_s(self) -> float:
        """Return seconds until it ends by itself; infinity for never."""
        left_s = self.cancelled_at - trio.current_time()
        wanted = self.wanted
        if isinstance(wanted, PendingCall) and wanted.mailbox.timers is not None:
            left_s = min(left_s, wanted.deadline - wanted.mailbox.timers.raw())
        return left_s


def attached(me: Mailbox) -> Mailbox | None:
    """`me` when its consumer waits for the current task; None for a task that a handler started outside its life."""
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task is not me.task:
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return None if task is None else me


def refuse_cycle(start: Mailbox, target: WaitNode, timeout_s: float = math.inf) -> None:
    """Raise CallCycle when the wait of the current task for `target`, of at most `timeout_s`, could not be answered
    because `target` waits, through whatever chain, for the handler of `start`, and nothing else would end one of these
    waits well before the others."""
    if target is not start and isinstance(target, Mailbox) and not target.waiting:
        return
    others = _binding_waits(start, trio.lowlevel.current_task())
    if others is None:
        return
    left_s = min(timeout_s, trio.current_effective_deadline() - trio.current_time())
    search = _Search()
    circle = search.back_from(target, (start,), (left_s,))
    if circle and all(search.back_from(other, (start,), (end,)) is not None for other, end in others):
        raise CallCycle(tuple(node.path for node in circle))


def _binding_waits(mailbox: Mailbox, beginning: trio.lowlevel.Task | None = None) -> list[Link] | None:
    """Return what the handler of `mailbox` waits for, except the wait that is `beginning`.

    None when something else may end its waits.
    """
    task, waits = mailbox.task, mailbox.waiting or []
    if task is None or not all(wait.binds for wait in waits):
        return None
    waiting = {wait.task for wait in waits}
    if all(one is beginning or one in waiting or _only_joins(one) for one in _tasks_of(task)):
        return [(wait.target, wait.left_s()) for wait in waits]
    return None


def _tasks_of(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    found = [task]
    while found:
        task = found.pop()
        yield task
        found.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)


def _only_joins(task: trio.lowlevel.Task) -> bool:
    """Return whether all that `task` does is wait for the tasks of a nursery to end."""
    nursery_exit = type(trio.open_nursery()).__aexit__.__code__
    return any(frame.f_code is nursery_exit for frame, _ in task.iter_await_frames())


class _Search:
    """The search for one circle."""

    def __init__(self) -> None:
        self._links_left = _MOST_LINKS

    def back_from(
        self, node: WaitNode, trail: tuple[WaitNode, ...], left_s: tuple[float, ...]
    ) -> tuple[WaitNode, ...] | None:
        """Return a circle when `node` cannot go on before the first of `trail` does; an empty one when another circle
        holds it; None when it may go on. Each of `trail` waits for the next, the last for `node`, and these waits end
        by themselves after `left_s`."""
        nodes, ends = list(trail), list(left_s)
        places = {id(one): place for place, one in enumerate(nodes)}
        while True:
            place = places.get(id(node))
            if place is not None:
                if _one_ends_early(ends[0], ends[place or 1 :]):
                    return None
                return () if place else (*nodes, node)
            places[id(node)] = len(nodes)
            nodes.append(node)
            links = _binding_waits(node) if isinstance(node, Mailbox) else node.links()
            self._links_left -= 1
            if not links or self._links_left < 0:
                return None
            if len(links) > 1:
                return self._back_from_each(links, tuple(nodes), tuple(ends))
            node, end = links[0]
            ends.append(end)

    def _back_from_each(
        self, links: list[Link], trail: tuple[WaitNode, ...], left_s: tuple[float, ...]
    ) -> tuple[WaitNode, ...] | None:
        """Search every link: a handler goes on when one of its waits ends, a request waits for every child it names."""
        self._links_left -= _MOST_LINKS // _MOST_BRANCHES
        one_is_enough = not isinstance(trail[-1], Mailbox)
        circle: tuple[WaitNode, ...] = ()
        for node, end in links:
            found = self.back_from(node, trail, (*left_s, end))
            if (found is not None) is one_is_enough:
                return found
            circle = circle or found or ()
        return None if one_is_enough else circle


def _one_ends_early(new_s: float, others_s: list[float]) -> bool:
    """Return whether a wait of a circle ends by itself early enough for the others to be answered.

    One of those that there are, which end after `others_s`, does within half the time that the new one has, or the
    other way round.
    """
    if not others_s:  # it waits for itself
        return False
    other_s = min(others_s)
    return other_s < _half(new_s) or new_s < _half(other_s)


def _half(seconds: float) -> float:
    return (seconds if seconds < math.inf else _USUAL_S) / 2


protect(globals())
