"""Limits by cgroup v2, where a subtree was delegated to this process.

That is so when the gateway runs in a leaf (`…/engram.service/gateway`) of a delegated group (`…/engram.service`) that
has the memory and cpu controllers, as systemd 254 and newer make it with `Delegate=memory cpu` and
`DelegateSubgroup=gateway`. Each node gets a group beside that leaf. Everywhere else the limits are reported as not
enforced.

A group is delegated when its manager has marked it (https://systemd.io/CGROUP_DELEGATION): that it can be
written says nothing, root may write every group.

An older systemd ignores `DelegateSubgroup=` and leaves the gateway in the unit's own group. There the gateway makes its
leaf itself, where LEAF_VARIABLE names one. A unit may only set it if it takes the controllers back once the gateway has
ended (`ExecStopPost=`): systemd cannot put the next gateway into a group that hands controllers on to the nodes that
stayed (EBUSY). The kernel forgets the limits with the controllers, so each start sets those of the nodes it finds. What
a node held by then is no longer counted in its group; the gateway's own measurement counts it.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, final

_MARKS: Final = ("user.delegate", "trusted.delegate")
"""Extended attributes with which systemd marks a delegated group; only root can read the second."""
_CONTROLLERS: Final = frozenset({"memory", "cpu"})
_CPU_PERIOD_US = 100_000
LEAF_VARIABLE: Final = "ENGRAM_CGROUP_LEAF"
"""Names the group that the gateway makes for itself in the group of its unit, where its manager makes none."""
_LEAF: Final = re.compile(r"[a-z][a-z0-9]*")


@final
class NodeGroups:
    """The groups of this machine's nodes, under a delegated group."""

    def __init__(self, delegated: Path) -> None:
        self._delegated = delegated

    def confine(self, name: str, pids: Iterable[int], memory_bytes: int, cpu_vcpu: int) -> None:
        """Put processes, and what they start from now on, into the group `name`; those that have ended are passed over.

        With `cpu_vcpu` 0 the group's limit of processors stays as it is. Blocks briefly. Raises OSError.
        """
        group = self._delegated / f"engram-{name}"
        group.mkdir(exist_ok=True)
        (group / "memory.max").write_text(str(memory_bytes), encoding="ascii")
        if cpu_vcpu:
            (group / "cpu.max").write_text(f"{cpu_vcpu * _CPU_PERIOD_US} {_CPU_PERIOD_US}", encoding="ascii")
        _move(pids, group)

    def remove(self, name: str) -> None:
        """Remove an empty group; one that is missing or still in use is left as it is."""
        with contextlib.suppress(OSError):
            (self._delegated / f"engram-{name}").rmdir()


def find(
    mounted: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
    attribute: Callable[[Path, str], bytes] | None = None,
    leaf: str = "",
) -> NodeGroups | None:
    """Return the group above this process's own, if it was delegated to us; None when limits cannot be set this way.

    `attribute` reads an extended attribute, or raises OSError (os.getxattr). Where this process's own group was
    delegated and `leaf` names a group, it goes there first, with all that is in its group. Blocks briefly.
    """
    try:
        lines = own.read_text(encoding="ascii").splitlines()
        place = next(line[3:] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    group = mounted / place.lstrip("/")

    def is_ours(group: Path) -> bool:
        return ".." not in group.parts and mounted in group.parents and _is_marked(group, attribute or os.getxattr)

    if is_ours(group) and _LEAF.fullmatch(leaf) and _enter(group, leaf):
        delegated = group
    elif is_ours(group.parent):
        delegated = group.parent
    else:
        return None
    return NodeGroups(delegated) if _hands_on_controllers(delegated) else None


def _enter(group: Path, leaf: str) -> bool:
    """Move all processes of a group that has the controllers into a leaf of it; return whether that was possible."""
    try:
        if not set((group / "cgroup.controllers").read_text(encoding="ascii").split()) >= _CONTROLLERS:
            return False
        (group / leaf).mkdir(exist_ok=True)
        for _ in range(2):  # what was started meanwhile comes after
            _move(map(int, (group / "cgroup.procs").read_text(encoding="ascii").split()), group / leaf)
    except OSError:
        return False
    return True


def _move(pids: Iterable[int], group: Path) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(str(pid), encoding="ascii")


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
