"""Runs a command under the sandbox of the units, as far as a process can confine itself: `confined.py UNIT COMMAND…`.

System calls beyond `SystemCallFilter=` fail with EPERM, memory is never both writable and executable, and no privilege
is gained. systemd does the same; it does not run where the tests do.
"""

import ctypes
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_MDWE, PR_GET_MDWE = 38, 22, 65, 66
FILTER_MODE = 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE_EPERM = 0x7FFF_0000, 0x0005_0001


def members(group: str) -> Iterator[str]:
    """The system calls of a group of systemd, those of the groups in it too."""
    shown = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    for word in re.sub(r"#.*", "", shown.stdout).split()[1:]:
        if word.startswith("@"):
            yield from members(word)
        else:
            yield word


def allowed(unit: Path) -> set[str]:
    """What a unit's SystemCallFilter= lines allow."""
    found: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE):
        named = {call for group in line.removeprefix("~").split() for call in members(group)}
        found = found - named if line.startswith("~") else found | named
    return found


def program(calls: set[str]) -> bytes:
    """The filter as the kernel reads it: two instructions a call."""
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text()))
    code = struct.pack("<HBBI", LOAD, 0, 0, 0)
    for call in sorted(calls & set(numbers)):
        code += struct.pack("<HBBI", EQUAL, 0, 1, int(numbers[call])) + struct.pack("<HBBI", RETURN, 0, 0, ALLOW)
    return code + struct.pack("<HBBI", RETURN, 0, 0, REFUSE_EPERM)


def confine(unit: Path) -> None:
    """Confine this process and all that it starts. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = program(allowed(unit))
    loaded = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(loaded))
    steps: list[tuple[int, int, object]] = [(PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, FILTER_MODE, header)]
    if libc.prctl(PR_GET_MDWE, 0, 0, 0, 0) >= 0:
        steps.insert(0, (PR_SET_MDWE, 1, 0))
    for option, first, third in steps:
        if libc.prctl(option, first, third, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
