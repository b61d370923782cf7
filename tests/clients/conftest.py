"""A gateway for play money and one on a chain, both open to pages of one other origin; one of each for all tests."""

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Site, open_site
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.evm.shop import Shop, open_shop


@pytest.fixture(scope="session")
def page() -> Iterator[Site]:
    with open_site() as site:
        yield site


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, page: Site) -> Iterator[str]:
    """URL of a gateway that takes play money."""
    with GatewayProcess(tmp_path_factory.mktemp("local") / "data", settings=_open_to(page)) as gateway:
        yield gateway.start().url


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, page: Site) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("chain"), settings=_open_to(page)) as shop:
        yield shop


def _open_to(page: Site) -> str:
    return FAST.replace("[http]", f"[http]\ncors_origins = ['{page.origin}']")
