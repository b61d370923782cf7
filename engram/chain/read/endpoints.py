"""The endpoints of the chain, by settings or by the network's name."""

from collections.abc import Sequence

from config.model import ChainSettings
from engram.chain.errors import AnotherNetwork
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.recorded import RecordedEndpoint
from engram.chain.read.rpc import JsonRpcEndpoint
from engram.clock import Clock
from engram.http.client import HttpClient

PUBLIC_ENDPOINTS = {
    "finney": ("https://entrypoint-finney.opentensor.ai:443",),
    "test": ("https://test.finney.opentensor.ai:443",),
    "archive": ("https://archive.chain.opentensor.ai:443",),
    "local": ("http://127.0.0.1:9944",),
}
"""Used when `chain.endpoints` is empty (source: bittensor 11.3)."""

GENESIS = {
    "finney": bytes.fromhex("2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03"),
    "test": bytes.fromhex("8f9cf856bf558a14440e75569c9e58594757048d7b3a84b5d25f6bd978263105"),
}
"""Hashes of block 0, which every signature includes."""
ALIASES = {"archive": "finney"}
"""Other names of a network: the endpoints of `archive` keep the state of every block of finney."""


def check_genesis(network: str | None, genesis: bytes) -> None:
    """Raise AnotherNetwork when this genesis belongs to a known network other than `network` (None allows any).

    A signature would be valid there, and cost there, whatever name the endpoint gives itself.
    """
    named = None if network is None else ALIASES.get(network, network)
    its = next((name for name, known in GENESIS.items() if known == genesis), named)
    if network is not None and its != named:
        raise AnotherNetwork(f"the endpoint serves {its}, not {network}: nothing was signed")


def open_endpoints(settings: ChainSettings, http: HttpClient, clock: Clock) -> Sequence[ChainEndpoint]:
    """Return the endpoints to sync from, in the order in which they are tried.

    Websocket addresses are reached by HTTP, which the same ports serve. Raises ValueError when the settings name
    no endpoint and a network that has no public one.
    """
    if settings.source == "recorded":
        return (RecordedEndpoint(clock),)
    urls = settings.endpoints or PUBLIC_ENDPOINTS.get(settings.network, ())
    if not urls:
        known = ", ".join(PUBLIC_ENDPOINTS)
        raise ValueError(f"chain.endpoints is empty and chain.network {settings.network!r} is none of {known}")
    return tuple(JsonRpcEndpoint(http, http_url(url), settings.call_timeout_s) for url in urls)


def http_url(url: str) -> str:
    """Return `ws://` and `wss://` addresses as `http://` and `https://`, others unchanged."""
    scheme, separator, rest = url.partition("://")
    return {"ws": "http", "wss": "https"}.get(scheme, scheme) + separator + rest
