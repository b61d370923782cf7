"""The documentation's tables of endpoints are those of the rows."""

import pytest

from engram.api.tables import DOCS, PAGES, insert, table


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_endpoints_that_there_are(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert insert(page, table(PAGES[name])) == page, "run python -m engram.api.tables"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks"):
        insert("# A page", "| |")
