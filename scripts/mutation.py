"""Check the tests of the rules by mutation: `python scripts/mutation.py [AREA …] [WORD …] [--write]`.

Each mutant is the rules file with one small fault (a comparison, a boundary, a constant, a word of a table). The tests
named in AREAS run against it in a process forked from one in which everything heavy is imported; the file itself is
never touched. A mutant that they let live must be in `tests/mutation-survivors.txt`, with the reason; exit status 1
when one is not, or when one is listed and dies. `--write` adds those that are missing, for a reason to be filled in.
WORDs must all stand in the name of a mutant: to try again what has survived.

mutmut 3 leaves code outside functions alone, and here the rules are tables.
"""

import ast
import copy
import importlib.machinery
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutation-survivors.txt"
AREAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sessions": ("engram/sessions/rules.py", ("tests/sessions/test_rules.py", "tests/sessions/test_records.py")),
    "relay": ("engram/relay/rules.py", ("tests/relay/test_rules.py", "tests/relay/test_records.py")),
    "provisioning": ("engram/provisioning/rules.py", ("tests/provisioning/test_rules.py",)),
    "payments": (
        "engram/payments/rules.py",
        ("tests/payments/test_rule_tables.py", "tests/payments/test_rules.py"),
    ),
    "refunds": (
        "engram/payments/refund_rules.py",
        ("tests/payments/test_refund_rule_tables.py", "tests/payments/test_refund_terms.py"),
    ),
}
"""Of each area the file of its rules, and the tests that hold them; quick ones."""
WITHIN_S = 120
"""A mutant whose tests take longer is dead: it loops."""
HEAVY = ("pytest", "hypothesis", "trio", "pytest_trio", "msgspec", "sqlalchemy", "coincurve", "httpx2", "structlog")
COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


class Mutant(NamedTuple):
    """One fault: its name, which does not change when lines move, and the whole module."""

    name: str
    code: str


# --- faults -----------------------------------------------------------------------------------------------------------


def mutants(path: Path) -> Iterator[Mutant]:
    """Every module that differs from the one at `path` in one place."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    for scope, node in _places(tree):
        for number in range(len(_faults(node))):
            before, original = ast.unparse(node), copy.copy(node)
            kept = {name: copy.copy(value) for name, value in ast.iter_fields(node) if isinstance(value, list)}
            left_out = _faults(node)[number]()
            change = f"without {left_out}" if left_out else f"{_short(before)} -> {_short(ast.unparse(node))}"
            name = f"{path.relative_to(ROOT)} {scope}: {change}"
            seen[name] = seen.get(name, 0) + 1
            code = ast.unparse(tree)
            node.__dict__.update(original.__dict__ | kept)
            yield Mutant(name if seen[name] == 1 else f"{name} #{seen[name]}", code)


def _places(tree: ast.AST, scope: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node that may be mutated, with the names of the function and class it is in."""
    inside = tree.values if isinstance(tree, ast.Dict) else ast.iter_child_nodes(tree)  # a key: by leaving out its row
    for child in inside:
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring
        if isinstance(child, ast.Import | ast.ImportFrom | ast.JoinedStr):
            continue
        name = getattr(child, "name", None) if isinstance(child, ast.FunctionDef | ast.ClassDef) else None
        inner = f"{scope}.{name}".lstrip(".") if name else scope
        if isinstance(child, ast.ClassDef):  # its keywords, as frozen=True, are declarations, which mypy holds
            for statement in child.body:
                yield from _places(ast.List([statement]), inner)  # type: ignore[list-item]  # as below
            continue
        if isinstance(child, ast.FunctionDef):
            for part in (*child.args.defaults, *child.body):
                yield from _places(ast.List([part]), inner)  # type: ignore[list-item]  # whatever it holds is walked
            continue
        if isinstance(child, ast.AnnAssign):
            yield from _places(ast.Expr(child.value), inner) if child.value else ()
            continue
        yield inner or "module", child
        yield from _places(child, inner)


