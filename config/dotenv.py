r"""Reads `.env` files strictly: one `NAME=value` a line, nothing is expanded or guessed.

# a comment
export X402_NETWORK=base          # `export` may stand first; a comment needs a blank before it
GATEWAY_PORT="9000"               # quotes are taken off; between double ones \n \t \" \\ \$ are read
LOG_LEVEL='INFO'                  # between single ones nothing is
"""

import re
from typing import Final

_NAME: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*")
_QUOTED: Final = re.compile(r"""("(?:[^"\\]|\\.)*"|'[^']*')\s*(?:#.*)?""")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def parse(text: str) -> tuple[dict[str, str], list[int]]:
    r"""Return the variables of a file and the numbers (from 1) of the lines that cannot be read.

    A name given twice has its last value, as in a shell.

    >>> parse('A=1\nexport B="x y" # why\n?')
    ({'A': '1', 'B': 'x y'}, [3])
    """
    found: dict[str, str] = {}
    unreadable: list[int] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name = _NAME.match(stripped)
        value = _value(stripped[name.end() :]) if name else None
        if name is None or value is None:
            unreadable.append(number)
        else:
            found[name[1]] = value
    return found, unreadable


def _value(text: str) -> str | None:
    """Return the value of what stands after the equals sign; None when a quote is left open or text follows it."""
    if not text.startswith(('"', "'")):
        return _COMMENT.sub("", text).strip()
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        return None
    inner = quoted[1][1:-1]
    if text.startswith("'"):
        return inner
    return _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[0]), inner)
