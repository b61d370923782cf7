"""Checks on batch requests and on listings by a cursor: pure functions on what clients send."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engram.memory import filters
from engram.memory.errors import InvalidRequest
from engram.memory.filters import Filter
from engram.memory.rules import MAX_BATCH

MAX_KEY_CHARS = 256
MAX_VALUE_CHARS = 512
MAX_LOOKUP_RECORDS = 500


class LookupInput(msgspec.Struct, frozen=True):
    """A checked look-up of records whose metadata `key` is one of `values`.

    With `whole` the records come with text and metadata, otherwise with CID and value; `after` is an undecoded cursor.
    """

    key: str
    values: tuple[str, ...]
    whole: bool
    limit: int
    after: str

    @property
    def conditions(self) -> Filter:
        """The filter that such records meet."""
        return filters.one_of(self.key, self.values)


def check_deletions(body: Mapping[str, object]) -> list[str]:
    """Read which CIDs to delete, without checking their form. Raises InvalidRequest."""
    return list(_texts(body, "cids"))


def check_lookup(body: Mapping[str, object]) -> LookupInput:
    """Read which records to look up. Raises InvalidRequest naming the field."""
    key = body.get("key", "_ref")
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidRequest(f"key must be a metadata key of 1 to {MAX_KEY_CHARS} characters.")
    whole = body.get("whole", True)
    if not isinstance(whole, bool):
        raise InvalidRequest("whole must be true or false.")
    limit = body.get("limit", MAX_LOOKUP_RECORDS)
    if type(limit) is not int or limit < 1:
        raise InvalidRequest(f"limit must be a whole number from 1; at most {MAX_LOOKUP_RECORDS} are given at once.")
    values = tuple(dict.fromkeys(_texts(body, "values")))
    return LookupInput(key, values, whole, min(limit, MAX_LOOKUP_RECORDS), cursor(body))


def cursor(body: Mapping[str, object]) -> str:
    """Read the cursor `after`; null and the empty text mean the beginning. Raises InvalidRequest."""
    after = body.get("after")
    if after is None:
        return ""
    if not isinstance(after, str):
        raise InvalidRequest("after must be the `next` of the page before, or null for the first page.")
    return after


def _texts(body: Mapping[str, object], field: str) -> list[str]:
    found = body.get(field)
    if not isinstance(found, list) or not 0 < len(found) <= MAX_BATCH:
        raise InvalidRequest(f"{field} must be a list of 1 to {MAX_BATCH} texts.")
    texts: list[str] = []
    for each in found:
        if not isinstance(each, str) or len(each) > MAX_VALUE_CHARS or not _is_unicode(each):
            raise InvalidRequest(f"{field} must be valid Unicode texts of at most {MAX_VALUE_CHARS} characters.")
        texts.append(each)
    return texts


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
