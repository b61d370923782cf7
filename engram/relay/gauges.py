"""The relay's gauges, in whichever process relays."""

from sqlalchemy import Connection

from engram.relay import records
from engram.telemetry.metrics import Metrics


def measure(metrics: Metrics, connection: Connection, now: float) -> None:
    """Set the gauges of the outbox to the current values; costs a few rows, however many entries are kept."""
    metrics.relay_entries.show(records.count_by_state(connection))
    oldest = records.oldest(connection)
    metrics.relay_oldest.show({state: max(0.0, now - at) for state, at in oldest.items()})
