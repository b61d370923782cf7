"""A class name means one thing: no public class of one area has the name of another area's, but for those listed here.

The list may only shrink. An area joins SETTLED once its names are final.
"""

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.house import sources

ROOT: Final = Path(__file__).parents[2]
SETTLED: Final = frozenset(
    [
        "actors",
        "config",
        "api",
        "chain",
        "cli",
        "control",
        "demo",
        "durable",
        "facilitator",
        "gateway",
        "hotkeys",
        "ledger",
        "memory",
        "payments",
        "roles",
        "sdk",
        "sessions",
        "stats",
        "telemetry",
    ]
)
ONE_THING_AT_TWO_FLOORS: Final = frozenset(
    {
        "Attestation",
        "Call",
        "Challenge",
        "Commitment",
        "Conversation",
        "Deleted",
        "Document",
        "Found",
        "Hit",
        "Message",
        "Neuron",
        "NotFound",
        "OutcomeUnknown",
        "Record",
        "Signed",
    }
)
"""What a node says (api), what holds it (memory) and what a client makes of it (sdk) bear one name, as do the errors
that a surface passes on."""


def homonyms() -> set[str]:
    """The public names of classes in two settled areas."""
    areas: defaultdict[str, set[str]] = defaultdict(set)
    for root in ("actors", "config", "engram"):
        for path in sorted((ROOT / root).rglob("*.py")):
            inside = path.relative_to(ROOT).parts
            area = inside[0] if inside[0] != "engram" else inside[1].removesuffix(".py")
            if area in SETTLED:
                for node in sources.trees([path.read_text(encoding="utf-8")])[0].body:
                    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                        areas[node.name].add(area)
    return {name for name, found in areas.items() if len(found) > 1}


def test_a_class_name_means_one_thing() -> None:
    assert homonyms() == ONE_THING_AT_TWO_FLOORS
