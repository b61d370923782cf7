"""An owner with coins, and a double whose blocks are made by the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.doubles.akash.account import Account
from tests.doubles.akash.client import Client
from tests.doubles.akash.double import Options, running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture
async def owner() -> Account:
    return Account()


@pytest.fixture
async def client(owner: Account, certificates: Path) -> AsyncIterator[Client]:
    options = Options(block_s=0, funded=(owner.address,), watch_s=0.05, certificates=str(certificates))
    async with running(options, now=lambda: 1_790_000_000.0) as double, httpx2.AsyncClient(timeout=10) as http:
        yield Client(double, owner, http)
