"""A gateway that sells and runs nothing, for the benchmarks of payments."""

from collections.abc import Callable

import msgspec

from actors import ChildSpec, SupervisorSpec
from engram.provisioning import capacity
from engram.roles import gateway
from engram.roles.gateway_ports import GatewayPorts
from engram.roles.shared import Shared

__all__ = ["Shared", "sell_without_fleet"]

_KEPT = ("ledger", "loop_lag", "facilitator", "payments", "http")


def sell_without_fleet(extra: Callable[[Shared], ChildSpec]) -> None:
    """In this process the gateway's tree has no fleet, and `extra` beside the payments: a paid session stays
    `provisioning`, on a host that is said to hold any number of nodes."""
    vars(capacity).update(CPU_FACTOR=1_000_000, MEMORY_FACTOR=1_000_000)
    whole = gateway.tree

    def tree(p: Shared, ports: GatewayPorts) -> SupervisorSpec:
        real = whole(p, ports)
        children = [child for child in real.children if child.id in _KEPT]
        return msgspec.structs.replace(real, children=[*children[:-1], extra(p), children[-1]])

    gateway.tree = tree
