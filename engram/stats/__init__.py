"""What managed nodes say of themselves: the poller and what it learned."""

from .actor import StatsPoller
from .model import NodeStats, Sample
from .node import stats as ask_stats
from .proof import Prover
from .protocol import Reread
from .view import StatsView

__all__ = ["NodeStats", "Prover", "Reread", "Sample", "StatsPoller", "StatsView", "ask_stats"]
