"""The backends, one row each. To add one: a file that makes it from the settings, and its row here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from engram.provisioning.akash.factory import akash_backend
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.backends import Backends
from engram.provisioning.docker.factory import docker_backend
from engram.provisioning.local_factory import local_backend
from engram.provisioning.node_backend import NodeBackend

Factory: TypeAlias = Callable[[BackendPorts], NodeBackend]


class BackendRow(msgspec.Struct, frozen=True):
    """One value of `provisioning.backends`."""

    name: str
    note: str
    """Where nodes run, for buyers: GET /nodes."""
    section: str
    """The section of the settings that is this backend's own."""
    make: Factory


BACKENDS: Final[Mapping[str, BackendRow]] = MappingProxyType(
    {
        row.name: row
        for row in (
            BackendRow("local", "Nodes run as processes on the gateway's own machine.", "provisioning", local_backend),
            BackendRow("docker", "Nodes run as containers on the operator's own hosts.", "docker", docker_backend),
            BackendRow(
                "akash",
                "Nodes provisioned on Akash on demand, as many as its account can pay for.",
                "akash",
                akash_backend,
            ),
        )
    }
)


def make_backends(ports: BackendPorts) -> Backends:
    """Return the backends that the settings name, in that order. Raises UnusableBackend."""
    return Backends([BACKENDS[name].make(ports) for name in ports.settings.provisioning.chosen])
