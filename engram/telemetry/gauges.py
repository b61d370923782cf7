"""Gauges that show what was measured, and nothing else.

A gauge of prometheus_client shows 0 before it is first set, and a child of it for as long as the process lives. A rule
on it then fires where nothing was measured, or never clears. These have no sample until they are set, and `show`
replaces all samples of a family at once. Setting is safe in any thread.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, TypeVar, final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily

Labels: TypeAlias = tuple[str, ...]
Word = TypeVar("Word", bound=str)


@final
class GaugeChild:
    """One sample of a family."""

    __slots__ = ("_labels", "_values")

    def __init__(self, values: dict[Labels, float], labels: Labels) -> None:
        self._values, self._labels = values, labels

    def set(self, value: float) -> None:
        """Show this value from now on."""
        self._values[self._labels] = float(value)


@final
class Gauge:
    """A family of gauges."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Labels,
        *,
        registry: CollectorRegistry,
        known: Sequence[Labels] = (),
    ) -> None:
        """Register the family; `known` are the label values that `show` always sets."""
        self._name, self._documentation, self._labelnames = name, documentation, labelnames
        self._known = known
        self._values: dict[Labels, float] = {}
        registry.register(self)

    def labels(self, *values: object) -> GaugeChild:
        """Return the gauge of these label values, for a caller that owns it for the life of the process."""
        return GaugeChild(self._values, tuple(str(value) for value in values))

    def set(self, value: float) -> None:
        """Show this value of a family without labels from now on."""
        self._values[()] = float(value)

    def clear(self) -> None:
        """Show nothing until the next setting."""
        self._values.clear()

    def show(self, measured: Mapping[Word, float]) -> None:
        """Show exactly these values of a family with one label, and 0 for known ones that are not among them."""
        shown = dict.fromkeys(self._known, 0.0) | {(str(each),): float(value) for each, value in measured.items()}
        self._values.update(shown)
        for gone in self._values.keys() - shown.keys():
            self._values.pop(gone, None)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield what a scrape reads."""
        family = GaugeMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        yield family
