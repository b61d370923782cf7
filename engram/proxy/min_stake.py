"""The stake threshold where a subnet publishes it: read from `auth.min_stake_url`, which changes as the subnet does.

    (none) --read--> known --read again every 5 minutes--> known
                       +-----a reading fails-----> known   the last good one stays in force, and its age is shown

Until the first good reading, and without a URL, `auth.min_stake` is in force.
"""

import math
from typing import Final, final
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from actors import Context
from engram import wire
from engram.http.client import HttpClient
from engram.http.errors import HttpError
from engram.proxy.state import State, Threshold

KEYS: Final = ("min_stake", "alpha", "min_alpha", "stake", "value")
"""Where the number may stand in an answer that is an object."""
MOST: Final = 1e15
_EVERY_S: Final = 300.0
_AGAIN_S: Final = 30.0
"""After a reading that failed."""
_LOOK_S: Final = 1.0
_MOST_BYTES: Final = 65_536

_log = structlog.get_logger("engram.proxy")


class NoThreshold(ValueError):
    """What was read is no threshold."""


def threshold_in(content: bytes) -> float:
    """Return the stake that an answer names: a number, a text of one, or an object with one of KEYS. Pure.

    >>> threshold_in(b'{"alpha": "1500.5"}')
    1500.5

    Raises NoThreshold.
    """
    try:
        found = wire.decode(content, object)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoThreshold(f"the answer is not JSON: {error}") from None
    if isinstance(found, dict):
        named = [key for key in KEYS if key in found]
        if len(named) != 1:
            raise NoThreshold(f"the answer has {len(named)} of the keys {', '.join(KEYS)}; one is needed")
        found = found[named[0]]
    try:
        value = float(found) if isinstance(found, int | float | str) and not isinstance(found, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= MOST:
        raise NoThreshold(f"{str(found)[:60]!r} is no stake from 0 to {MOST:g}")
    return value


def shown(url: str) -> str:
    """Return a URL for others to see: without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@final
class StakeReadings:
    """Reads the threshold while the plan in force names a URL."""

    def __init__(self, state: State, http: HttpClient) -> None:
        self._state = state
        self._http = http
        self._url = ""
        self._due_s = 0.0

    async def run(self, context: Context) -> None:
        """Read until cancelled."""
        context.ready()
        while True:
            url = self._state.plan.settings.auth.min_stake_url
            if url != self._url:
                self._url, self._due_s = url, 0.0
                self._state.threshold_error = ""
            if url and trio.current_time() >= self._due_s:
                good = await self.read(url)
                self._due_s = trio.current_time() + (_EVERY_S if good else _AGAIN_S)
            await trio.sleep(_LOOK_S)

    async def read(self, url: str) -> bool:
        """Read the threshold once; return whether that gave one."""
        state = self._state
        try:
            answer = await self._http.request("GET", url, max_bytes=_MOST_BYTES)
            if answer.status != 200:
                raise NoThreshold(f"it answers {answer.status}")
            value = threshold_in(answer.content)
        except (HttpError, NoThreshold) as error:
            if state.threshold_error != str(error):
                _log.warning("min_stake_not_read", url=shown(url), error=str(error))
            state.threshold_error = str(error)
            return False
        before = state.policy.min_stake
        state.threshold_error = ""
        state.threshold = Threshold(url, shown(url), value, state.clock.monotonic())
        if state.policy.min_stake != before:
            _log.info("min_stake", min_stake=value, before=before, url=shown(url))
        return True
