from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from engram.http import logs


@pytest.fixture(autouse=True)
def lines_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of requests are made, whatever level another test's program has set in this process."""
    monkeypatch.setattr(logs._requests, "wanted", True)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Rendering a traceback for people takes longer than many of these tests."""
    with capture_logs():
        yield
