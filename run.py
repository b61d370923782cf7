"""The entry point: runs the roles named on the command line in one process.

    python run.py ROLE [ROLE …] [--profile local|testnet|mainnet] [--port N] …

Roles named together share one process, one ledger and one loop; a node (`miner --config launch.json`) runs alone. Each
role is a module of engram/roles, with its whole supervision tree.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import config
from engram import cli, crash_reports
from engram.roles import shared
from engram.roles.process import EXIT_CANNOT_START

ROLES: Final = {
    "facilitator": "engram.roles.facilitator",
    "gateway": "engram.roles.gateway",
    "miner": "engram.roles.miner",
    "validator": "engram.roles.validator",
    "proxy": "engram.roles.proxy",
    "xeris": "engram.roles.xeris",
    "worker": "engram.roles.worker",
}
"""In the order in which roles of one process start."""


def main(
    roles: Sequence[str],
    loaded: config.Loaded,
    *,
    ready_fd: int | None = None,
    launch: Path | None = None,
    load: Callable[[], config.Loaded] | None = None,
    worker: int | None = None,
) -> int:
    """Run the roles until SIGTERM or Ctrl-C; return the exit status (0 ended as it should, 1 failed, 2 cannot start).

    `ready_fd` gets one JSON line with the URLs once everything serves. `launch` is the launch file of a node. `load`
    reads the settings again, at SIGHUP. `worker` is the number of a gateway among those that one parent started.
    """
    if "miner" in roles:
        if len(roles) > 1 or launch is None:
            print("a miner runs alone, from its launch file: miner --config launch.json", file=sys.stderr)
            return EXIT_CANNOT_START
        return int(_module("miner").main(launch, loaded.settings.miner, loaded.settings.log.level))
    openers = [_module(role).open_role for role in ROLES if role in roles]
    return shared.main(roles, openers, loaded, ready_fd, load, worker)


def _module(role: str) -> Any:  # its role prints the reason
    return importlib.import_module(ROLES[role])


if __name__ == "__main__":
    crash_reports.enable()
    sys.exit(cli.main(["run", *sys.argv[1:]]))
