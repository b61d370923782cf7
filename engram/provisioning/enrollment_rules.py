"""Which key a node may sign by, and what its certificate says. No I/O, no clock, no randomness.

A launch has one session key at a time. Another one means that the node was started again, or that somebody answers in
its place: it is taken only while the saga waits for the node (`launching`), and only so often a day. A key that was
given up never comes back, since an honest node forgets it.
"""

from enum import StrEnum
from typing import Final

import msgspec

from engram.hotkeys import PublicKey, sealed, ss58
from engram.hotkeys.certificates import Certificate
from engram.hotkeys.node_identity import Introduction

VALID_S: Final = 600
"""A certificate is good for this long: a node whose session was stopped early can sign for no longer."""
RENEW_S: Final = 180.0
"""Certificates are renewed this often; a gateway that is away for less than the rest of VALID_S is not missed."""
MOST_KEYS: Final = 16
"""Session keys of one launch in KEYS_WITHIN_S: a node may have to be started again and again in a month."""
KEYS_WITHIN_S: Final = 86_400.0


MOST_MISSED: Final = 3
"""Looks in a row at which something that serves does not say who it is, a minute apart; then it is taken for another.
A node that answers nothing at all is noticed earlier, by the polls."""


class Verdict(StrEnum):
    """What an introduction is worth."""

    HOTKEY = "hotkey"
    """The node has its hotkey."""
    FIRST = "first"
    SAME = "same"
    REPLACED = "replaced"
    """Another session key: the node was started again."""
    WRONG_KEY = "wrong_key"
    """Nobody has a key that this launch may have."""
    OLD_KEY = "old_key"
    TOO_MANY_KEYS = "too_many_keys"


CERTIFIED: Final = frozenset({Verdict.FIRST, Verdict.SAME, Verdict.REPLACED})
"""Nodes with these need a certificate."""
TRUSTED: Final = CERTIFIED | {Verdict.HOTKEY}


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger knows of a launch. Times are unix seconds."""

    session_id: str
    token: str
    hotkey: PublicKey
    controller: PublicKey
    keys: tuple[PublicKey, ...]
    """Its session keys so far, oldest first."""
    recent_keys: int
    """How many of them are of the last KEYS_WITHIN_S."""
    has_hotkey: bool
    """It was given its hotkey: it runs on our own machine."""
    serves_until: float
    """When what was paid for ends, as far as it is known."""
    ends_at: float
    """When the node is to end by itself."""


def judge(introduction: Introduction, expected: Expected, *, launching: bool) -> Verdict:
    """Return what an introduction is worth whose signature holds and that names this launch."""
    shown = introduction.key
    if shown == expected.hotkey:
        return Verdict.HOTKEY
    if expected.has_hotkey or not sealed.is_box_key(introduction.box_key):
        return Verdict.WRONG_KEY
    if not expected.keys:
        return Verdict.FIRST if launching else Verdict.WRONG_KEY
    if shown == expected.keys[-1]:
        return Verdict.SAME
    if shown in expected.keys:
        return Verdict.OLD_KEY
    if not launching:
        return Verdict.WRONG_KEY
    return Verdict.REPLACED if expected.recent_keys < MOST_KEYS else Verdict.TOO_MANY_KEYS


def names(introduction: Introduction, expected: Expected) -> bool:
    """Return whether the introduction is one of this launch."""
    shown = introduction.hotkey, introduction.session_id, introduction.launch_token
    return shown == (expected.hotkey, expected.session_id, expected.token)


def certificate(introduction: Introduction, expected: Expected, now: float, secrets: str = "") -> Certificate:
    """Return what the hotkey is to sign: good from now for VALID_S, never past what was paid for."""
    not_before = int(now)
    return Certificate(
        hotkey=ss58.encode(expected.hotkey),
        session_key=ss58.encode(introduction.key),
        box_key=introduction.box_key.hex(),
        controller=ss58.encode(expected.controller),
        session_id=expected.session_id,
        launch_token=expected.token,
        not_before=not_before,
        not_after=max(not_before, min(not_before + VALID_S, int(expected.serves_until))),
        ends_at=int(expected.ends_at),
        secrets=secrets,
    )


def is_due(certified_until: float | None, serves_until: float, now: float) -> bool:
    """Return whether a node's certificate should be renewed, was made by a clock that has been set back since, or has
    never been made.

    >>> is_due(None, 9_000.0, 100.0), is_due(700.0, 9_000.0, 150.0), is_due(700.0, 9_000.0, 300.0)
    (True, False, True)
    >>> is_due(700.0, 9_000.0, 50.0)
    True
    """
    if certified_until is None or certified_until - now > VALID_S:
        return True
    return certified_until < serves_until and certified_until - now <= VALID_S - RENEW_S


def is_ahead(held: Certificate, introduction: Introduction, now: float) -> bool:
    """Return whether a certificate that the node holds for its key begins later than one of now would.

    Our clock was set back then; the node may refuse the older one, and is no other node for that.
    """
    return held.session_key == ss58.encode(introduction.key) and held.not_before > int(now)
