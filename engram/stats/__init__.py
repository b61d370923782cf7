"""What managed nodes say of themselves: the poller and what it learned."""

from engram.api.node_model import NodeStats
from engram.stats.actor import StatsPoller, StatsPorts
from engram.stats.model import Sample
from engram.stats.node import stats as ask_stats
from engram.stats.proof import Prover
from engram.stats.protocol import RereadSessions
from engram.stats.view import StatsView

__all__ = ["NodeStats", "Prover", "RereadSessions", "Sample", "StatsPoller", "StatsPorts", "StatsView", "ask_stats"]
