"""One house for all tests of this folder; they run in one worker, one after the other."""

from collections.abc import Iterator

import pytest

from tests.evm.early import Early
from tests.evm.shop import Shop, open_shop
from tests.sampling import NIGHTLY

PLACES = 50 if NIGHTLY else 20


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("evm")) as shop:
        yield shop


@pytest.fixture(scope="session")
def early(house: Shop) -> Iterator[Early]:
    begun = Early(house)
    yield begun
    begun.join()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Another house on another chain, of no more places than the test of buyers fills."""
    with open_shop(tmp_path_factory.mktemp("small"), places=PLACES) as shop:
        yield shop


@pytest.fixture
def shop(house: Shop, early: Early) -> Iterator[Shop]:
    """The house with every fault mended afterwards."""
    yield house
    house.wire.mend()
    house.chain.automine(True)
