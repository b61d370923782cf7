"""Imports stand at the top of a file: what a part needs is seen there, and missing at the start rather than in use."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house import sources

EXCEPTIONS = {
    "run.py": "a process loads the roles that it has",
    "actors/_actor.py": "two modules of one package that give out each other's objects",
    "actors/_refs.py": "two modules of one package that give out each other's objects",
    "actors/testing.py": "a module of trio that is not public, for deterministic runs alone",
    "engram/agents/__main__.py": "an HTTP server and a model, which most agents' processes do without",
    "engram/clock.py": "the SDK's clients without a loop need a clock, and no trio",
    "engram/chain/submit/substrate.py": "extra `chain`",
    "engram/durable/__init__.py": "the index worker reads files without a loop, and starts without trio",
    "engram/gpu/nvml.py": "extra `gpu`",
    "engram/ledger/opening.py": "extra `postgresql`",
    "engram/memory/embed/minilm.py": "extra `node`",
    "engram/memory/embed/minilm_graph.py": "onnx, where weights are made",
    "engram/miner/node.py": "extra `qdrant`",
    "config/rules.py": "Keccak and cffi, where an address of the operator is held to its checksum",
    "engram/roles/xeris.py": "the payments area, in a receiver that takes money",
    "engram/worker/kinds.py": "kinds of jobs that the operator names",
}
COMMANDS = "engram/cli/"
"""A command's module is read for the help of its whole group, so what a command needs is imported when it runs."""


MAY_IMPORT_LATE = re.compile(
    r"^[ \t]+(?:import|from)\b|[:;][ \t]*(?:import|from)\b|import_module|__import__", re.MULTILINE
)
"""What a file must have in its text to be looked into."""


def imports_in_functions(source: str) -> Iterator[str]:
    """The functions that import something when they are called."""
    if not MAY_IMPORT_LATE.search(source):
        return
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(function):
                loads = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__"))
                if loads or isinstance(node, ast.Import | ast.ImportFrom):
                    yield getattr(function, "name", "lambda")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a\nfrom b import c", []),
        ("def f():\n    import a", ["f"]),
        ("async def f():\n    from a import b", ["f"]),
        ("def f():\n    return importlib.import_module(name)", ["f"]),
        ("class A:\n    def f(self):\n        import a", ["f"]),
        ("f = lambda: __import__('a')", ["lambda"]),
        ("if TYPE_CHECKING:\n    import a", []),
    ],
)
def test_the_search_finds_each_way_to_import_late(source: str, found: list[str]) -> None:
    assert list(imports_in_functions(source)) == found


def test_nothing_is_imported_inside_a_function_without_a_reason() -> None:
    found = {
        str(file.relative_to(sources.ROOT)) for file in sources.files() if any(imports_in_functions(file.read_text()))
    }
    assert {name for name in found if not name.startswith(COMMANDS)} == set(EXCEPTIONS)
