"""Checks on what clients store and search for: pure functions on their requests.

Every text of an InvalidInput is shown to the user, so it says what would be right.
"""

from __future__ import annotations

import binascii
import json
import math
import struct
from array import array
from collections.abc import Mapping, Sequence

import msgspec

from engram.memory import filters
from engram.memory.cid import is_cid
from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.filters import Filter
from engram.memory.model import ALWAYS, PUBLIC, Validity

DEFAULT_TOP_K = 10
MAX_TOP_K = 100
DEFAULT_LIST_LIMIT = 50
MAX_LIST_LIMIT = 200
MAX_OFFSET = 2**40
MAX_BATCH = 256
MAX_NAMESPACE_CHARS = 128
MAX_MODEL_VERSION_CHARS = 64
MAX_METADATA_DEPTH = 16
MAX_KEY_CHARS = 256
_LAST_EXPIRY = 253_402_300_800
"""Unix seconds of the year 10000: a later time was meant in milliseconds."""
SMALLEST_NORM = 1e-18
_MAX_FILTER_BYTES = 65_536
_FAR_TOO_BIG = 4
"""A size above this many times its limit is not computed exactly, as that could take as long as reading the body."""


class RecordLimits(msgspec.Struct, frozen=True):
    """Bounds of what one record may be."""

    dimension: int
    max_text_chars: int = 8_192
    max_metadata_bytes: int = 4_096


class IngestInput(msgspec.Struct, frozen=True):
    """A checked request to store; `text`, `embedding` (f32 little-endian) or both are there.

    With both, the vector is the client's and the text is kept beside it.
    """

    text: str | None
    embedding: bytes | None
    metadata: dict[str, str]
    model_version: str
    validity: Validity = ALWAYS
    superseded_by: str | None = None
    """The CID of what had superseded it where it comes from."""


class QueryInput(msgspec.Struct, frozen=True):
    """A checked search; exactly one of `text` and `embedding` (f32 little-endian) is there."""

    text: str | None
    embedding: bytes | None
    top_k: int
    conditions: Filter


class ListInput(msgspec.Struct, frozen=True):
    """A checked page of a listing."""

    conditions: Filter
    limit: int
    offset: int
    key: str | None = None
    """Only the versions of this key."""


def check_ingest(body: Mapping[str, object], limits: RecordLimits) -> IngestInput:
    """Read what to store. Raises InvalidRequest for a wrong type, InvalidInput for a broken rule."""
    text = _text(body, "text")
    vector = _vector(body, "raw_embedding", limits.dimension)
    model_version = _text(body, "model_version") or "v1"
    if len(model_version) > MAX_MODEL_VERSION_CHARS:
        raise InvalidInput(f"model_version may have at most {MAX_MODEL_VERSION_CHARS} characters.")
    _require_unicode(model_version, "model_version")
    if not text and vector is None:
        raise InvalidInput("Nothing to store: send 'text' or 'raw_embedding'.")
    metadata = normalise_metadata(_mapping(body, "metadata"), limits.max_metadata_bytes)
    checked = check_text(text, limits.max_text_chars) if text else None
    validity, superseded_by = check_validity(body), _cid(body, "superseded_by")
    return IngestInput(checked, vector, metadata, model_version, validity, superseded_by)


def check_validity(body: Mapping[str, object]) -> Validity:
    """Read `key`, `supersedes` and `expires_at`. Raises InvalidRequest for a wrong type, InvalidInput for a wrong
    value."""
    key = _text(body, "key") or None
    if key is not None:
        check_key(key)
    return Validity(key, _cid(body, "supersedes"), _expiry(body))


def check_key(key: str) -> str:
    """Return the key of a record. Raises InvalidInput when it is too long or not valid Unicode."""
    if len(key) > MAX_KEY_CHARS:
        raise InvalidInput(f"key has {len(key):,} characters, over the limit of {MAX_KEY_CHARS}.")
    _require_unicode(key, "key")
    return key


def check_query(body: Mapping[str, object], limits: RecordLimits) -> QueryInput:
    """Read what to search for. Raises InvalidRequest for a wrong type, InvalidInput for a broken rule."""
    text = _text(body, "query_text")
    vector = _vector(body, "query_vector", limits.dimension)
    top_k = _integer(body, "top_k", DEFAULT_TOP_K) or DEFAULT_TOP_K
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidInput(f"top_k must be 1 to {MAX_TOP_K}, not {top_k}.")
    conditions = _conditions(body)
    if vector is not None:
        return QueryInput(None, vector, top_k, conditions)
    if not text:
        raise InvalidInput("Nothing to search for: send 'query_text' or 'query_vector'.")
    return QueryInput(check_text(text, limits.max_text_chars), None, top_k, conditions)


