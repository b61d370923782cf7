"""What a provider's gateway answers about a lease. Lists and maps may be null."""

import re
from typing import Final

import msgspec

from engram.provisioning.akash.events import NotReady, Ready

_HOST: Final = re.compile(r"[A-Za-z0-9]([-.A-Za-z0-9]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?", re.ASCII)
_SIX: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}", re.ASCII)


class ServiceStatus(msgspec.Struct, frozen=True):
    """A service of a lease."""

    available: int = 0
    total: int = 0
    uris: tuple[str, ...] | None = None
    """Host names of the provider's ingress, without a scheme."""


class ForwardedPort(msgspec.Struct, frozen=True):
    """A port of a service, as it is reached from outside."""

    host: str = ""
    port: int = 0
    externalPort: int = 0  # noqa: N815  # the provider's own name
    proto: str = "TCP"


class LeaseStatus(msgspec.Struct, frozen=True):
    """GET /lease/{dseq}/{gseq}/{oseq}/status."""

    services: dict[str, ServiceStatus] | None = None
    forwarded_ports: dict[str, tuple[ForwardedPort, ...] | None] | None = None


def readiness(status: LeaseStatus, service: str, port: int) -> Ready | NotReady:
    """Return whether the service runs and where: at its forwarded port, else at the provider's ingress.

    A status that names no such service, or no way to it, is not ready, whatever else it says. What it names is a host
    and a port, never a path: where it leads is judged by `provider_addresses.vet_node`.
    """
    found = (status.services or {}).get(service)
    if found is None:
        return NotReady(f"the provider knows no service {service!r} of this lease")
    if found.total < 1 or found.available < found.total:
        return NotReady(f"{found.available} of {found.total} instances run")
    for forwarded in (status.forwarded_ports or {}).get(service) or ():
        if forwarded.port == port and 0 < forwarded.externalPort < 65_536:
            if _HOST.fullmatch(forwarded.host) and ":" not in forwarded.host:
                return Ready(f"http://{forwarded.host}:{forwarded.externalPort}")
            if ":" in forwarded.host and _SIX.fullmatch(forwarded.host):
                return Ready(f"http://[{forwarded.host}]:{forwarded.externalPort}")
    for uri in found.uris or ():
        if _HOST.fullmatch(uri):
            return Ready(f"http://{uri}")
    return NotReady("the provider names no address of the node")
