"""Conversations that clients keep on a node, by the key that signed and the names it gives to user and conversation."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from engram import wire
from engram.durable.driver import sqlite3
from engram.memory.errors import InvalidRequest, NotFound, QuotaExceeded

MAX_MESSAGES = 200
MAX_CONVERSATIONS = 1_000
MAX_ID_CHARS = 128
MAX_TITLE_CHARS = 512
MAX_CONTENT_CHARS = 32_768
MAX_ROLE_CHARS = 32


class Message(msgspec.Struct, frozen=True):
    """`ts` is the time that the client gave the message, else the unix seconds at which it was saved."""

    role: str
    content: str
    ts: float | int | str | None = None


class Conversation(msgspec.Struct, frozen=True):
    """Times are unix seconds."""

    conv_id: str
    title: str
    created_at: float
    updated_at: float


def check_id(body: Mapping[str, object], name: str) -> str:
    """Read a user's or a conversation's name. Raises InvalidRequest."""
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARS or not _is_unicode(value):
        raise InvalidRequest(f"{name} must be a string of 1 to {MAX_ID_CHARS} characters.")
    return value


def check_title(body: Mapping[str, object]) -> str:
    """Read a title; a missing one is empty. Raises InvalidRequest."""
    value = body.get("title") or ""
    if not isinstance(value, str) or len(value) > MAX_TITLE_CHARS or not _is_unicode(value):
        raise InvalidRequest(f"title must be a string of at most {MAX_TITLE_CHARS} characters.")
    return value


def check_messages(body: Mapping[str, object]) -> list[Message]:
    """Read the last MAX_MESSAGES messages and drop the rest. Raises InvalidRequest naming the one that is wrong."""
    given = body.get("messages")
    if not isinstance(given, list):
        raise InvalidRequest("messages must be a list of objects with role and content.")
    first = max(0, len(given) - MAX_MESSAGES)
    return [_message(number, each) for number, each in enumerate(given[first:], first)]


def save(
    connection: sqlite3.Connection, owner: bytes, user_id: str, conv_id: str, messages: list[Message], now: float
) -> None:
    """Replace the messages of a conversation, creating it when it does not exist. Raises QuotaExceeded."""
    make(connection, owner, user_id, conv_id, "", now)
    before = history(connection, owner, user_id, conv_id) if any(each.ts is None for each in messages) else []
    connection.execute(
        "UPDATE conversations SET messages = ?, updated_at = ? WHERE owner = ? AND user_id = ? AND conv_id = ?",
        (msgspec.json.encode(stamped(messages, before, now)).decode(), now, owner, user_id, conv_id),
    )


def stamped(messages: Sequence[Message], before: Sequence[Message], now: float) -> list[Message]:
    """Return the messages with a time each; one that was saved `before` keeps its time.

    >>> said = Message("user", "hi")
    >>> [each.ts for each in stamped([said, said, Message("user", "hi", "noon")], [Message("user", "hi", 1.0)], 2.0)]
    [1.0, 2.0, 'noon']
    """
    had: dict[tuple[str, str], deque[float | int | str]] = {}
    for each in before:
        if each.ts is not None:
            had.setdefault((each.role, each.content), deque()).append(each.ts)
    return [
        each if each.ts is not None else msgspec.structs.replace(each, ts=times.popleft() if times else now)
        for each in messages
        for times in (had.get((each.role, each.content)),)
    ]


def history(connection: sqlite3.Connection, owner: bytes, user_id: str, conv_id: str) -> list[Message]:
    """Return the messages of a conversation; none for an unknown one."""
    row = connection.execute(
        "SELECT messages FROM conversations WHERE owner = ? AND user_id = ? AND conv_id = ?", (owner, user_id, conv_id)
    ).fetchone()
    return [] if row is None else wire.convert(json.loads(row[0]), list[Message])


def conversations(connection: sqlite3.Connection, owner: bytes, user_id: str) -> list[Conversation]:
    """Return a user's conversations, newest first."""
    rows = connection.execute(
        "SELECT conv_id, title, created_at, updated_at FROM conversations WHERE owner = ? AND user_id = ?"
        " ORDER BY updated_at DESC, conv_id",
        (owner, user_id),
    )
    return [Conversation(*row) for row in rows]


def make(
    connection: sqlite3.Connection, owner: bytes, user_id: str, conv_id: str, title: str, now: float
) -> Conversation:
    """Create a conversation; an existing one stays as it is. Raises QuotaExceeded."""
    held = connection.execute("SELECT count(*) FROM conversations WHERE owner = ?", (owner,)).fetchone()[0]
    there = connection.execute(
        "SELECT conv_id, title, created_at, updated_at FROM conversations"
        " WHERE owner = ? AND user_id = ? AND conv_id = ?",
        (owner, user_id, conv_id),
    ).fetchone()
    if there is not None:
        return Conversation(*there)
    if held >= MAX_CONVERSATIONS:
        raise QuotaExceeded(f"This node keeps {MAX_CONVERSATIONS} conversations of a key; delete one first.")
    connection.execute(
        "INSERT INTO conversations (owner, user_id, conv_id, title, created_at, updated_at, messages)"
        " VALUES (?, ?, ?, ?, ?, ?, '[]')",
        (owner, user_id, conv_id, title, now, now),
    )
    return Conversation(conv_id, title, now, now)


def rename(connection: sqlite3.Connection, owner: bytes, user_id: str, conv_id: str, title: str, now: float) -> None:
    """Rename a conversation. Raises NotFound."""
    changed = connection.execute(
        "UPDATE conversations SET title = ?, updated_at = ? WHERE owner = ? AND user_id = ? AND conv_id = ?",
        (title, now, owner, user_id, conv_id),
    )
    if changed.rowcount == 0:
        raise NotFound


def delete(connection: sqlite3.Connection, owner: bytes, user_id: str, conv_id: str) -> None:
    """Delete a conversation. Raises NotFound."""
    changed = connection.execute(
        "DELETE FROM conversations WHERE owner = ? AND user_id = ? AND conv_id = ?", (owner, user_id, conv_id)
    )
    if changed.rowcount == 0:
        raise NotFound


def _message(number: int, given: object) -> Message:
    if not isinstance(given, dict):
        raise InvalidRequest(f"messages[{number}] must be an object with role and content.")
    role, content, ts = given.get("role"), given.get("content"), given.get("ts")
    if not isinstance(role, str) or not 0 < len(role) <= MAX_ROLE_CHARS or not _is_unicode(role):
        raise InvalidRequest(f"messages[{number}].role must be a string of 1 to {MAX_ROLE_CHARS} characters.")
    if not isinstance(content, str) or len(content) > MAX_CONTENT_CHARS or not _is_unicode(content):
        raise InvalidRequest(f"messages[{number}].content must be a string of at most {MAX_CONTENT_CHARS} characters.")
    if isinstance(ts, bool) or not isinstance(ts, float | int | str | None) or len(str(ts)) > MAX_ID_CHARS:
        raise InvalidRequest(f"messages[{number}].ts must be a number or a string.")
    if isinstance(ts, str) and not _is_unicode(ts):
        raise InvalidRequest(f"messages[{number}].ts is not valid Unicode.")
    if isinstance(ts, int) and not -(2**63) <= ts < 2**63:
        raise InvalidRequest(f"messages[{number}].ts is too large.")
    return Message(role, content, ts)


def _is_unicode(text: str) -> bool:
    """Return whether the text is valid Unicode; a database refuses halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
