"""The metrics of the syncer."""

from collections.abc import Sequence
from typing import Final

from engram.chain.model import AxonMoved, PermitLost, Registered, Removed, Replaced, SubnetChange
from engram.chain.sync.subnets import Subnets
from engram.telemetry.metrics import Metrics

KINDS: Final[dict[type[SubnetChange], str]] = {
    Registered: "registered",
    Replaced: "replaced",
    Removed: "removed",
    PermitLost: "permit_lost",
    AxonMoved: "axon_moved",
}


def count_changes(metrics: Metrics, subnets: Subnets) -> None:
    """Count every change from now on. Call once for each registry and subnets."""
    for netuid in subnets.followed:
        for kind in KINDS.values():
            metrics.chain_changes.labels(netuid, kind)

    def changed(changes: Sequence[SubnetChange]) -> None:
        for change in changes:
            metrics.chain_changes.labels(change.netuid, KINDS[type(change)]).inc()

    subnets.listen(changed)


def measure(metrics: Metrics, subnets: Subnets) -> None:
    """Set the gauges to the current values."""
    for netuid in subnets.synced:
        metagraph = subnets.get(netuid)
        if metagraph is not None:
            metrics.chain_block.labels(netuid).set(metagraph.block)
            metrics.chain_age.labels(netuid).set(subnets.age_s(netuid) or 0.0)
    metrics.chain_head_age.set(subnets.still_s)
    chain = subnets.state
    health = chain.endpoints
    metrics.chain_endpoint_failures.show({endpoint: each.failures for endpoint, each in health.items()})
    metrics.chain_endpoint_serves.show(
        {endpoint: endpoint == chain.endpoint and not each.failures for endpoint, each in health.items()}
    )
