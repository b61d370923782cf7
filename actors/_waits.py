"""Who waits for whom: a wait that would close a cycle is refused before it begins."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from actors._errors import CallCycle
from actors._mailbox import Mailbox, Node

asker: Final[ContextVar[Mailbox | None]] = ContextVar("actors_asker", default=None)
"""The mailbox whose handler the current task is, if it is one."""


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
