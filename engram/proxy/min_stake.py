"""The stake threshold where a subnet publishes it: read from `auth.min_stake_url`, which changes as the subnet does.

    (none) --read--> known, kept --read again every 5 minutes--> known, kept
                       +-----a reading fails, a restart-----> known   the last good one stays in force; its age is shown

Until the first good reading, and without a URL, `auth.min_stake` is in force. The last one is kept in the data folder
with its URL: of another URL it is not believed.
"""

import math
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from actors import Context
from engram import files, wire
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
FILE: Final = "min-stake.json"
_kept: Final = wire.decoder(Threshold)

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
class KeptThreshold:
    """The file that keeps the newest good reading over a restart."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def read(self) -> Threshold | None:
        """Return what is kept; None without it, or where it cannot be used. Blocks."""
        try:
            found = _kept.decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("min_stake_not_kept", path=str(self._path), error=str(error))
            return None
        return found if 0 <= found.min_stake <= MOST else None

    async def keep(self, threshold: Threshold) -> None:
        """Keep a reading. A disk that takes nothing is logged: the reading is in force all the same."""
        try:
            await trio.to_thread.run_sync(files.put, self._path, msgspec.json.encode(threshold))
        except OSError as error:
            _log.warning("min_stake_not_kept", path=str(self._path), error=str(error))


@final
class StakeReadings:
    """Reads the threshold while the plan in force names a URL."""

    def __init__(self, state: State, http: HttpClient, kept: KeptThreshold) -> None:
        self._state = state
        self._http = http
        self._kept = kept
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
        state.threshold = Threshold(url, shown(url), value, state.clock.now())
        await self._kept.keep(state.threshold)
        if state.policy.min_stake != before:
            _log.info("min_stake", min_stake=value, before=before, url=shown(url))
        return True
