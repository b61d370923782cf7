"""A real node that speaks version 1: it says nothing of a version, introduces itself to no one, takes no certificate.

`python -m tests.fakes.older_node --config FILE`, as a gateway of before certificates started its nodes.
"""

import sys
from pathlib import Path
from typing import Any

from config.model import MinerSettings
from engram.api.node_model import Health
from engram.miner.errors import Refused
from engram.miner.handlers import health as health_handlers
from engram.miner.handlers import identity
from engram.roles.miner import main

_health = health_handlers.health


class OlderHealth(Health, frozen=True, omit_defaults=True):
    """Without what has its default: version 1 had no field for it."""


async def health(*of: Any) -> Health:
    now = await _health(*of)
    told = {name: getattr(now, name) for name in now.__struct_fields__ if name != "protocol"}
    return OlderHealth(**told)


async def unknown(*_: Any) -> Any:
    raise Refused(404, "not_found", "There is nothing here.")


if __name__ == "__main__":
    vars(health_handlers).update(health=health)
    vars(identity).update(introduce=unknown, certify=unknown)
    sys.exit(main(Path(sys.argv[2]), MinerSettings()))
