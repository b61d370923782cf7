"""`engram miner query` and `stats`: query a running node."""

from typing import Annotated

import msgspec
from cyclopts import Parameter

from engram.api import node_model as model
from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.miner.target import NODE, NodeTarget, answered
from engram.cli.numbers import whole
from engram.cli.options import SHOW, Show
from engram.clock import SystemClock
from engram.sdk.node_calls import NodeCalls, checked
from engram.sdk.ranking import Mode, Ranking
from engram.sdk.transport import Transport

_DAY_S = 86_400.0
_SHOWN = 200
"""Characters of a text in a table."""


class FoundMemory(msgspec.Struct, frozen=True):
    """A memory that a search found."""

    score: float
    cid: str
    text: str
    metadata: dict[str, object]


_COLUMNS = (
    output.Column("score", "score", lambda score: f"{score:.4f}"),
    output.Column("cid", "cid"),
    output.Column("text", "text", lambda text: text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"),
)


def query(
    text: Annotated[str, Parameter(help="What to look for, in words.")],
    *,
    node: NodeTarget = NODE,
    top: Annotated[int, Parameter(converter=whole, name=["--top", "-k"], help="Number of results, 1 to 100.")] = 10,
    where: Annotated[
        tuple[str, ...], Parameter(help="Only memories whose metadata has key=value; repeatable.", negative="")
    ] = (),
    mode: Annotated[
        Mode | None, Parameter(help="vector: all of long texts too; words: names and identifiers; hybrid: both.")
    ] = None,
    diversity: Annotated[float, Parameter(help="0: by relevance alone; towards 1: less of what says the same.")] = 0.0,
    recency: Annotated[float | None, Parameter(help="Half-life in days, by which newer memories count more.")] = None,
    history: Annotated[bool, Parameter(help="Show superseded and expired memories too.", negative="")] = False,
    show: Show = SHOW,
) -> None:
    """Find the memories nearest in meaning to TEXT, best first; with --mode also by their words."""
    if not 1 <= top <= 100:
        raise CommandFailed(f"--top must be 1 to 100, not {top}", Exit.USAGE)
    conditions = {}
    for pair in where:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandFailed(f"--where {pair!r} must be key=value", Exit.USAGE)
        conditions[name] = value
    try:
        ranking = Ranking(mode, diversity, None if recency is None else recency * _DAY_S, history)
    except ValueError as error:
        raise CommandFailed(str(error), Exit.USAGE) from None
    url, keypair = node.url(), node.keypair()
    with answered():
        calls = NodeCalls(SystemClock(), keypair, namespace=node.namespace)
        call = calls.query(text, top, conditions or None, ranking)
        transport = Transport(url, timeout_s=60.0)
        try:
            answer = checked(transport.request(call.method, call.path, body=call.body), model.Found)
        finally:
            transport.close()
    if answer.error:
        raise CommandFailed(answer.error)
    found = [
        FoundMemory(hit.score, hit.cid, model.known(hit.text) or str(hit.metadata.get("text", "")), hit.metadata)
        for hit in answer.results
    ]
    output.rows(found, _COLUMNS, json=show.json)


def stats(*, node: NodeTarget = NODE, show: Show = SHOW) -> None:
    """Show the state of a node: vectors, latency, proofs, embedder and index."""
    url = node.url()
    calls = NodeCalls(SystemClock())
    with answered():
        transport = Transport(url, timeout_s=30.0)
        try:
            answers: dict[str, object] = {"url": url}
            for path in ("/health", "/stats"):
                call = calls.document(path)
                answers |= call.read(transport.request(call.method, call.path))
        finally:
            transport.close()
    output.record({name: value for name, value in answers.items() if name != "launch_token"}, json=show.json)