def _faults(node: ast.AST) -> list[Callable[[], str | None]]:
    """List what may be done to a node; each returns what it leaves out of a table."""
    match node:
        case ast.Compare(ops=[compared]) if type(compared) in COMPARED:
            return [lambda: setattr(node, "ops", [COMPARED[type(compared)]()])]
        case ast.BoolOp(op=joined):
            other = ast.Or() if isinstance(joined, ast.And) else ast.And()
            return [lambda: setattr(node, "op", other)]
        case ast.BinOp(op=op) if type(op) in CALCULATED:
            return [lambda: setattr(node, "op", CALCULATED[type(op)]())]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return [lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), operand))]
        case ast.If(test=test) | ast.IfExp(test=test):
            return [lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), test))]
        case ast.Constant(value=bool(flag)):
            return [lambda: setattr(node, "value", not flag)]
        case ast.Constant(value=int(number) | float(number)):
            return [lambda: setattr(node, "value", number + 1)]
        case ast.Set(elts=elements) | ast.Tuple(elts=elements, ctx=ast.Load()) if len(elements) > 1:
            return [_without(node, at) for at in range(len(elements))]
        case ast.Dict(keys=keys) if keys:
            return [_without_row(node, at) for at in range(len(keys))]
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            return [lambda: setattr(node, "value", ast.Constant(None))]
        case _:
            return []


def _without(node: Any, at: int) -> Callable[[], str]:
    def act() -> str:
        left_out = node.elts[at]
        node.elts = [*node.elts[:at], *node.elts[at + 1 :]]
        return f"{_short(ast.unparse(left_out))} in {_short(ast.unparse(node))}"

    return act


def _without_row(node: ast.Dict, at: int) -> Callable[[], str]:
    def act() -> str:
        key, value = node.keys[at], node.values[at]
        node.keys, node.values = [*node.keys[:at], *node.keys[at + 1 :]], [*node.values[:at], *node.values[at + 1 :]]
        return _short(f"{'**' if key is None else ast.unparse(key)}: {ast.unparse(value)}")

    return act


def _short(code: str) -> str:
    text = re.sub(r"\s+", " ", code)
    return text if len(text) <= 160 else f"{text[:100]} … {text[-50:]}"


# --- runs -------------------------------------------------------------------------------------------------------------


def lives(path: Path, code: str | None, tests: tuple[str, ...]) -> bool:
    """Whether the tests pass with this code in the place of the module at `path`."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            status = _run(path, code, tests)
        finally:
            os._exit(status)
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


_QUIET = "ignore::pytest.PytestAssertRewriteWarning"
"""Plugins that are imported before the fork."""


def _run(path: Path, code: str | None, tests: tuple[str, ...]) -> int:
    import pytest

    class Loader(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname: str) -> Any:
            return compile(code or path.read_text(), str(path), "exec", dont_inherit=True)

    def find(name: str, *_: Any) -> Any:
        if name == ".".join(path.relative_to(ROOT).with_suffix("").parts):
            return importlib.machinery.ModuleSpec(name, Loader(name, str(path)), origin=str(path))
        return None

    finder: Any = type("Finder", (), {"find_spec": staticmethod(find)})
    sys.meta_path.insert(0, finder)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "-W", _QUIET]
    return int(pytest.main([*options, *tests]))


def survivors(area: str, words: list[str]) -> list[str]:
    """Names of the mutants that the tests of an area let live, of those whose names have all these words."""
    file, tests = AREAS[area]
    path = ROOT / file
    if not lives(path, None, tests):
        raise SystemExit(f"{area}: its tests fail without a mutant")
    found, count, began = [], 0, time.monotonic()
    for mutant in mutants(path):
        if not all(word in mutant.name for word in words):
            continue
        count += 1
        if lives(path, mutant.code, tests):
            found.append(mutant.name)
            sys.stdout.write(f"survives: {mutant.name}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{area}: {count - len(found)} of {count} mutants killed, {time.monotonic() - began:.0f} s\n")
    return found


def listed() -> dict[str, str]:
    """Return the survivors that are known, and why each may live."""
    lines = LIST.read_text(encoding="utf-8").splitlines() if LIST.exists() else []
    rows = (line.partition("  # ") for line in lines if line and not line.startswith("#"))
    return {name: reason for name, _, reason in rows}


def main(arguments: list[str]) -> int:
    """Compare what lives with the list."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for name in HEAVY:
        importlib.import_module(name)
    areas = [argument for argument in arguments if argument in AREAS] or [*AREAS]
    words = [argument for argument in arguments if argument not in AREAS and argument != "--write"]
    known = listed()
    found = [name for area in areas for name in survivors(area, words)]
    files = tuple(f"{AREAS[area][0]} " for area in areas)
    new = [name for name in found if not known.get(name)]
    dead = [
        name for name in known if name.startswith(files) and name not in found and all(word in name for word in words)
    ]
    if "--write" in arguments:
        with LIST.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{name}  # \n" for name in new if name not in known)
    for name in new:
        sys.stdout.write(f"not in {LIST.name}, or without a reason: {name}\n")
    for name in dead:
        sys.stdout.write(f"in {LIST.name}, but the tests kill it now: {name}\n")
    return 1 if new or dead else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
