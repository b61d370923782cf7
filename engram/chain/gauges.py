"""What /metrics tells of the syncing of the chain."""

from engram.chain.subnets import Subnets
from engram.http.metrics import Metrics


def measure(metrics: Metrics, subnets: Subnets) -> None:
    """Set the gauges to how things stand now."""
    for netuid in subnets.synced:
        metagraph = subnets.get(netuid)
        if metagraph is not None:
            metrics.chain_block.labels(netuid).set(metagraph.block)
            metrics.chain_age.labels(netuid).set(subnets.age_s(netuid) or 0.0)
    chain = subnets.status()
    metrics.chain_head_age.set(chain.head_age_s or 0.0)
    for endpoint, health in chain.endpoints.items():
        metrics.chain_endpoint_failures.labels(endpoint).set(health.failures)