def check_batch(body: Mapping[str, object]) -> list[object]:
    """Read the items of a batch without checking each. Raises InvalidRequest."""
    items = body.get("items")
    if not isinstance(items, list) or not 0 < len(items) <= MAX_BATCH:
        raise InvalidRequest(f"items must be a list of 1 to {MAX_BATCH} objects.")
    return items


def check_item(item: object, limits: RecordLimits) -> IngestInput:
    """Read one item of a batch, as `check_ingest` reads a body. Raises InvalidRequest, InvalidInput."""
    if not isinstance(item, dict):
        raise InvalidRequest("An item must be an object.")
    return check_ingest(item, limits)


def check_list(body: Mapping[str, object]) -> ListInput:
    """Read which page to list. Raises InvalidRequest for a wrong type or a negative number."""
    limit = _integer(body, "limit", DEFAULT_LIST_LIMIT)
    offset = _integer(body, "offset", 0)
    if limit < 0 or not 0 <= offset <= MAX_OFFSET:
        raise InvalidRequest("limit and offset must not be negative.")
    key = _text(body, "key") or None
    if key is not None and len(key) > MAX_KEY_CHARS:
        raise InvalidRequest(f"key has {len(key):,} characters, over the limit of {MAX_KEY_CHARS}.")
    return ListInput(_conditions(body), min(limit or DEFAULT_LIST_LIMIT, MAX_LIST_LIMIT), offset, key)


def check_text(text: str, max_chars: int) -> str:
    """Return the text unchanged. Raises InvalidInput when it is blank, too long or not valid Unicode."""
    if not text.strip():
        raise InvalidInput("The text is empty: it must have at least one character that is not a space.")
    if len(text) > max_chars:
        raise InvalidInput(f"The text has {len(text):,} characters, over the limit of {max_chars:,}.")
    _require_unicode(text, "The text")
    return text


def normalise_metadata(metadata: Mapping[str, object], max_bytes: int) -> dict[str, str]:
    """Return the metadata as strings, written as Python's `str` writes each value (True -> "True").

    The size limit applies to the JSON as sent, in Python's default spelling; of metadata that are far too big only as
    much is looked at as shows it.
    Raises InvalidInput when it is too big, nested deeper than MAX_METADATA_DEPTH or not valid Unicode.
    """
    if _room_left(metadata, MAX_METADATA_DEPTH, _FAR_TOO_BIG * max_bytes) < 0:
        raise InvalidInput(f"The metadata is far over the limit of {max_bytes:,} bytes.")
    size = len(json.dumps(metadata))
    if size > max_bytes:
        raise InvalidInput(f"The metadata has {size:,} bytes, over the limit of {max_bytes:,}.")
    normalised = {key: value if isinstance(value, str) else str(value) for key, value in metadata.items()}
    for key, text in normalised.items():
        _require_unicode(key, "A metadata key")
        _require_unicode(text, f"The metadata value of {key!r}")
    return normalised


def pack_vector(numbers: Sequence[float], dimension: int, field: str) -> bytes:
    """Return the vector as f32 little-endian bytes.

    Raises InvalidInput when the dimension is wrong, a number is not finite as f32, or all are (next to) zero:
    a vector without direction has no cosine.
    """
    if len(numbers) != dimension:
        raise InvalidInput(_other_dimension(field, len(numbers), dimension))
    try:
        packed = struct.pack(f"<{dimension}f", *numbers)
    except (OverflowError, struct.error) as error:
        raise InvalidInput(f"{field} has a number that does not fit 32-bit floating point.") from error
    return check_vector(packed, field)


def check_vector(packed: bytes, field: str) -> bytes:
    """Return the f32 little-endian vector unchanged. Raises InvalidInput when a number is not finite, or all are
    (next to) zero."""
    numbers = unpack_vector(packed)
    if math.isfinite(whole := sum(numbers)) and abs(whole) > len(numbers) * SMALLEST_NORM:
        return packed  # a sum that large implies such a norm; this settles all but a few vectors in half the time
    norm = math.hypot(*numbers.tolist())  # unpacked from a list it takes a quarter of the time
    if not math.isfinite(norm):
        raise InvalidInput(f"{field} must have finite numbers only.")
    if norm < SMALLEST_NORM:
        raise InvalidInput(f"{field} has no direction: all its numbers are zero.")
    return packed


