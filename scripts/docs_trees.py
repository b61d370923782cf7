"""The page of supervision trees, drawn from the literals that the program starts: SVG, which asks no other host."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final
from unittest.mock import MagicMock

from actors import ChildSpec, SupervisorSpec
from config.model import Settings
from engram.hotkeys import Keypair
from engram.roles import facilitator, gateway, miner, validator, xeris
from engram.roles.process import spare
from engram.roles.shared import Shared

_LINE: Final = 26
"""Pixels from one child to the next."""
_INDENT: Final = 28
_WIDTH: Final = 560
_INTRODUCTION: Final = """\
# Supervision trees

Drawn from the trees that the program itself starts. Children start from the top and stop from the bottom. Beside a
supervisor stands whom it restarts when a child fails; `disable` is a child that is left out when it fails too often.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([_INTRODUCTION, *(f"## {name}\n\n{svg(tree, name)}\n" for name, tree in trees().items())])


def trees() -> Mapping[str, SupervisorSpec]:
    """Return the trees by what they run; nothing of them is started, so that what they only hand on is a stand-in."""
    ports, quorum = MagicMock(), MagicMock()
    ports.fleet.backends.all = [MagicMock(), MagicMock()]
    for backend, name in zip(ports.fleet.backends.all, ("local", "docker"), strict=True):
        backend.name = name
    quorum.quorum.children.return_value = [spare("proposer", MagicMock())]
    return {
        "A gateway": gateway.tree(_shared(), ports),
        "A memory node": miner.tree(MagicMock(), MagicMock()),
        "A validator": validator.tree(_shared(), quorum),
        "A receiver of the relay": xeris.tree(_shared(), Keypair.from_seed(bytes(32))),
        "The play-money facilitator": facilitator.tree(_shared()),
    }


def svg(tree: SupervisorSpec, title: str) -> str:
    """Return a tree as a picture, a line for each child, in the colors of the page."""
    rows = list(_rows(tree))
    parts, last = [], dict[int, int]()
    for number, (depth, name, policy) in enumerate(rows):
        x, y = 8 + depth * _INDENT, 18 + number * _LINE
        if depth:
            parent = last[depth - 1]
            parts.append(f'<path d="M{x - 18} {parent + 8} V{y - 4} H{x - 4}"/>')
        last[depth] = y
        parts.append(f'<text x="{x}" y="{y}">{escape(name)}</text>')
        parts.append(f'<text x="{_WIDTH - 8}" y="{y}" text-anchor="end" opacity="0.7">{escape(policy)}</text>')
    height = len(rows) * _LINE + 8
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {height}" style="max-width:{_WIDTH}px" '
        'font-size="14" font-family="monospace" fill="currentColor" xmlns="http://www.w3.org/2000/svg">'
        '<g stroke-width="1">'
        + "".join(part.replace("<path ", '<path fill="none" stroke="#888" ') for part in parts)
        + "</g></svg>"
    )


def _rows(spec: ChildSpec | SupervisorSpec, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    policy = spec.strategy if isinstance(spec, SupervisorSpec) else spec.on_exceed.replace("escalate", "")
    yield depth, spec.id, policy
    for child in spec.children if isinstance(spec, SupervisorSpec) else ():
        yield from _rows(child, depth + 1)


def _shared() -> Any:
    double = MagicMock(spec=Shared)
    for name in ("registry", "metrics", "clock", "ids", "ledger", "http"):
        setattr(double, name, MagicMock())
    double.settings, double.folder, double.is_worker = Settings(), Path("data"), False
    return double
