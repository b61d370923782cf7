"""How many nodes fit this machine.

A tier's memory is a ceiling that the watchdog holds a node to, not what it takes: a node with an empty store needs
about 0.2 GB. So the ceilings may add up to twice the machine's memory. vCPUs of a local node are shares of time, and
memory nodes are idle between requests: eight are given out for each of the machine's.
"""

import os
from pathlib import Path

MEMORY_FACTOR = 2
CPU_FACTOR = 8


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the machine's memory, or the limit of this process's own container when that is lower."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemTotal:"):
                total = int(line.split()[1]) * 1024
    except OSError:
        pass
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            total = min(total, int(limit.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return total


def places(setting: int, host_memory_bytes: int, host_cpus: int, lite_memory_bytes: int) -> int:
    """Return how many nodes of the smallest size fit, at most `setting` (0: not set)."""
    fitting = max(1, min(host_memory_bytes * MEMORY_FACTOR // lite_memory_bytes, host_cpus * CPU_FACTOR))
    return min(setting, fitting) if setting else fitting
