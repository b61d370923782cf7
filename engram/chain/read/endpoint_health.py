"""The health of each endpoint: how long a failure sets it aside, and which endpoint to ask next. Pure."""

from collections.abc import Collection, Sequence
from random import Random

import msgspec

from engram.chain.model import EndpointHealth

BACKOFF_MIN_S = 2.0
BACKOFF_MAX_S = 120.0
BUSY_MIN_S = 15.0
"""Shortest time an endpoint is set aside when it is busy and sends no Retry-After."""
RETRY_AFTER_MAX_S = 3_600.0
JITTER = 0.2
POLL_MIN_S = 1.0
HANG_S = 600.0
"""Time for which a command avoids an endpoint that hung, while another one is available."""


def after_success() -> EndpointHealth:
    """Return the health of an endpoint that answered well."""
    return EndpointHealth()


def after_failure(health: EndpointHealth, error: str, now_s: float, rng: Random) -> EndpointHealth:
    """Set the endpoint aside for 2 s, 4 s, … 120 s, ± 20 %."""
    return _set_aside(health, error, now_s, _backoff_s(health, rng))


def after_hang(health: EndpointHealth, error: str, now_s: float) -> EndpointHealth:
    """Set the endpoint aside for 10 minutes: a command waits for it once, not twice."""
    return _set_aside(health, error, now_s, HANG_S)


def after_refused_head(health: EndpointHealth, error: str, now_s: float, rng: Random) -> EndpointHealth:
    """Set the endpoint's own heads aside as after a failure; it still confirms the heads of others."""
    aside = _set_aside(health, error, now_s, _backoff_s(health, rng))
    return msgspec.structs.replace(aside, silent_until_s=health.silent_until_s)


def after_busy(
    health: EndpointHealth, error: str, retry_after_s: float | None, now_s: float, rng: Random
) -> EndpointHealth:
    """Set the endpoint aside for its Retry-After (at most an hour), else for 15 s, 30 s, … 120 s, ± 20 %.

    Jitter never shortens a Retry-After.
    """
    if retry_after_s is None:
        wait_s = _jittered(min(BACKOFF_MAX_S, BUSY_MIN_S * 2.0 ** min(health.failures, 10)), rng)
    else:
        wait_s = min(RETRY_AFTER_MAX_S, max(POLL_MIN_S, retry_after_s)) * (1.0 + JITTER * rng.random())
    return _set_aside(health, error, now_s, wait_s)


def choose(healths: Sequence[EndpointHealth], now_s: float, passed: Collection[int] = ()) -> int | None:
    """Return the first endpoint that is available now and not in `passed`; None when there is none."""
    for number, health in enumerate(healths):
        if health.not_before_s <= now_s and number not in passed:
            return number
    return None


def witnesses(healths: Sequence[EndpointHealth], answered: int, now_s: float) -> list[int]:
    """Return the endpoints that can confirm an answer of endpoint `answered`, those not set aside first."""
    others = [place for place in range(len(healths)) if place != answered and healths[place].silent_until_s <= now_s]
    return sorted(others, key=lambda place: healths[place].not_before_s > now_s)


def next_poll_s(healths: Sequence[EndpointHealth], poll_s: float, now_s: float, failed: bool) -> float:
    """Return the seconds to the next poll: `poll_s`, or less after a failure when an endpoint is available sooner."""
    if not failed:
        return poll_s
    soonest_s = min(health.not_before_s for health in healths) - now_s
    return min(poll_s, max(POLL_MIN_S, soonest_s))


def _backoff_s(health: EndpointHealth, rng: Random) -> float:
    return _jittered(min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(health.failures, 10)), rng)


def _jittered(wait_s: float, rng: Random) -> float:
    return wait_s * (1.0 + JITTER * (2.0 * rng.random() - 1.0))


def _set_aside(health: EndpointHealth, error: str, now_s: float, wait_s: float) -> EndpointHealth:
    until_s = now_s + wait_s
    return EndpointHealth(health.failures + 1, until_s, error, silent_until_s=until_s)
