"""The eight lines, from what was seen and what the chain says."""

from pathlib import Path

import pytest

from engram.kit.checklist import COMMIT, INCENTIVE, LINES, LOCALLY, OPEN_SOURCE, REGISTER, OnChain, checklist
from engram.kit.inspection import Finding, Inspected

GOOD = Inspected([Finding("answers", True, "")], [Finding("replay", True, "")], [Finding("inference", True, "")])
NOTHING = Inspected([Finding("answers", False, "no connection")], [], [])
EARNING = OnChain(registered=True, netuid=11, uid=7, committed="1.2.3.4:8080", incentive=0.5, emission_rao=2 * 10**9)


def words(
    found: Inspected, chain: OnChain | None, project: Path | None = None, public: str | None = None
) -> dict[str, tuple[str, str]]:
    lines = checklist(found, chain=chain, url="https://1.2.3.4:8080/", seen_from="5V", project=project, public=public)
    assert tuple(each.line for each in lines) == LINES
    return {each.line: (each.state, each.words) for each in lines}


def test_a_miner_that_earns_and_is_open_is_green_in_every_line(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("MIT")
    (tmp_path / "README.md").write_text("# mine\n\nRepository: <https://example.org/mine>\n")
    lines = words(GOOD, EARNING, tmp_path)
    assert {state for state, _ in lines.values()} == {"good"}
    assert lines[REGISTER][1] == "uid 7 on subnet 11"
    assert lines[INCENTIVE][1] == "incentive 0.5000, emission 2.000000 alpha a tempo"
    assert lines[OPEN_SOURCE][1] == "LICENSE; https://example.org/mine"


def test_what_is_not_registered_is_to_be_registered_and_earns_nothing() -> None:
    lines = words(GOOD, OnChain(registered=False, netuid=11))
    assert lines[REGISTER] == ("to do", "engram miner-check … --netuid 11 --register --max-cost TAO")
    assert lines[INCENTIVE][0] == "to do"
    assert lines[COMMIT] == ("to do", "nothing is committed: engram miner-check URL --commit-endpoint")


@pytest.mark.parametrize(("public", "state"), [(None, "to do"), ("5.6.7.8:443", "good")])
def test_the_committed_address_is_the_one_that_validators_reach(public: str | None, state: str) -> None:
    chain = OnChain(registered=True, netuid=11, uid=7, committed="5.6.7.8:443", incentive=0.0, emission_rao=0)
    assert words(GOOD, chain, public=public)[COMMIT][0] == state


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
