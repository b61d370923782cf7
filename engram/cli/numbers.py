"""Numbers of a command line: written in full, never rounded or read as something else."""

import re
from collections.abc import Sequence
from typing import Final

from cyclopts import Token

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}")


def whole(_type: type, tokens: Sequence[Token]) -> int:
    """Return a whole number. Raises ValueError for anything else: 1.5 is not 2, and 0x10 is not 16."""
    text = tokens[0].value
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a whole number such as 12")
    return int(text)
