"""The documentation of the settings is that of the settings there are."""

import pytest

from config.environment import NAMES
from config.keys import KEYS
from config.reference import PAGE, insert, markdown


def test_the_page_lists_the_settings_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert insert(page, markdown()) == page, "run python -m config.reference"


def test_every_variable_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in NAMES if f"| `{name}` |" not in page] == []


def test_every_key_has_a_line() -> None:
    table = markdown()
    assert [key for key in KEYS if f"| `{key.rpartition('.')[2]}` |" not in table] == []


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks"):
        insert("a page", "table")
