"""What a page of another origin may do, by the word of a real browser."""

from pathlib import Path

import pytest

from tests.browser.chromium import PageError, needs_chromium, open_site, run_in_page
from tests.e2e.gateway_process import FAST, GatewayProcess

pytestmark = [needs_chromium, pytest.mark.heavy, pytest.mark.external]

READ_TIERS = "async (url) => (await (await fetch(`${url}/tiers`)).json()).tiers.length"


def test_a_page_of_an_allowed_origin_reads_answers_and_one_of_another_does_not(tmp_path: Path) -> None:
    with open_site() as allowed, open_site() as another:
        settings = FAST.replace("[http]", f"[http]\ncors_origins = ['{allowed.origin}']")
        with GatewayProcess(tmp_path / "data", settings=settings) as gateway:
            url = gateway.start().url
            assert run_in_page(allowed.origin, READ_TIERS, url) == 3
            with pytest.raises(PageError, match="CORS policy"):
                run_in_page(another.origin, READ_TIERS, url)
