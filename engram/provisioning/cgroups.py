"""Limits by cgroup v2, where a subtree was delegated to this process.

That is so when the gateway runs in a leaf (`…/engram.service/gateway`) of a delegated group (`…/engram.service`) that
has the memory and cpu controllers, as systemd 254 and newer make it with `Delegate=memory cpu` and
`DelegateSubgroup=gateway`. Each node gets a group beside that leaf. Everywhere else the limits are reported as not
enforced.

A group is delegated when its manager has marked it (https://systemd.io/CGROUP_DELEGATION): that it can be
written says nothing, root may write every group. An older systemd ignores `DelegateSubgroup=` and leaves the gateway in
the unit's own group, whose parent is `system.slice`: not ours. A leaf made here would not help it: systemd cannot put
the next gateway into a group that hands controllers on to the nodes that stayed (EBUSY).
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

_MARKS: Final = ("user.delegate", "trusted.delegate")
"""Extended attributes with which systemd marks a delegated group; only root can read the second."""
_CONTROLLERS: Final = frozenset({"memory", "cpu"})
_CPU_PERIOD_US = 100_000


@final
class NodeGroups:
    """The groups of this machine's nodes, under a delegated group."""

    def __init__(self, delegated: Path) -> None:
        self._delegated = delegated

    def confine(self, name: str, pid: int, memory_bytes: int, cpu_vcpu: int) -> None:
        """Put `pid` and what it starts from now on into the group `name`. Blocks briefly. Raises OSError."""
        group = self._delegated / f"engram-{name}"
        group.mkdir(exist_ok=True)
        (group / "memory.max").write_text(str(memory_bytes), encoding="ascii")
        (group / "cpu.max").write_text(f"{cpu_vcpu * _CPU_PERIOD_US} {_CPU_PERIOD_US}", encoding="ascii")
        (group / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def remove(self, name: str) -> None:
        """Remove an empty group; one that is missing or still in use is left as it is."""
        with contextlib.suppress(OSError):
            (self._delegated / f"engram-{name}").rmdir()


def find(
    mounted: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
    attribute: Callable[[Path, str], bytes] | None = None,
) -> NodeGroups | None:
    """Return the group above this process's own, if it was delegated to us; None when limits cannot be set this way.

    `attribute` reads an extended attribute, or raises OSError (os.getxattr).
    """
    try:
        lines = own.read_text(encoding="ascii").splitlines()
        place = next(line[3:] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    leaf = mounted / place.lstrip("/")
    delegated = leaf.parent
    if ".." in leaf.parts or mounted not in delegated.parents or not _is_marked(delegated, attribute or os.getxattr):
        return None
    return NodeGroups(delegated) if _hands_on_controllers(delegated) else None


def _is_marked(group: Path, attribute: Callable[[Path, str], bytes]) -> bool:
    for mark in _MARKS:
        with contextlib.suppress(OSError):
            if attribute(group, mark) == b"1":
                return True
    return False


def _hands_on_controllers(group: Path) -> bool:
    """Whether groups within it can be limited; where it has the controllers, they are handed on now."""
    handed_on = group / "cgroup.subtree_control"
    try:
        missing = _CONTROLLERS - set(handed_on.read_text(encoding="ascii").split())
        if missing:
            handed_on.write_text(" ".join(f"+{name}" for name in sorted(missing)), encoding="ascii")
    except OSError:
        return False
    return os.access(group, os.W_OK)
