import pytest

from config.model import ChainSettings
from engram.chain.errors import AnotherNetwork
from engram.chain.read.endpoints import GENESIS, check_genesis, http_url, open_endpoints
from engram.chain.read.recorded import RecordedEndpoint
from engram.clock import ManualClock
from engram.http.client import HttpClient


def named(settings: ChainSettings) -> list[str]:
    return [node.name for node in open_endpoints(settings, HttpClient(), ManualClock())]


def test_the_local_profile_reads_the_recording() -> None:
    (node,) = open_endpoints(ChainSettings(source="recorded"), HttpClient(), ManualClock())
    assert isinstance(node, RecordedEndpoint)


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


@pytest.mark.parametrize(
    ("network", "served"), [("test", "finney"), ("local", "finney"), ("finney", "test"), ("archive", "test")]
)
def test_another_known_network_than_the_named_one_is_refused(network: str, served: str) -> None:
    with pytest.raises(AnotherNetwork, match=f"serves {served}, not {network}"):
        check_genesis(network, GENESIS[served])


@pytest.mark.parametrize(
    ("network", "genesis"),
    [
        ("finney", GENESIS["finney"]),
        ("archive", GENESIS["finney"]),
        ("test", GENESIS["test"]),
        ("local", bytes(32)),
        (None, GENESIS["finney"]),
    ],
)
def test_the_named_network_and_chains_of_ones_own_are_signed_for(network: str | None, genesis: bytes) -> None:
    check_genesis(network, genesis)
