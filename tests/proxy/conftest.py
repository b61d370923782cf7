from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Rendering a traceback for people takes longer than many of these tests."""
    with capture_logs():
        yield
