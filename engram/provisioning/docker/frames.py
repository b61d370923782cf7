"""The log of a container without a terminal: frames of both its streams.

A frame is 8 bytes (1: output, 2: errors; three zeros; the length, big-endian) and that many bytes. The frames of one
stream are in order, the two streams are not.
"""

import struct
from typing import Final

_HEAD: Final = struct.Struct(">BxxxL")


def text(content: bytes) -> str:
    """Return the text of all frames; what is no frame ends it.

    >>> text(b"\\x01\\0\\0\\0\\0\\0\\0\\x03one" + b"\\x02\\0\\0\\0\\0\\0\\0\\x04 two" + b"\\x01\\0")
    'one two'
    """
    parts: list[bytes] = []
    at = 0
    while at + _HEAD.size <= len(content):
        stream, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        if stream not in (0, 1, 2):
            break
        parts.append(content[at : at + length])
        at += length
    return b"".join(parts).decode("utf-8", "replace")
