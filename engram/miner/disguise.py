"""Disguises answers about private namespaces: pads their size and delays them to fixed times."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from engram.memory import padding

_LATENCY = "latency_ms"


class Disguise(msgspec.Struct, frozen=True):
    """Pads and delays private answers; `late` is called for one that took longer than a bucket."""

    bucket_s: float
    late: Callable[[], None]

    async def encoded(self, body: object, arrived_s: float) -> bytes:
        """Return the padded JSON of an answer once it may be sent.

        Times are trio's. Without buckets (0) the answer is sent at once and reports its real latency.
        """
        now = trio.current_time()
        if self.bucket_s <= 0:
            return _padded(timed(body, now - arrived_s))
        out_at = padding.answer_at(arrived_s, now, self.bucket_s)
        content = _padded(timed(body, out_at - arrived_s))
        if now - arrived_s > self.bucket_s:
            self.late()
        await trio.sleep_until(out_at)
        return content


def timed(body: object, took_s: float) -> object:
    """Return the body with its latency filled in, if it has that field."""
    took_ms = round(took_s * 1000, 3)
    if isinstance(body, dict):
        return {**body, _LATENCY: took_ms} if _LATENCY in body else body
    if isinstance(body, msgspec.Struct) and hasattr(body, _LATENCY):
        return msgspec.structs.replace(body, latency_ms=took_ms)
    return body


def _padded(body: object) -> bytes:
    content = msgspec.json.encode(body)
    start = content[:-1] + (b'"_p":"' if content == b"{}" else b',"_p":"')
    size = len(start) + 2
    return start + b"x" * (padding.padded_size(size) - size) + b'"}'
