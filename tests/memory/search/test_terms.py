"""What of a query is looked for, and that none of it is an operator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.durable.driver import sqlite3
from engram.memory.search import terms, words_db

pytestmark = pytest.mark.rules


@pytest.fixture(scope="module")
def table() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(f"CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize=\"{words_db.TOKENS}\")")
    return connection


def found(table: sqlite3.Connection, text: str, query: str) -> bool:
    """Whether a query finds a text, by SQLite itself."""
    table.execute("INSERT INTO words (words) VALUES ('delete-all')")
    table.execute("INSERT INTO words (rowid, text) VALUES (1, ?)", (terms.indexed(text),))
    asked = terms.expression(query)
    return bool(asked) and table.execute("SELECT 1 FROM words WHERE words MATCH ?", (asked,)).fetchone() is not None


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("templates of C++ in practice", "C++"),
        ("the driver for LimeSDR boards", "limesdr"),
        ("call foo_bar(x)", "foo-bar"),
        ("foxes jumping", "a fox jumps"),
        ("東京都に行く", "東京"),
        ("今日は東京都に行く", "京都府と東京"),
        ("中", "中"),
        ("Cafe\u0301 au lait", "café"),
        ("\u1eb9\u0300k\u1ecd\u0301 ni", "\u1eb9\u0300k\u1ecd\u0301"),
        ("\u1eb9\u0300k\u1ecd\u0301 ni", "eko"),
        ("q\u0308x", "q\u0308x"),
        ("q\u0308x", "qx"),
        ("العَرَبِيَّة لغة", "العربية"),
        ("العربية لغة", "العَرَبِيَّة"),
        ("שָׁלוֹם", "שלום"),
        ("हिन्दी भाषा", "हिन्दी"),
        ("தமிழ் மொழி", "தமிழ்"),
        ("ＡＢＣ", "abc"),
        ("abc", "ＡＢＣ"),
        ("ﬁnd it", "find"),
        ("半角ｶﾞ", "ガ"),
        ("STRASSE", "straße"),
        ("istanbul", "İstanbul"),
        ("a NEAR miss", 'NEAR("miss")'),
        ("x", 'text:x OR ^x* AND NOT ("x'),
    ],
)
def test_names_and_words_are_found_however_they_are_written(table: sqlite3.Connection, text: str, query: str) -> None:
    assert found(table, text, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("京の都", "京都"),
        ("हिन्दी", "ह"),
        ("nothing of it", "\u0301 \u6771\u0301"),
        ("nothing of it", "+++"),
        ("nothing of it", ""),
        ("a word", "AND"),
    ],
)
def test_what_is_not_there_is_not_found(table: sqlite3.Connection, text: str, query: str) -> None:
    assert not found(table, text, query)


@given(query=st.text(max_size=60) | st.text("\"'()*^:+-{}ANDORNEAR \0\ud800", max_size=40))
def test_no_query_is_an_error(table: sqlite3.Connection, query: str) -> None:
    asked = terms.expression(query.encode("utf-8", "ignore").decode())
    if asked:
        table.execute("SELECT 1 FROM words WHERE words MATCH ?", (asked,)).fetchone()


def test_a_query_is_read_from_its_beginning_up_to_its_bound(table: sqlite3.Connection) -> None:
    many = " ".join(f"word{number}" for number in range(1_000))
    assert terms.expression(many).count(" OR ") == terms.MAX_TERMS - 1
    assert terms.expression("again " * 1_365) == '"again"'
    assert len(terms.expression("x" * 8_192)) < 300
