"""How miners and validators of chutes, and miners on a socket, sign: as tables.

    miner -> validator   {hotkey}:{nonce}:{sha256hex(body) | purpose}               seconds, ±600 s
    validator -> miner   {miner}:{validator}:{nonce}:{sha256hex(body) | purpose}    seconds, ±30 s
    socket               {hotkey}:{nonce}:sockets                                   seconds, ±600 s
    socket (pattern B)   auth:{hotkey}:{timestamp}                                  nanoseconds, ±60 s

A purpose is signed in place of a body where there is none. A nonce of seconds does not tell two requests of one second
apart, so reading may be repeated (`Scheme.repeatable`). What a miner signs names no validator: one that it talks to
can pass it on to another.
"""

import hashlib
from typing import Final

from engram.hotkeys.scheme import NANOSECONDS, SECONDS, Part, Scheme, Signable
from engram.hotkeys.ss58 import decode

MINER_WINDOW_MS: Final = 600_000
VALIDATOR_WINDOW_MS: Final = 30_000
SOCKET_WINDOW_MS: Final = 60_000

_SIGNING: Final[frozenset[Part]] = frozenset({"hotkey", "timestamp", "signature"})
_TO_MINER: Final[frozenset[Part]] = frozenset({"hotkey", "timestamp", "signature", "receiver"})
_READING: Final = frozenset({"GET", "HEAD"})


def of_miner(purpose: str = "") -> Scheme:
    """Return the bytes that a miner signs for a validator's route; `purpose` stands in for an absent body."""
    return Scheme(
        name="chutes-miner",
        headers={
            "x-chutes-hotkey": "hotkey",
            "x-chutes-nonce": "timestamp",
            "x-chutes-signature": "signature",
        },
        required=_SIGNING,
        messages=lambda parts: (f"{parts.hotkey}:{parts.timestamp}:{_subject(parts, purpose)}".encode("ascii"),),
        past_ms=MINER_WINDOW_MS,
        future_ms=MINER_WINDOW_MS,
        unit=SECONDS,
        hotkey=decode,
        repeatable=_READING,
    )


def of_validator(purpose: str = "") -> Scheme:
    """Return the bytes that a validator signs for a miner's route; `purpose` stands in for an absent body."""
    return Scheme(
        name="chutes-validator",
        headers={
            "x-chutes-validator": "hotkey",
            "x-chutes-miner": "receiver",
            "x-chutes-nonce": "timestamp",
            "x-chutes-signature": "signature",
        },
        required=_TO_MINER,
        messages=lambda parts: (
            f"{parts.receiver}:{parts.hotkey}:{parts.timestamp}:{_subject(parts, purpose)}".encode("ascii"),
        ),
        past_ms=VALIDATOR_WINDOW_MS,
        future_ms=VALIDATOR_WINDOW_MS,
        unit=SECONDS,
        hotkey=decode,
        repeatable=_READING,
    )


def _subject(parts: Signable, purpose: str) -> str:
    return purpose if purpose and not parts.body else hashlib.sha256(parts.body).hexdigest()


SOCKET: Final = Scheme(
    name="chutes-socket",
    fields={"X-Chutes-Hotkey": "hotkey", "X-Chutes-Nonce": "timestamp", "X-Chutes-Signature": "signature"},
    required=_SIGNING,
    messages=lambda parts: (f"{parts.hotkey}:{parts.timestamp}:sockets".encode("ascii"),),
    past_ms=MINER_WINDOW_MS,
    future_ms=MINER_WINDOW_MS,
    unit=SECONDS,
    hotkey=decode,
)
"""The `authenticate` event of a miner's socket; its payload carries the names of the headers."""

PATTERN_B: Final = Scheme(
    name="pattern-b",
    fields={"hotkey": "hotkey", "timestamp": "timestamp", "signature": "signature"},
    required=_SIGNING,
    messages=lambda parts: (f"auth:{parts.hotkey}:{parts.timestamp}".encode("ascii"),),
    past_ms=SOCKET_WINDOW_MS,
    future_ms=SOCKET_WINDOW_MS,
    unit=NANOSECONDS,
    hotkey=decode,
)
"""The `authenticate` event of a miner that connects to an orchestrator; the other fields of its payload (`gpu_info`)
are not signed. The original names no window."""
