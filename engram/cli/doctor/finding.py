"""What the doctor says of one thing it looked at."""

from typing import Literal

import msgspec

Verdict = Literal["good", "note", "bad"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. Only `bad` keeps Engram from working."""

    what: str
    verdict: Verdict
    text: str
