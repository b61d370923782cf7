"""Why another server's answers to a stream differ from ours: a reason for each kind of difference, or none.

The reasons are what docs/http.md lists; a difference that none of them explains fails the test.
"""

import re
from typing import Final

from tests.http.generated_streams import Stream
from tests.http.others import Answer
from tests.http.seen import Seen

REFUSALS: Final = {
    "bad_chunk": "ours refuses a chunk line that it repairs",
    "bad_host": "ours refuses a Host that is no name",
    "bad_length": "ours refuses a Content-Length that is not one number",
    "bad_request": "ours refuses a head that it repairs",
    "bad_target": "ours refuses a target that is no path",
    "bad_trailers": "ours refuses trailers that it repairs",
    "bad_version": "ours refuses a version that it takes for 1.1",
    "ambiguous_length": "ours refuses two framings",
    "duplicate_header": "ours refuses a field twice that must stand once",
    "bad_expectation": "ours refuses an expectation that it ignores",
    "head_timeout": "ours gives up a head that does not end",
    "headers_too_large": "ours has 32 KiB for a head",
    "incomplete_body": "ours answers 400 to half a body",
    "method_not_allowed": "ours offers no CONNECT or TRACE",
    "no_host": "ours demands a Host",
    "no_upgrade": "ours offers no upgrade",
    "not_implemented": "ours knows no coding but chunked",
    "too_many_headers": "ours takes a hundred headers",
}
_PLAIN_NAME: Final = re.compile(r"[a-z0-9-]+\Z")


def difference(name: str, sent: Stream, ours: list[Answer], theirs: list[Answer]) -> str | None:
    """Return the reason of a difference, None where there is none, "" for one that has no reason."""
    for at, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine.seen is not None and other.seen is not None and mine.seen != other.seen:
            return _sight(name, mine.seen, other.seen)
        if mine.status != other.status:
            return _status(name, mine, other, as_sent=at < len(sent.whole))
    if len(theirs) < len(ours):
        return _silence(name, ours[len(theirs)])
    if len(theirs) > len(ours):
        return _excess(name, sent, theirs[len(ours)])
    return None


def _sight(name: str, mine: Seen, other: Seen) -> str:
    """Both accepted the request, and saw it differently."""
    if (mine.method, mine.target, mine.sha256) != (other.method, other.target, other.sha256):
        return ""
    lacking, added = set(mine.headers) - set(other.headers), set(other.headers) - set(mine.headers)
    if name == "uvicorn" and added and not lacking:  # a Host among them too
        return "llhttp tells trailers as headers"
    if name == "nginx" and not added and not any(_PLAIN_NAME.match(field) for field, _ in lacking):
        return "nginx drops fields with unusual names"
    return ""


def _status(name: str, mine: Answer, other: Answer, *, as_sent: bool) -> str:
    """One accepted what the other refused, or they refused it differently."""
    if mine.status != 200:
        return "both refuse, with different statuses" if other.status >= 400 else REFUSALS.get(mine.code, "")
    if name in ("uvicorn", "node") and other.status in (400, 408):
        return "llhttp reads ahead: a fault behind a request takes the answer from it" if as_sent else _STRICTER
    if name == "node" and other.status == 431:
        return "node has 16 KiB for a head"
    if name == "hypercorn" and other.status == 400 and not as_sent:
        return "hypercorn refuses an empty line between requests"
    if name == "nginx" and other.status in (400, 405) and not as_sent:
        return _STRICTER
    return ""


_STRICTER: Final = "it is stricter here (another server than ours accepts it too)"


def _silence(name: str, mine: Answer) -> str:
    """The other closed the connection where ours gave an answer."""
    if mine.status != 200:
        return "it closes the connection without the refusal"
    if name == "uvicorn":
        return "uvicorn drops requests of a client that has sent its end"
    return ""


def _excess(name: str, sent: Stream, other: Answer) -> str:
    """The other gave an answer where ours closed the connection."""
    if other.status >= 400 and sent.broken:
        return "it answers 4xx to half a head; ours closes: its client has gone"
    return ""
