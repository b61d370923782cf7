from collections.abc import Iterator

import pytest

from tests.crashes import crashes
from tests.postgres import Cluster, cluster

__all__ = ["crashes"]
collect_ignore = ["same_tests.py"]
"""A plugin, which needs to be told the server when it is imported."""


@pytest.fixture(scope="session")
def server() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
def url(server: Cluster) -> str:
    """An empty ledger."""
    return server.new_ledger()
