"""The table of all settings for the documentation, made from `config.model` itself.

`python -m config.reference` writes it into docs/configuration.md, between the two marks; a test checks that it is
current.
"""

import ast
import inspect
from pathlib import Path
from typing import Final

import msgspec

from config import model
from config.environment import variable_of
from config.keys import KEYS, describe
from config.model import Settings

BEGIN: Final = "<!-- settings: written by python -m config.reference -->"
END: Final = "<!-- end of settings -->"
PAGE: Final = Path(__file__).parents[1] / "docs" / "configuration.md"


def markdown() -> str:
    """Return every section as a heading, what it is about, and a table of its keys."""
    explained = _docstrings()
    parts = ["### Top level\n", _table([key for key in KEYS if "." not in key], "Settings", explained)]
    for field in msgspec.structs.fields(Settings):
        keys = [key for key in KEYS if key.startswith(f"{field.name}.")]
        if keys:
            name = getattr(field.type, "__name__", "")
            parts += [f"\n### [{field.name}]\n", explained[name] + "\n", _table(keys, name, explained)]
    return "\n".join(parts)


def insert(page: str, table: str) -> str:
    """Return the page with the table between its marks. Raises ValueError when the page has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks to write the settings between")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def _table(keys: list[str], struct: str, explained: dict[str, str]) -> str:
    defaults = msgspec.to_builtins(Settings())
    lines = ["| Key | Takes | Default | Meaning |", "|---|---|---|---|"]
    for key in keys:
        section, dot, name = key.partition(".")
        default = defaults[section][name] if dot else defaults[section]
        meaning = explained.get(f"{struct}.{name or section}", "")
        variable = variable_of(key)
        if variable and variable not in meaning:
            meaning = f"{meaning} {variable}".strip()
        lines.append(f"| `{name or section}` | {describe(KEYS[key])} | `{_default(default)}` | {meaning} |")
    return "\n".join(lines)


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value) if value != "" else '""'


def _docstrings() -> dict[str, str]:
    """Docstrings of the structs by `Struct`, and of their fields by `Struct.field`, each in one line."""
    found: dict[str, str] = {}
    for node in ast.parse(inspect.getsource(model)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = _one_line(ast.get_docstring(node) or "")
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    match text:
                        case ast.Expr(value=ast.Constant(value=str() as docstring)):
                            found[f"{node.name}.{field.target.id}"] = _one_line(docstring)
                        case _:
                            pass
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(insert(PAGE.read_text(encoding="utf-8"), markdown()), encoding="utf-8")
