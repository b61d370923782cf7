"""docs/signing.md says what the tables say."""

import re
from pathlib import Path

import pytest

from engram.hotkeys import AuthError, Scheme, chutes, miner_scheme, profiles

PAGE = (Path(__file__).parents[2] / "docs" / "signing.md").read_text(encoding="utf-8")
UNITS = {"s": "seconds", "ms": "milliseconds", "ns": "nanoseconds"}
SCHEMES: dict[str, Scheme] = {
    **profiles.STRICT,
    "chutes socket": chutes.SOCKET,
    "pattern B": chutes.PATTERN_B,
    "miner body": miner_scheme.BODY,
    "namespace": miner_scheme.NAMESPACE,
    "namespace request": miner_scheme.NAMESPACE_REQUEST,
}


def rows() -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    return {row[0].split(" version")[0].replace("`", ""): row for row in cells if len(row) == 8}


def test_every_scheme_has_a_row() -> None:
    assert rows().keys() - {"Scheme", "---"} == SCHEMES.keys()


@pytest.mark.parametrize("name", SCHEMES)
def test_a_row_is_the_schemes_table(name: str) -> None:
    scheme, row = SCHEMES[name], rows()[name]
    _, _, _, unit, window, receiver, signature, replay = row
    assert UNITS[unit] == scheme.unit.name
    assert window == f"{scheme.past_ms // 1000} s / {scheme.future_ms // 1000} s"
    assert (receiver == "required") == ("receiver" in scheme.required)
    assert ("optional" in signature) == (scheme.signature.match("00" * 64) is not None)
    assert (replay == "uuid") == ("uuid" in scheme.required)


def test_every_code_is_explained() -> None:
    table = PAGE.partition("| Code |")[2].partition("\n\n")[0].splitlines()[2:]
    first = [re.sub(r"\(.*?\)", "", row.split("|")[1]) for row in table]
    documented = {code for cell in first for code in re.findall(r"`([a-z_]+)`", cell)}
    listed = (AuthError.__doc__ or "").partition("one of ")[2].partition("`skew_ms`")[0]
    codes = set(re.findall(r"\b([a-z_]+)(?=,| and| \()", re.sub(r"\(all of .*?\)", "(401)", listed, flags=re.DOTALL)))
    assert codes == documented
