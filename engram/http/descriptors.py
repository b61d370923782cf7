"""File descriptors: without one left nobody is answered and no ledger is read, so connections never take all."""

import resource
from typing import Final

WANTED: Final = 65_536
"""What the process asks for; a service's first allowance is often 1,024, below the connections that it may serve."""
KEPT_BACK: Final = 160
"""For the ledger's readers, running nodes, outbound requests and files."""
_LISTENERS: Final = 3
_FEWEST: Final = 16


def raise_limit(wanted: int = WANTED) -> int:
    """Raise this process's own limit towards `wanted`, as far as it may; returns the limit as it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return _finite(soft)


def allowed() -> int:
    """Return how many descriptors this process may have."""
    return _finite(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def for_connections(limit: int) -> int:
    """Return connections that each of a process's listeners may hold under `limit` descriptors.

    >>> for_connections(1024), for_connections(65536)
    (288, 21792)
    """
    return max(_FEWEST, (limit - KEPT_BACK) // _LISTENERS)


def _finite(limit: int) -> int:
    return WANTED if limit == resource.RLIM_INFINITY else limit
