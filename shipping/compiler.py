"""Compiles the modules named on standard input, a JSON list of (source, path in the image, target). Run by path."""

import ast
import json
import marshal
import sys
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from typing import Final

UNDOCUMENTED: Final = ("click", "cyclopts", "flask", "jinja2", "quart", "rich", "sqlalchemy", "trio", "werkzeug")
"""Packages whose docstrings a process would only hold in memory: 2.9 MB of an idle gateway. Not numpy, which writes
docstrings into its functions when it is imported."""
_UNCHECKED: Final = 1
"""PEP 552: the byte code has the hash of its source, and nobody compares."""
_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def compiled(source: bytes, path: str) -> bytes:
    """Return the content of a .pyc file. Raises SyntaxError."""
    tree = ast.parse(source, path)
    if path.partition("/packages/")[2].partition("/")[0] in UNDOCUMENTED:
        _forget_docstrings(tree)
    code = compile(tree, path, "exec", dont_inherit=True)
    flags = _UNCHECKED.to_bytes(4, "little")
    return MAGIC_NUMBER + flags + source_hash(source) + marshal.dumps(code)


def _forget_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.copy_location(ast.Pass(), node.body[0])]


if __name__ == "__main__":
    for module, place, target in json.load(sys.stdin):
        Path(target).write_bytes(compiled(Path(module).read_bytes(), place))
