"""Limits by cgroup v2, where this process was given a subtree of its own to rule.

That is so when the gateway runs in a leaf (`…/engram/gateway`) of a delegated group (`…/engram`) that has the memory
and cpu controllers, as systemd makes it with `Delegate=memory cpu` and `DelegateSubgroup=gateway`. Each node gets a
group beside that leaf. Everywhere else the limits are reported as not enforced.
"""

import contextlib
import os
from pathlib import Path
from typing import final

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


def find(mounted: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> NodeGroups | None:
    """The delegated group, or None when limits cannot be set this way."""
    try:
        lines = own.read_text(encoding="ascii").splitlines()
        place = next(line[3:] for line in lines if line.startswith("0::"))
        delegated = (mounted / place.lstrip("/")).parent
        controllers = (delegated / "cgroup.subtree_control").read_text(encoding="ascii").split()
    except (OSError, StopIteration):
        return None
    is_below = delegated != mounted and mounted in delegated.parents
    if is_below and {"memory", "cpu"} <= set(controllers) and os.access(delegated, os.W_OK):
        return NodeGroups(delegated)
    return None
