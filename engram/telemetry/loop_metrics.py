"""Counters and histograms for the event loop's thread alone: plain numbers, read at a scrape.

Those of prometheus_client take a lock for each change and look up their child by its label texts: 3 to 5 µs, a
twentieth of a whole request. These have the same methods (`labels(…).inc()`, `labels(…).observe(seconds)`) and the same
exposition, and may be used by one thread only.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TypeAlias, final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

Labels: TypeAlias = tuple[str, ...]


@final
class CounterChild:
    """One counter of a family."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`."""
        self.value += amount


@final
class HistogramChild:
    """One histogram of a family."""

    __slots__ = ("_bounds", "buckets", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        """Observations per bucket (not cumulative); the last bucket is above the highest bound."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value, in seconds."""
        self.buckets[bisect_left(self._bounds, value)] += 1
        self.sum += value


@final
class Counter:
    """A family of counters."""

    def __init__(self, name: str, documentation: str, labelnames: Labels, *, registry: CollectorRegistry) -> None:
        self._name, self._documentation, self._labelnames = name, documentation, labelnames
        self._children: dict[Labels, CounterChild] = {}
        registry.register(self)

    def labels(self, *values: str) -> CounterChild:
        """Return the counter of these label values; made when it is first asked for."""
        if (child := self._children.get(values)) is None:
            child = self._children[values] = CounterChild()
        return child

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield what a scrape reads."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for values, child in self._children.items():
            family.add_metric(values, child.value)
        yield family


@final
class Histogram:
    """A family of histograms with the same buckets."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Labels,
        *,
        registry: CollectorRegistry,
        buckets: Sequence[float],
    ) -> None:
        self._name, self._documentation, self._labelnames = name, documentation, labelnames
        self._bounds = tuple(buckets)
        self._names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        self._children: dict[Labels, HistogramChild] = {}
        registry.register(self)

    def labels(self, *values: str) -> HistogramChild:
        """Return the histogram of these label values; made when it is first asked for."""
        if (child := self._children.get(values)) is None:
            child = self._children[values] = HistogramChild(self._bounds)
        return child

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield what a scrape reads."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for values, child in self._children.items():
            seen, buckets = 0, []
            for name, count in zip(self._names, child.buckets, strict=True):
                seen += count
                buckets.append((name, float(seen)))
            family.add_metric(values, buckets, child.sum)
        yield family
