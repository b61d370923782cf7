"""The table of docs/http.md is what is answered: our column and the reasons at any time, the others' in heavy runs."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.http.others import installed, right, served, statuses, table, what_was_seen
from tests.http.raw_requests import CASES
from tests.http.reasons import BY_REASON, REASONS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "http.md"
CELL = re.compile(r"(?<!\\)\|")
PUBLISHED = ("ours", "hypercorn", "nginx", "node")
RACING = {"uvicorn"}
"""Answers pipelined requests of a half-closed client only when it is fast enough."""


def published() -> dict[str, list[str]]:
    """The rows of the table, by the name of the request."""
    lines = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in CELL.split(line)[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in rows if len(row) == 8}


def test_each_row_says_what_ours_answers_and_why() -> None:
    rows, cases = published(), {case.name: case for case in CASES}
    assert rows.pop("request")[-2:] == ["what the application saw", "why ours does so"]
    assert len(rows) > 100
    assert {name: (row[0], row[-1]) for name, row in rows.items()} == {
        name: (right(cases[name]), REASONS[name]) for name in rows
    }


def test_a_reason_names_requests_that_are_there_once() -> None:
    named = [name for names in BY_REASON.values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= {case.name for case in CASES}


@pytest.mark.heavy
def test_the_other_servers_answer_as_published() -> None:
    names = [name for name in installed() if name not in RACING]
    compare(names)
    if missing := sorted(set(PUBLISHED) - set(names)):
        pytest.skip(f"{', '.join(missing)} not installed here; the others answer as published")


def compare(names: Sequence[str]) -> None:
    with ThreadPoolExecutor(len(names)) as threads:
        found = dict(zip(names, threads.map(lambda name: dict(served(name)), names), strict=True))
    rows = published()
    header = rows.pop("request")
    for case in CASES:
        each = {name: found[name][case.name] for name in names}
        assert statuses(each["ours"]) == right(case)
        if (row := rows.get(case.name)) is not None:
            for name in set(names) - {"ours"}:
                assert (case.name, name, row[header.index(name)]) == (case.name, name, statuses(each[name]))
        else:
            assert {statuses(answered) for answered in each.values()} == {right(case)}, case.name
            assert what_was_seen(each).startswith(("`", "nothing")), case.name
    assert len(table(found)) > 80
