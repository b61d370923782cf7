"""What processes use, as the kernel tells."""

import os
from pathlib import Path


def resident_mb(pid: int) -> float:
    """Of a process and of all that it started."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        except OSError:
            continue
        if int(fields["PPid"]) == pid:
            total += resident_mb(int(folder.name))
        elif int(folder.name) == pid and "VmRSS" in fields:
            total += int(fields["VmRSS"].split()[0]) / 1024
    return total


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process and of those that it started itself."""
    children = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()
    ticks = 0
    for each in (str(pid), *children):
        fields = (Path("/proc") / each / "stat").read_text().rsplit(") ", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
