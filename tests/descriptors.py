"""What this process has open, by what it is: other tests' leavings may be closed meanwhile, and numbers move."""

import contextlib
import os
from collections import Counter


def open_descriptors(*kinds: str) -> Counter[str]:
    """How many descriptors show each open file (`pipe:[1234]`) whose name begins with one of `kinds`."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own, and what another thread closes
            name = os.readlink(f"/proc/self/fd/{number}")
            found[name] += name.startswith(kinds)
    return +found
