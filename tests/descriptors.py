"""What this process has open, by what it is: other tests' leavings may be closed meanwhile, and numbers move."""

import contextlib
import os
import socket
from collections import Counter


def open_descriptors(*kinds: str) -> Counter[str]:
    """How many descriptors show each open file (`pipe:[1234]`) whose name begins with one of `kinds`."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own, and what another thread closes
            name = os.readlink(f"/proc/self/fd/{number}")
            found[name] += name.startswith(kinds)
    return +found


def connections_of(port: int) -> list[str]:
    """The open TCP sockets with an end at `port`, as "own end <-> peer". Other tests' fixtures have others."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(number))) as sock:
                ends = [sock.getsockname()]
                with contextlib.suppress(OSError):  # it is not connected
                    ends.append(sock.getpeername())
                if any(port in end[1:2] for end in ends if isinstance(end, tuple)):
                    found.append(" <-> ".join(map(str, ends)))
    return found
