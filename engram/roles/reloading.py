"""SIGHUP: settings are read again, and those that need no restart take effect.

These are the log level, the trusted proxies, and the certificates (whose files are loaded again). Of all others the log
says that they wait for a restart. Settings that cannot be read, or go against a rule, leave everything as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Final, final

import msgspec
import structlog

import config
from config.keys import KEYS
from config.model import Settings
from engram.http.listener import Listener
from engram.telemetry import logs

AT_ONCE: Final = frozenset({"log.level", "http.trusted_proxies"})
"""Settings that take effect without a restart."""

_log = structlog.get_logger("engram")


def changed(before: Settings, after: Settings) -> list[str]:
    """Return the keys whose values differ, in the order of the settings."""
    return [key for key in KEYS if attrgetter(key)(before) != attrgetter(key)(after)]


@final
class Reloading:
    """Reads the settings of a process again and applies what can be."""

    def __init__(
        self,
        loaded: config.Loaded,
        load: Callable[[], config.Loaded],
        roles: Sequence[str],
        listeners: Callable[[], Iterable[Listener]],
        *,
        json_logs: bool,
    ) -> None:
        """Take the settings in force, what reads them again, and the listeners of the process."""
        self._settings = loaded.settings
        self._load, self._roles, self._listeners = load, roles, listeners
        self._json_logs = json_logs

    def __call__(self) -> None:
        """Read and apply; what is wrong is logged."""
        try:
            again = self._load()
            config.check(again.settings, self._roles)
        except config.ConfigError as error:
            _log.error("settings_kept", reason=str(error))
            return
        keys = changed(self._settings, again.settings)
        logs.configure(again.settings.log.level, json=self._json_logs)
        for listener in self._listeners():
            listener.trust(again.settings.http.trusted_proxies)
            listener.reload_certificates()
        waiting = [key for key in keys if key not in AT_ONCE]
        _log.info("settings_reloaded", changed=[key for key in keys if key in AT_ONCE])
        if waiting:
            _log.warning("settings_wait_for_restart", keys=waiting)
        self._settings = in_force(self._settings, again.settings)


def in_force(before: Settings, after: Settings) -> Settings:
    """Return `before` with the settings of `after` that take effect at once."""
    log = msgspec.structs.replace(before.log, level=after.log.level)
    http = msgspec.structs.replace(before.http, trusted_proxies=after.http.trusted_proxies)
    return msgspec.structs.replace(before, log=log, http=http)
