"""Makes plans from settings: servers that stay keep their connections and health; those that are gone drain."""

from functools import partial
from typing import Final, final

import trio

from config.errors import ConfigError, Problem
from engram.hotkeys import Keypair, ReplayStore
from engram.proxy.backends.group import Group, tls_of
from engram.proxy.plan import Plan, plan_of
from engram.proxy.settings import Loaded, ProxySettings
from engram.proxy.state import State

_AT_START: Final = (
    ("auth", ("chain_endpoint", "netuid")),
    ("answers", ("sign", "hotkey_file")),
    ("bodies", ("spool_dir",)),
    ("limits", ("callers",)),
    (
        "server",
        (
            "host",
            "port",
            "tls_certificate",
            "tls_key",
            "max_connections",
            "max_connections_per_address",
            "max_header_bytes",
            "max_headers",
            "header_timeout_s",
            "body_timeout_s",
            "idle_timeout_s",
            "send_timeout_s",
            "drain_s",
            "log_level",
            "log_format",
        ),
    ),
)
"""Settings that are only read at a start."""


def read_at_start(old: ProxySettings, new: ProxySettings) -> tuple[str, ...]:
    """Return the settings that differ and need a restart."""
    return tuple(
        f"{section}.{key}"
        for section, keys in _AT_START
        for key in keys
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    )


@final
class Planner:
    """Makes the plans of one process."""

    def __init__(self, state: State, replays: ReplayStore, signer: Keypair | None) -> None:
        self._state = state
        self._replays = replays
        self._signer = signer
        self._started_ms = state.now_ms()
        self._number = 0

    async def plan(self, loaded: Loaded, former: Plan | None) -> Plan:
        """Return the plan for these settings. Raises ConfigError for files that they name and that do not load."""
        groups, problems = await self._groups(loaded, {} if former is None else former.groups)
        quota = loaded.settings.bodies.spool_bytes
        changed = former is not None and former.settings.bodies.spool_bytes != quota
        if changed and (why := await trio.to_thread.run_sync(self._state.spool.problem_with, quota)) is not None:
            key = "bodies.spool_bytes"
            problems.append(Problem(loaded.origins.get(key, "default"), key, why))
        if problems:
            raise ConfigError(problems)
        self._number += 1
        return plan_of(
            loaded,
            groups,
            started_ms=self._started_ms,
            replays=self._replays,
            admit=self._state.admit,
            signer=self._signer if loaded.settings.answers.sign else None,
            number=self._number,
        )

    async def _groups(self, loaded: Loaded, former: dict[str, Group]) -> tuple[dict[str, Group], list[Problem]]:
        groups: dict[str, Group] = {}
        problems: list[Problem] = []
        for name, settings in loaded.settings.groups().items():
            known = former.get(name)
            if known is not None and known.settings == settings:
                groups[name] = known
                continue
            try:
                tls = await trio.to_thread.run_sync(partial(tls_of, settings))
            except (OSError, ValueError) as error:
                key = f"backends.{name}"
                problems.append(Problem(loaded.origins.get(key, "default"), key, f"ca_file does not load: {error}"))
                continue
            groups[name] = Group(name, settings, self._state.clock.monotonic, tls, known)
        return groups, problems


def retire_others(former: Plan, plan: Plan) -> None:
    """Let the groups of the new plan succeed those of their names, and what it does not name drain."""
    for name, group in former.groups.items():
        successor = plan.groups.get(name)
        if successor is None:
            group.retire()
        elif successor is not group:
            successor.succeed(group)