def unpack_vector(packed: bytes) -> array[float]:
    """Return the numbers of an f32 little-endian vector."""
    numbers = array("f")
    numbers.frombytes(packed)
    return numbers


def check_namespace(name: str) -> str:
    """Return the name of a namespace. Raises InvalidInput when it is not a Python identifier or too long."""
    if name != PUBLIC and (len(name) > MAX_NAMESPACE_CHARS or not name.isidentifier()):
        shown = name if len(name) <= MAX_NAMESPACE_CHARS else name[:MAX_NAMESPACE_CHARS] + "…"
        raise InvalidInput(
            f"Invalid namespace name: {shown!r}. Use letters, digits and underscores, at most {MAX_NAMESPACE_CHARS}."
        )
    return name


def _text(body: Mapping[str, object], field: str) -> str:
    value = body.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{field} must be a string.")
    return value


def _cid(body: Mapping[str, object], field: str) -> str | None:
    cid = _text(body, field) or None
    if cid is not None and not is_cid(cid):
        raise InvalidInput(f"{field} must be the CID of a record, v1:: and 64 hex digits, not {cid[:80]!r}.")
    return cid


def _numbers(body: Mapping[str, object], field: str, dimension: int) -> list[float]:
    value = body.get(field)
    if value is None:
        return []
    if isinstance(value, list) and len(value) > dimension:  # too long: do not check each
        raise InvalidInput(_other_dimension(field, len(value), dimension))
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        raise InvalidRequest(f"{field} must be a list of numbers.")
    return value


def _other_dimension(field: str, found: int, dimension: int) -> str:
    return f"{field} has {found} dimensions, this node takes exactly {dimension}."


def _vector(body: Mapping[str, object], field: str, dimension: int) -> bytes | None:
    """Return a vector as a list of numbers, or under `<field>_b64` as the base64 of its f32 little-endian bytes."""
    encoded = _text(body, f"{field}_b64")
    numbers = _numbers(body, field, dimension)
    if numbers and encoded:
        raise InvalidRequest(f"Send {field} or {field}_b64, not both.")
    if numbers:
        return pack_vector(numbers, dimension, field)
    if not encoded:
        return None
    if len(encoded) > 8 * dimension:
        raise InvalidInput(f"{field}_b64 is too long: this node takes {dimension} 32-bit floats.")
    try:
        packed = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        raise InvalidRequest(f"{field}_b64 is not base64.") from error
    if len(packed) != 4 * dimension:
        raise InvalidInput(f"{field}_b64 has {len(packed)} bytes, this node takes {dimension} 32-bit floats.")
    return check_vector(packed, f"{field}_b64")


def _integer(body: Mapping[str, object], field: str, default: int) -> int:
    value = body.get(field)
    if value is None:
        return default
    if type(value) is not int:
        raise InvalidRequest(f"{field} must be a whole number.")
    return value


def _expiry(body: Mapping[str, object]) -> float | None:
    value = body.get("expires_at")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest("expires_at must be a number: unix seconds.")
    if not 0 < value < _LAST_EXPIRY:
        raise InvalidInput("expires_at must be unix seconds, above 0 and before the year 10000; milliseconds are more.")
    return float(value)


def _mapping(body: Mapping[str, object], field: str) -> Mapping[str, object]:
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} must be an object.")
    return value


def _conditions(body: Mapping[str, object]) -> Filter:
    fields = _mapping(body, "filter")
    if not fields:
        return filters.EVERYTHING
    parsed = filters.parse(fields)
    normalise_metadata(fields, _MAX_FILTER_BYTES)
    return parsed


def _room_left(value: object, depth: int, room: int) -> int:
    """Return what remains of `room` bytes after the shortest JSON of the value; below 0: too big.

    Raises InvalidInput for more than `depth` levels, unless it is too big before they are seen.
    """
    if isinstance(value, str):
        return room - len(value)
    if isinstance(value, int):
        return room - value.bit_length() // 4
    if not isinstance(value, dict | list):
        return room
    if depth == 0:
        raise InvalidInput(f"The metadata is nested deeper than {MAX_METADATA_DEPTH} levels.")
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        room = _room_left(inner, depth - 1, room - (len(key) if isinstance(key, str) else 0) - 1)
        if room < 0:
            break
    return room


def _require_unicode(text: str, what: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{what} has half of a surrogate pair, which is not valid Unicode.") from error
