"""The list of OTP's cases is complete, and every ported or adapted case is a test that says what it asserts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \| (\w+) \| ([PAX]) \| (.*?)\|$", re.MULTILINE)
OTHER = re.compile(r"^\| (?:Elixir|ractor|gen_server)[^|]*\|[^|]*\| (\w+) \|$", re.MULTILINE)


def _tests() -> dict[str, str | None]:
    """Docstring of each test function of this folder."""
    found: dict[str, str | None] = {}
    for path in HERE.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found[node.name.removeprefix("test_")] = ast.get_docstring(node)
    return found


def test_every_case_is_listed_and_every_case_taken_over_is_a_test() -> None:
    text = (HERE / "otp.md").read_text()
    rows = ROW.findall(text)
    assert [int(number) for number, *_ in rows] == list(range(1, 94))
    assert len({name for _, name, _, _ in rows}) == 93
    tags = [tag for _, _, tag, _ in rows]
    assert (tags.count("P"), tags.count("A"), tags.count("X")) == (75, 6, 12)
    tests = _tests()
    for _, name, tag, remark in rows:
        assert (name in tests) == (tag != "X"), name
        if tag == "X":
            assert remark.strip(), f"{name} is left out without a reason"
        else:
            assert tests[name], f"test_{name} does not say what it asserts"
    for name in OTHER.findall(text):
        assert tests.get(name), name
