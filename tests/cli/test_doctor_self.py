"""`engram doctor --self` from a checkout, and what it reads of a process and of a folder."""

import hashlib
import json
from pathlib import Path

import pytest

from engram.cli.doctor import own
from tests.cli.conftest import Run

CONFINED = "Name:\tengram\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
FREE = "Name:\tengram\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n"


def test_a_checkout_says_what_it_is(run: Run) -> None:
    ran = run("doctor", "--self", "--json")
    found = {finding["what"]: finding for finding in json.loads(ran.out)}
    assert ran.code == 0
    assert found["form"]["text"].startswith("checkout in ")
    assert {"sqlite", "sandbox"} <= set(found)


def test_a_confined_process_is_told_from_a_free_one() -> None:
    confined, free = own.sandbox(CONFINED, 1_000), own.sandbox(FREE, 0)
    assert "without an ordinary user, no capabilities, no new privileges, a system call filter" in free.text
    assert int(confined.text[0]) >= 4
    assert (free.verdict, own.sandbox("", 0).verdict) == ("note", "note")


@pytest.mark.parametrize("change", ["changed", "missing"])
def test_a_file_that_is_not_as_it_was_built_is_named(tmp_path: Path, change: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a", "b")]
    (tmp_path / own.FILES).write_text("".join(lines))
    assert own.files(tmp_path).verdict == "good"
    if change == "changed":
        (tmp_path / "b").write_text("c")
    else:
        (tmp_path / "b").unlink()
    found = own.files(tmp_path)
    assert (found.verdict, found.text.startswith("b in ")) == ("bad", True)
