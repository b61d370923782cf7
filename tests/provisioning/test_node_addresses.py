"""A provider names the host of a node, and says later what that name means: it must not mean our own network."""

import socket
from collections.abc import Iterator

import pytest
import trio

from config.model import AkashSettings, DockerSettings, ProvisioningSettings, Settings
from engram.http.client import HttpClient, NotSent
from engram.provisioning.health import health_of
from engram.provisioning.node_addresses import node_client
from tests.fakes.responder import Answer, Asked, Responder

NODE = "node.provider.example"


class Names(trio.abc.HostnameResolver):
    """The DNS, in the hands of a provider."""

    def __init__(self) -> None:
        self.means = ["203.0.113.5"]

    async def getaddrinfo(  # type: ignore[override]
        self, host: bytes | str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        name = host.decode() if isinstance(host, bytes) else host
        means = self.means if name == NODE else [name] if name != "localhost" else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in means]

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        raise NotImplementedError


@pytest.fixture
async def names() -> Iterator[Names]:  # type: ignore[misc]
    found = Names()
    trio.socket.set_custom_hostname_resolver(found)
    yield found
    trio.socket.set_custom_hostname_resolver(None)


def settings(*, allow_private: bool = False) -> Settings:
    return Settings(
        provisioning=ProvisioningSettings(backends=("local", "docker", "akash")),
        docker=DockerSettings(host="tcp://engine.example:2376", node_host=""),
        akash=AkashSettings(allow_private_providers=allow_private),
    )


@pytest.mark.parametrize("means", [["127.0.0.1"], ["10.0.0.1"], ["203.0.113.5", "169.254.169.254"], ["::1"], []])
async def test_a_name_that_has_come_to_mean_our_own_network_is_asked_for_nothing(
    names: Names, means: list[str]
) -> None:
    asked: list[Asked] = []

    async def answer(request: Asked) -> Answer:
        asked.append(request)
        return 200, {}, b"{}"

    async with trio.open_nursery() as nursery:
        url = await nursery.start(Responder(answer).run)
        names.means = means
        port = url.rpartition(":")[2]
        client = node_client(settings(), HttpClient())
        with pytest.raises(NotSent):
            await health_of(client, f"http://{NODE}:{port}")
        assert asked == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.2", "[::1]", "127.1", "2130706433"])
async def test_addresses_of_our_own_network_are_refused_too(host: str) -> None:
    client = node_client(settings(), HttpClient())
    with pytest.raises(NotSent, match="not a public address"):
        await health_of(client, f"http://{host}:9")


async def test_nodes_of_the_operators_own_machines_are_asked_where_they_are(names: Names) -> None:
    async def answer(request: Asked) -> Answer:
        return 200, {}, b'{"status": "ok", "launch_token": "t"}'

    async with trio.open_nursery() as nursery:
        url = await nursery.start(Responder(answer).run)
        health = await health_of(node_client(settings(), HttpClient()), url)
        assert health is not None
        assert health.launch_token == "t"
        nursery.cancel_scope.cancel()


def test_where_no_stranger_names_hosts_nodes_are_asked_as_everybody_else() -> None:
    http = HttpClient()
    assert node_client(Settings(), http) is http
    assert node_client(settings(allow_private=True), http) is http
    assert node_client(settings(), http) is not http
