"""`.env` files are read strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.dotenv import parse


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("A =  1  ", "1"),
        ("export A=1", "1"),
        ("A=", ""),
        ("A=  # nothing", ""),
        ("A=x # comment", "x"),
        ("A=x#y", "x#y"),
        ("A=#x", ""),
        ("A=https://h:1/p?q=1#f", "https://h:1/p?q=1#f"),
        ('A="x # y"', "x # y"),
        ('A="x" # y', "x"),
        ("A='x # \\n y'", "x # \\n y"),
        (r'A="a\nb\t\"c\"\\ \$ \q"', 'a\nb\t"c"\\ $ \\q'),
        ("\ufeffA=1", "1"),
        ("A=1\nA=2", "2"),
    ],
)
def test_a_value_is_what_stands_there(line: str, value: str) -> None:
    assert parse(line) == ({"A": value}, [])


@pytest.mark.parametrize("line", ["A", "1A=1", "=1", 'A="x', "A='x", 'A="x" y', "A-B=1", "set A=1"])
def test_a_line_that_is_no_assignment_is_told_by_its_number(line: str) -> None:
    assert parse(f"# first\n\n{line}\nB=1") == ({"B": "1"}, [3])


@given(st.text(alphabet=st.characters(exclude_characters="'\r\n", codec="utf-8")))
def test_single_quotes_keep_everything(value: str) -> None:
    if len(value.splitlines()) <= 1 and "\ufeff" not in value:
        assert parse(f"A='{value}'")[0].get("A", value) == value


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse(text)
