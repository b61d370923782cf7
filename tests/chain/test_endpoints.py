import pytest

from config.model import ChainSettings
from engram.chain.endpoints import http_url, nodes
from engram.chain.recorded import RecordedNode
from engram.clock import ManualClock
from engram.http.client import HttpClient


def named(settings: ChainSettings) -> list[str]:
    return [node.name for node in nodes(settings, HttpClient(), ManualClock())]


def test_the_local_profile_reads_the_recording() -> None:
    (node,) = nodes(ChainSettings(source="recorded"), HttpClient(), ManualClock())
    assert isinstance(node, RecordedNode)


def test_configured_endpoints_are_asked_in_their_order() -> None:
    settings = ChainSettings(endpoints=("https://b.example", "wss://a.example:443", "ws://127.0.0.1:9944"))
    assert named(settings) == ["https://b.example", "https://a.example:443", "http://127.0.0.1:9944"]


def test_a_known_network_needs_no_endpoint() -> None:
    assert named(ChainSettings(network="finney")) == ["https://entrypoint-finney.opentensor.ai:443"]


def test_an_unknown_network_without_endpoints_is_refused() -> None:
    with pytest.raises(ValueError, match=r"chain\.endpoints is empty"):
        named(ChainSettings(network="mine"))


def test_addresses_of_other_schemes_stay_as_they_are() -> None:
    assert http_url("http://a") == "http://a"
