"""The eight lines, from what was seen and what the chain says."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from engram.kit.checklist import COMMIT, INCENTIVE, LINES, LOCALLY, OPEN_SOURCE, REGISTER, OnChain, checklist
from engram.kit.inspection import Finding, Inspected

pytestmark = pytest.mark.rules

GOOD = Inspected([Finding("answers", True, "")], [Finding("replay", True, "")], [Finding("inference", True, "")])
NOTHING = Inspected([Finding("answers", False, "no connection")], [], [])
EARNING = OnChain(
    registered=True,
    netuid=11,
    uid=7,
    committed="1.2.3.4:8080",
    incentive=0.5,
    emission_rao=2 * 10**9,
    since_block=1021,
    incentive_change=-0.01,
    emission_change_rao=250_000_000,
)
THERE = (Finding("certificate", True, ""), Finding("answers", True, ""))
DEAD = (Finding("answers", False, "no connection"),)


def words(
    found: Inspected,
    chain: OnChain | None,
    project: Path | None = None,
    public: str | None = None,
    committed: Sequence[Finding] = THERE,
) -> dict[str, tuple[str, str]]:
    lines = checklist(found, chain=chain, seen_from="5V", project=project, public=public, committed=committed)
    assert tuple(each.line for each in lines) == LINES
    return {each.line: (each.state, each.words) for each in lines}


def test_a_miner_that_earns_and_is_open_is_green_in_every_line(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("MIT")
    (tmp_path / "README.md").write_text("# mine\n\nRepository: <https://example.org/mine>\n")
    lines = words(GOOD, EARNING, tmp_path)
    assert {state for state, _ in lines.values()} == {"good"}
    assert lines[REGISTER][1] == "uid 7 on subnet 11"
    assert lines[INCENTIVE][1] == (
        "incentive 0.5000, emission 2.000000 alpha a tempo; -0.0100 and +0.250000 since block 1021"
    )
    assert lines[OPEN_SOURCE][1] == "LICENSE; https://example.org/mine"


def test_earnings_whose_change_is_not_known_are_shown_with_the_reason() -> None:
    unknown = OnChain(registered=True, netuid=11, incentive=0.5, emission_rao=0, change_unknown_because="no block 9")
    state, said = words(GOOD, unknown)[INCENTIVE]
    assert (state, said.partition("; ")[2]) == ("good", "their change is not known: no block 9")


def test_what_is_not_registered_is_to_be_registered_and_earns_nothing() -> None:
    lines = words(GOOD, OnChain(registered=False, netuid=11))
    assert lines[REGISTER] == ("to do", "engram miner-check … --netuid 11 --register --max-cost TAO")
    assert lines[INCENTIVE][0] == "to do"
    assert lines[COMMIT] == ("to do", "nothing is committed: engram miner-check URL --commit-endpoint")


@pytest.mark.parametrize(
    ("public", "committed", "state", "said"),
    [
        (None, THERE, "good", "1.2.3.4:8080 is committed, and was looked at"),
        ("1.2.3.4:8080", THERE, "good", "was looked at"),
        (None, DEAD, "to do", "as seen from here is not this miner: answers: no connection"),
        ("1.2.3.4:8080", DEAD, "to do", "as seen from here is not this miner: answers: no connection"),
        ("5.6.7.8:443", THERE, "to do", "1.2.3.4:8080 is committed, and not 5.6.7.8:443"),
        (None, (), "to do", "1.2.3.4:8080 is committed, which is no address"),
    ],
)
def test_the_committed_address_is_good_only_where_it_was_seen(
    public: str | None, committed: Sequence[Finding], state: str, said: str
) -> None:
    found = words(GOOD, EARNING, public=public, committed=committed)[COMMIT]
    assert (found[0], said in found[1]) == (state, True), found


def test_a_miner_that_is_not_reached_has_all_that_depends_on_it_to_do() -> None:
    lines = words(NOTHING, None)
    assert [line for line, (state, _) in lines.items() if state == "to do"] == [
        LINES[1],
        LINES[2],
        LINES[4],
        LOCALLY,
        OPEN_SOURCE,
    ]
    assert "no connection" in lines[LINES[4]][1]


def test_a_miner_that_fails_before_a_validator_is_not_tested() -> None:
    failing = Inspected(GOOD.reach, GOOD.signatures, [Finding("inference", False, "answered with 500")])
    assert words(failing, None)[LOCALLY] == ("to do", "the validator 5V saw it fail: see the lines above")
    assert words(GOOD, None)[LOCALLY] == ("good", "seen by the validator 5V")


@pytest.mark.parametrize(
    ("files", "state", "said"),
    [
        ({}, "to do", "has no LICENSE file"),
        ({"LICENSE": "MIT"}, "to do", "write `Repository: https://…` into README.md"),
        ({"LICENCE.txt": "MIT", "README.md": "Repository: <https://…>"}, "to do", "publish the source"),
        ({"LICENSE": "MIT", "README.md": "Repository: https://example.org/a"}, "good", "https://example.org/a"),
    ],
)
def test_open_source_is_a_licence_and_a_repository(
    tmp_path: Path, files: dict[str, str], state: str, said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found_state, found = words(GOOD, EARNING, tmp_path)[OPEN_SOURCE]
    assert (found_state, said in found) == (state, True)
