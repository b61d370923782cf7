"""Reserves file descriptors: a process that has run out can neither accept connections nor read its ledger."""

import resource
from typing import Final

WANTED: Final = 65_536
"""The soft limit to ask for; services often start with 1,024, fewer than the connections they may serve."""
KEPT_BACK: Final = 160
"""Descriptors reserved for the ledger's readers, running nodes, outbound requests and files."""
_LISTENERS: Final = 3
_FEWEST: Final = 16


def raise_limit(wanted: int = WANTED) -> int:
    """Raise this process's soft limit toward `wanted`, as far as the hard limit allows; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return _finite(soft)


def allowed() -> int:
    """Return how many descriptors this process may open."""
    return _finite(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def for_connections(limit: int) -> int:
    """Return how many connections each of a process's listeners may hold under a limit of `limit` descriptors.

    >>> for_connections(1024), for_connections(65536)
    (288, 21792)
    """
    return max(_FEWEST, (limit - KEPT_BACK) // _LISTENERS)


def _finite(limit: int) -> int:
    return WANTED if limit == resource.RLIM_INFINITY else limit
