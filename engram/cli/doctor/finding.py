"""One result of the doctor."""

from typing import Literal

import msgspec

Verdict = Literal["good", "note", "bad"]


class Finding(msgspec.Struct, frozen=True):
    """The result of one check. Only `bad` keeps Engram from working."""

    what: str
    verdict: Verdict
    text: str
