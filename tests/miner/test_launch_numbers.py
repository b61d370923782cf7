"""Numbers and URLs of a launch file are right, or the node does not start and names the field."""

import json
import math
from pathlib import Path

import pytest
from msgspec import structs

from engram.nodes import launch
from tests.miner.test_folder_storage_lifetime import LAUNCH

NUMBERS = sorted(each.name for each in structs.fields(LAUNCH) if each.type in (int, float, float | None, int | None))


def test_the_numbers_of_a_launch_file_are_found() -> None:
    assert {"port", "ends_at", "chain_reset_after_s"} < set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("number", ["-1", "-1e-320", "1e18", "1e308", str(2**62), str(2**64), "NaN", "1e999"])
def test_a_number_of_a_launch_file_that_cannot_be_meant_is_refused_by_its_name(
    tmp_path: Path, name: str, number: str
) -> None:
    path = tmp_path / "launch.json"
    launch.write(path, LAUNCH)
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "HERE"}).replace('"HERE"', number))
    with pytest.raises(launch.LaunchFileError, match=f"{name}|JSON is malformed|out of range"):
        launch.read(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_launch_file_without_an_end_that_can_be_reached_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(launch.LaunchFileError, match="ends_at"):
        launch.write(tmp_path / "launch.json", structs.replace(LAUNCH, ends_at=value))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chain_endpoints": ["ftp://chain.example"]}, "chain_endpoints"),
        ({"chain_endpoint": "wss://"}, "chain_endpoints"),
        ({"qdrant": {"url": "qdrant.example:6333"}}, "qdrant.url"),
        ({"embedder": {"kind": "minilm", "hub_url": "hub"}}, "embedder.hub_url"),
        ({"embedder": {"kind": "openai", "url": "https://me:key@ a", "model": "m", "dimension": 3}}, "embedder.url"),
    ],
)
def test_a_url_of_a_launch_file_that_is_none_is_refused_by_its_name(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    path = tmp_path / "launch.json"
    launch.write(path, LAUNCH)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(launch.LaunchFileError, match=named) as caught:
        launch.read(path)
    assert "key@" not in str(caught.value)


def test_an_endpoint_of_the_chain_may_be_a_websockets(tmp_path: Path) -> None:
    told = structs.replace(LAUNCH, chain_endpoint="ws://127.0.0.1:9944", chain_endpoints=("wss://chain.example",))
    launch.write(tmp_path / "launch.json", told)
    assert launch.read(tmp_path / "launch.json") == told
