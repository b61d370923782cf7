"""The backends, one row each. To add one: a file that makes it from the settings, and its row here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from config.model import Settings
from engram.provisioning.akash.factory import akash_backend
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.backends import Backends
from engram.provisioning.docker.factory import docker_backend, gives_hotkeys
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
    gives_hotkeys: Callable[[Settings], bool]
    """Whether its nodes have their hotkeys, since they run on a machine of the operator's own."""


BACKENDS: Final[Mapping[str, BackendRow]] = MappingProxyType(
    {
        row.name: row
        for row in (
            BackendRow(
                "local",
                "Nodes run as processes on the gateway's own machine.",
                "provisioning",
                local_backend,
                lambda _: True,
            ),
            BackendRow(
                "docker",
                "Nodes run as containers on the operator's own hosts.",
                "docker",
                docker_backend,
                lambda settings: gives_hotkeys(settings.docker),
            ),
            BackendRow(
                "akash",
                "Nodes provisioned on Akash on demand, as many as its account can pay for.",
                "akash",
                akash_backend,
                lambda _: False,
            ),
        )
    }
)


def make_backends(ports: BackendPorts) -> Backends:
    """Return the backends that the settings name, in that order. Raises UnusableBackend."""
    return Backends([BACKENDS[name].make(ports) for name in ports.settings.provisioning.chosen])


def with_hotkeys(settings: Settings) -> frozenset[str]:
    """Return the names of the backends whose nodes have their hotkeys."""
    return frozenset(name for name, row in BACKENDS.items() if row.gives_hotkeys(settings))
