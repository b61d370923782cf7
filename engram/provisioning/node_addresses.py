"""Where nodes are reached whose hosts strangers have named: never in our own network, whatever a name means by now.

A provider names the host of a node once, and answers for that name at every request from then on.
"""

import socket
from typing import Final

import trio

from config.addresses import is_public_host
from config.engines import engine_at
from config.model import Settings
from engram.http.client import HttpClient, NotSent

RESOLVE_S: Final = 5.0


class UnusableAddress(Exception):
    """A host leads nowhere, or where it must not. The message says why."""


def node_client(settings: Settings, http: HttpClient) -> HttpClient:
    """Return the client that nodes are asked by: `http`, unless providers name the hosts of some.

    Then each connection to a host that is not the operator's own goes to a public address or nowhere.
    """
    provisioning = settings.provisioning
    if "akash" not in provisioning.backends or settings.akash.allow_private_providers:
        return http
    named = {provisioning.node_host}
    if "docker" in provisioning.backends:
        named |= {settings.docker.node_host, engine_at(settings.docker.host).host}
    own = {host.strip("[]").lower() for host in named}

    async def resolve(host: str, port: int) -> str:
        if host.strip("[]").lower() in own:
            return host
        try:
            return await resolved(host, port, allow_private=False)
        except UnusableAddress as error:
            raise NotSent(str(error)) from error

    return HttpClient(resolve=resolve)


async def resolved(host: str, port: int, *, allow_private: bool) -> str:
    """Return an address of the host, all of whose addresses may be connected to. Raises UnusableAddress."""
    try:
        with trio.fail_after(RESOLVE_S):
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, trio.TooSlowError) as error:
        raise UnusableAddress(f"{host[:100]!r} is not resolved: {type(error).__name__}") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses:
        raise UnusableAddress(f"{host[:100]!r} has no address")
    for address in addresses:
        if not allow_private and not is_public_host(address):
            raise UnusableAddress(f"{host[:100]!r} is {address}, which is not a public address")
    return addresses[0]
