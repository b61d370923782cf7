"""How each endpoint has behaved, and for how long it is set aside. Pure."""

from collections.abc import Collection, Sequence
from random import Random

import msgspec

from engram.chain.model import EndpointHealth

BACKOFF_MIN_S = 2.0
BACKOFF_MAX_S = 120.0
BUSY_MIN_S = 15.0
"""A refusal for load without Retry-After sets aside at least this long."""
RETRY_AFTER_MAX_S = 3_600.0
JITTER = 0.2
POLL_MIN_S = 1.0
HANG_S = 600.0
"""A command does not ask an endpoint that hung again before this, while another one can be asked."""


def after_success() -> EndpointHealth:
    """The health of an endpoint that answered well."""
    return EndpointHealth()


def after_failure(health: EndpointHealth, error: str, now_s: float, rng: Random) -> EndpointHealth:
    """Sets the endpoint aside for 2 s, 4 s, … 120 s, ± 20 %."""
    return _set_aside(health, error, now_s, _backoff_s(health, rng))


def after_hang(health: EndpointHealth, error: str, now_s: float) -> EndpointHealth:
    """Sets the endpoint aside for 10 minutes: a command that waits for it once waits no second time."""
    return _set_aside(health, error, now_s, HANG_S)


def after_refused_head(health: EndpointHealth, error: str, now_s: float, rng: Random) -> EndpointHealth:
    """Asks for no head of this endpoint as long as after a failure; it still answers for the heads of others."""
    aside = _set_aside(health, error, now_s, _backoff_s(health, rng))
    return msgspec.structs.replace(aside, silent_until_s=health.silent_until_s)


def after_busy(
    health: EndpointHealth, error: str, retry_after_s: float | None, now_s: float, rng: Random
) -> EndpointHealth:
    """Sets the endpoint aside for as long as it asked (at most an hour), else for 15 s, 30 s, … 120 s, ± 20 %.

    What it asked is never shortened by the jitter.
    """
    if retry_after_s is None:
        wait_s = _jittered(min(BACKOFF_MAX_S, BUSY_MIN_S * 2.0 ** min(health.failures, 10)), rng)
    else:
        wait_s = min(RETRY_AFTER_MAX_S, max(POLL_MIN_S, retry_after_s)) * (1.0 + JITTER * rng.random())
    return _set_aside(health, error, now_s, wait_s)


def choose(healths: Sequence[EndpointHealth], now_s: float, passed: Collection[int] = ()) -> int | None:
    """The first endpoint in order that may be asked now and is none of `passed`; None when there is none."""
    for number, health in enumerate(healths):
        if health.not_before_s <= now_s and number not in passed:
            return number
    return None


def witnesses(healths: Sequence[EndpointHealth], asked: int, now_s: float) -> list[int]:
    """The endpoints that may be asked about an answer of endpoint `asked`: those not set aside come first."""
    others = [place for place in range(len(healths)) if place != asked and healths[place].silent_until_s <= now_s]
    return sorted(others, key=lambda place: healths[place].not_before_s > now_s)


def next_poll_s(healths: Sequence[EndpointHealth], poll_s: float, now_s: float, failed: bool) -> float:
    """Seconds to the next poll: `poll_s`, sooner after a failure if an endpoint may be asked sooner."""
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
