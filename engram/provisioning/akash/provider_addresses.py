"""Where a provider is reached: what stands on chain is a stranger's word, and never leads into our own network."""

from urllib.parse import urlsplit

import msgspec

from engram.provisioning.node_addresses import UnusableAddress, resolved


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
    address = await resolved(host, port, allow_private=allow_private)
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
    await resolved(host, port, allow_private=allow_private)
