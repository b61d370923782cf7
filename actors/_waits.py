"""Who waits for whom: a wait that would close a cycle is refused before it begins."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

import trio

from actors._errors import CallCycle
from actors._interrupts import protect
from actors._mailbox import Mailbox, Node

asker: Final[ContextVar[Mailbox | None]] = ContextVar("actors_asker", default=None)
"""The mailbox whose handler the current task is, or was started by, if any."""


def attached(me: Mailbox) -> Mailbox | None:
    """`me` when its consumer waits for the current task; None for a task that a handler started outside its life."""
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None and task is not me.task:
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return None if task is None else me


def refuse_cycle(start: Mailbox, target: Node) -> None:
    """Raises CallCycle when `target` waits, through whatever chain, for `start`."""
    if target is start:
        raise CallCycle((start.path, target.path))
    if not target.waits_for():
        return
    seen: set[int] = {id(target)}
    trail: list[tuple[Node, tuple[str, ...]]] = [(target, (start.path, target.path))]
    while trail:
        node, path = trail.pop()
        for following in node.waits_for():
            if following is start:
                raise CallCycle((*path, start.path))
            if id(following) not in seen:
                seen.add(id(following))
                trail.append((following, (*path, following.path)))


protect(globals())
