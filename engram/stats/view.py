"""What was last learnt of each node, in memory: whoever serves requests reads it without waiting."""

from collections.abc import Iterator
from typing import final

from engram.clock import Clock

from .model import NodeStats, Sample


@final
class StatsView:
    """The last sample of every running session; written by the poller alone. Outlives its restarts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: dict[str, Sample] = {}

    def get(self, session_id: str) -> tuple[NodeStats, float] | None:
        """The last stats and their age in seconds; None when the node never answered."""
        sample = self._samples.get(session_id)
        return None if sample is None else (sample.stats, max(0.0, self._clock.monotonic() - sample.at))

    def sample(self, session_id: str) -> Sample | None:
        """The last stats and when they came."""
        return self._samples.get(session_id)

    def items(self) -> Iterator[tuple[str, Sample]]:
        """Session ids and their last samples."""
        return iter(list(self._samples.items()))

    def put(self, session_id: str, stats: NodeStats) -> None:
        """Keep an answer that came now."""
        self._samples[session_id] = Sample(stats, self._clock.monotonic())

    def keep_only(self, session_ids: set[str]) -> None:
        """Forget all other sessions."""
        for gone in self._samples.keys() - session_ids:
            del self._samples[gone]

    def __len__(self) -> int:
        return len(self._samples)
