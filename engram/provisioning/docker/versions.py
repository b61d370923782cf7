"""Which version of the Engine API is spoken.

Docker 20.10 knows none above 1.41, Docker 29 none below 1.44, so no version is written into the code: the engine says
what it has (`Api-Version` of /_ping), and of that and ours the lower one is taken. What is sent and read here has
had one meaning since 1.41.
"""

from typing import Final

OURS: Final = (1, 47)


def spoken(offered: str) -> str:
    """Return the prefix of every path for an engine that offers this version; none for one that names none.

    >>> spoken("1.41"), spoken("1.52"), spoken("")
    ('/v1.41', '/v1.47', '')
    """
    major, _, minor = offered.strip().partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        return ""
    lower = min((int(major), int(minor)), OURS)
    return f"/v{lower[0]}.{lower[1]}"
