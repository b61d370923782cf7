"""Compares the names and labels in a PromQL expression with the table of metrics."""

import math
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, get_args

import promql_parser as promql
from prometheus_client.utils import floatToGoString

from config.model import BackendName
from engram.gateway.gauges import LAUNCH_OUTCOMES
from engram.telemetry.table import BY_NAME, Metric

OF_PROMETHEUS: Final = {"up": {"job", "instance"}, "process_resident_memory_bytes": {"job", "instance"}}
"""Metrics that are not in the table, with their labels."""
OF_TARGETS: Final = {"job", "instance"}
"""Labels that Prometheus adds to every sample."""
SUFFIXES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
EXPORTED: Final[dict[str, Metric]] = {
    f"{row.name}{suffix}": row for row in BY_NAME.values() for suffix in SUFFIXES[row.kind]
}
"""The rows by the names that a scrape shows."""


VALUES: Final[dict[str, tuple[str, ...]]] = {
    "backend": get_args(BackendName),
    "status": tuple(str(int(status)) for status in HTTPStatus),
}
"""Values of labels that no row of the table lists, by label."""
OF_METRICS: Final = {("engram_launches", "outcome"): LAUNCH_OUTCOMES}


def faults(expression: str) -> list[str]:
    """What in an expression no process exports; empty when all of it is there."""
    tree = promql.parse(expression)
    found = list(selectors(tree))
    if not found:
        return [f"{expression} names no metric"]
    problems = [problem for selector in found for problem in of_selector(selector)]
    labels: set[str] = set(OF_TARGETS)
    for selector in found:
        labels |= labels_of(selector.name or "")
    return problems + [f"{label} is a label of none of them" for label in grouped_by(tree) if label not in labels]


def of_selector(selector: Any) -> Iterator[str]:
    """What is wrong with one selector."""
    name = selector.name or ""
    if name not in EXPORTED and name not in OF_PROMETHEUS:
        yield f"{name} is exported by nobody"
        return
    for matcher in selector.matchers.matchers:
        if matcher.name not in labels_of(name):
            yield f"{name} has no label {matcher.name}"
        elif name in EXPORTED and matcher.name not in OF_TARGETS:
            yield from of_values(EXPORTED[name], matcher)


def of_values(row: Metric, matcher: Any) -> Iterator[str]:
    """Which values of a matcher the label never has; each that is matched must be known here."""
    known = known_values(row, matcher.name)
    is_pattern = matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
    for value in matcher.value.split("|") if is_pattern else [matcher.value]:
        if not any(re.fullmatch(value, each) if is_pattern else value == each for each in known):
            yield f"{row.name} has no {matcher.name} {value!r}"


def known_values(row: Metric, label: str) -> set[str]:
    """The values of a label, as far as they are known."""
    if label == "le":
        return {str(floatToGoString(bound)) for bound in (*row.buckets, math.inf)}  # type: ignore[no-untyped-call]
    if row.known:
        return {values[row.labels.index(label)] for values in row.known}
    return set(OF_METRICS.get((row.name, label)) or VALUES.get(label, ()))


def labels_of(name: str) -> set[str]:
    """The labels that samples of this name have."""
    if name in OF_PROMETHEUS:
        return OF_PROMETHEUS[name]
    if name not in EXPORTED:
        return OF_TARGETS
    return {*EXPORTED[name].labels, *OF_TARGETS, *(["le"] if name.endswith("_bucket") else [])}


def selectors(tree: Any) -> Iterator[Any]:
    """Every vector selector in an expression."""
    match tree:
        case promql.VectorSelector():
            yield tree
        case promql.MatrixSelector():
            yield tree.vector_selector
        case promql.BinaryExpr():
            yield from selectors(tree.lhs)
            yield from selectors(tree.rhs)
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from selectors(tree.expr)
        case promql.Call():
            for argument in tree.args:
                yield from selectors(argument)
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            raise AssertionError(f"{type(tree).__name__} is not read here yet")


def grouped_by(tree: Any) -> Iterator[str]:
    """The labels that aggregations keep or drop, and by which two sides are matched."""
    match tree:
        case promql.AggregateExpr():
            if tree.modifier is not None:
                yield from tree.modifier.labels
            yield from grouped_by(tree.expr)
        case promql.BinaryExpr():
            if tree.modifier is not None and tree.modifier.matching is not None:
                yield from tree.modifier.matching.labels
            yield from grouped_by(tree.lhs)
            yield from grouped_by(tree.rhs)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from grouped_by(tree.expr)
        case promql.Call():
            for argument in tree.args:
                yield from grouped_by(argument)
        case _:
            return
