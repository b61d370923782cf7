"""Reads the settings again on SIGHUP, and when one of their files changes. A bad file changes only the status."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import structlog
import trio

from actors import Context
from config.errors import ConfigError
from engram.http.errors import NotSent
from engram.proxy.planning import Planner, read_at_start, retire_others
from engram.proxy.settings import Loaded
from engram.proxy.state import State

_LOOK_S: Final = 1.0

Stamps = tuple[tuple[int, int, int] | None, ...]

_log = structlog.get_logger("engram.proxy")


@final
class Reloading:
    """Keeps the plan in step with the settings' files."""

    def __init__(self, state: State, planner: Planner, loaded: Loaded, load: Callable[[], Loaded]) -> None:
        self._state = state
        self._planner = planner
        self._first = self._loaded = loaded
        self._load = load
        self._reading = trio.Lock()

    async def run(self, context: Context) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._on_signals)
            context.ready()
            stamps = await trio.to_thread.run_sync(_stamps, self._loaded.watched)
            while True:
                await trio.sleep(_LOOK_S)
                now = await trio.to_thread.run_sync(_stamps, self._loaded.watched)
                if now != stamps:
                    stamps = now
                    await self.reload("file")

    async def _on_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                await self.reload("signal")

    async def reload(self, why: str) -> None:
        """Read the settings and put them in force, or say why not."""
        async with self._reading:
            state, former = self._state, self._state.plan
            try:
                loaded = await trio.to_thread.run_sync(self._load)
                plan = await self._planner.plan(loaded, former)
            except ConfigError as error:
                self._keep(why, [str(problem) for problem in error.problems])
                return
            except (ValueError, NotSent, OSError) as error:  # what no rule has foreseen changes nothing either
                _log.exception("settings_unforeseen", why=why)
                self._keep(why, [f"{type(error).__name__}: {error}"])
                return
            self._loaded = loaded
            state.settings_error = ""
            state.needs_restart = read_at_start(self._first.settings, loaded.settings)
            state.use(plan)
            retire_others(former, plan)
            state.metrics.proxy_settings.labels("applied").inc()
            _log.info("settings_applied", why=why, number=plan.number, needs_restart=list(state.needs_restart))

    def _keep(self, why: str, problems: list[str]) -> None:
        """Tell that the settings in force stay, and the reasons."""
        self._state.settings_error = "\n".join(problems)
        self._state.metrics.proxy_settings.labels("refused").inc()
        _log.error("settings_kept", why=why, problems=problems)


def _stamps(paths: tuple[Path, ...]) -> Stamps:
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)
