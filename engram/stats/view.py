"""The last stats of each node, in memory, so that requests read them without waiting."""

from collections.abc import Iterator
from typing import final

from engram.api.node_model import NodeStats
from engram.clock import Clock
from engram.stats.model import Sample


@final
class StatsView:
    """The last sample of every running session; written by the poller alone. Outlives its restarts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: dict[str, Sample] = {}
        self._outdated = False

    def outdate(self) -> None:
        """Tell that other sessions run than before: the poller looks at its next tick. Never raises."""
        self._outdated = True

    def take_outdated(self) -> bool:
        """Return whether there was a hint since the last call; for the poller."""
        outdated, self._outdated = self._outdated, False
        return outdated

    def get(self, session_id: str) -> tuple[NodeStats, float] | None:
        """Return the last stats and their age in seconds; None when the node never answered."""
        sample = self._samples.get(session_id)
        return None if sample is None else (sample.stats, max(0.0, self._clock.monotonic() - sample.at))

    def sample(self, session_id: str) -> Sample | None:
        """Return the last stats and when they came."""
        return self._samples.get(session_id)

    def items(self) -> Iterator[tuple[str, Sample]]:
        """Session ids and their last samples."""
        return iter(list(self._samples.items()))

    def put(self, session_id: str, stats: NodeStats) -> None:
        """Keep an answer that came now."""
        self._samples[session_id] = Sample(stats, self._clock.monotonic())

    def forget(self, session_id: str) -> None:
        """Drop what was learned of a session that is over."""
        self._samples.pop(session_id, None)

    def __len__(self) -> int:
        return len(self._samples)
