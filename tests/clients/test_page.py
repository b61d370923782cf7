"""docs/clients.md as a text: nothing on it is left untried."""

import ast

from tests.clients import documented, test_documented


def test_every_program_of_the_page_is_run() -> None:
    assert set(documented.blocks("js")) == {"order", *test_documented.JAVASCRIPT}
    assert set(documented.blocks("python")) == {"order", *test_documented.PYTHON}
    assert documented.PAGE.read_text().count("```") == 2 * (2 + 4 + 4)


def test_programs_in_python_can_be_parsed() -> None:
    for name in test_documented.PYTHON:
        ast.parse(documented.program("python", name))


def test_the_page_names_the_versions_that_are_installed() -> None:
    text = documented.PAGE.read_text()
    for name, version in documented.installed():
        assert f"`{name}` {version}" in text
