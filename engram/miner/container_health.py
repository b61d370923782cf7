"""The health command of a node's container: `python -m engram.miner.container_health`, exit status 0 or 1.

It asks the node on its own port, by the environment that started both. It runs every few seconds on a small share of a
processor, so it loads neither the node's code nor a client.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from engram import crash_reports, wire
from engram.api import node
from engram.api.node_model import Health
from engram.nodes import environment
from engram.nodes.launch import LaunchFileError

TIMEOUT_S: Final = 4.0
_MOST_BYTES: Final = 65_536
_LOCALLY: Final = {environment.HOST: "127.0.0.1", "::": "::1"}


def exit_status(environ: Mapping[str, str]) -> int:
    """Return 0 when the node answers that it is ready and is the one of this launch, else 1. Blocks for TIMEOUT_S."""
    try:
        launch = environment.read(environ)
        connection = http.client.HTTPConnection(_LOCALLY.get(launch.host, launch.host), launch.port, timeout=TIMEOUT_S)
        connection.request("GET", node.HEALTH.path)
        health = wire.decode(connection.getresponse().read(_MOST_BYTES), Health)
    except (LaunchFileError, OSError, http.client.HTTPException, msgspec.MsgspecError, UnicodeDecodeError):
        return 1
    return 0 if health.ready and health.launch_token == launch.launch_token else 1


if __name__ == "__main__":
    crash_reports.enable()
    sys.exit(exit_status(os.environ))
