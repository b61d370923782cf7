"""Where a provider is reached: what stands on chain is a stranger's word, and never leads into our own network."""

import socket
from typing import Final
from urllib.parse import urlsplit

import msgspec
import trio

from config.addresses import is_public_host

RESOLVE_S: Final = 5.0


class UnusableAddress(Exception):
    """The provider's address leads nowhere, or where it must not. The message says why."""


class ProviderAddress(msgspec.Struct, frozen=True):
    """A provider's gateway: its URL, and the vetted address to connect to."""

    url: str
    address: str


async def vetted(host_uri: str, *, allow_private: bool) -> ProviderAddress:
    """Resolve the host of a provider's `host_uri`. Raises UnusableAddress.

    The address that was vetted is the one to connect to: a second answer of the resolver may be another one.
    """
    try:
        parts = urlsplit(host_uri)
        host, port = parts.hostname, parts.port or 8443
    except ValueError:
        host, port, parts = None, 0, None
    if parts is None or host is None or parts.scheme != "https" or parts.username or parts.password:
        raise UnusableAddress(f"{host_uri[:100]!r} is no https URL")
    address = await _resolved(host, port, allow_private=allow_private)
    shown = f"[{host}]" if ":" in host else host
    return ProviderAddress(f"https://{shown}:{port}", address)


async def vet_node(endpoint: str, *, allow_private: bool) -> None:
    """Check the address that a provider names for a node, before anything is asked there. Raises UnusableAddress."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if host is None:
        raise UnusableAddress(f"{endpoint[:100]!r} names no host")
    await _resolved(host, port, allow_private=allow_private)


async def _resolved(host: str, port: int, *, allow_private: bool) -> str:
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
