"""A recorded chain that ships with Engram: what the `local` profile syncs from, without any network."""

from engram.chain.read.recorded.node import RECORDED_NETWORK, RecordedEndpoint

__all__ = ["RECORDED_NETWORK", "RecordedEndpoint"]
