"""What gateways that share a ledger must have in common: each notes its own, and logs where another's differs."""

from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec
import structlog
import trio
from sqlalchemy import Connection, delete, select

from actors import Context
from engram import wire
from engram.ledger import facts, owners
from engram.ledger.errors import LedgerError
from engram.ledger.port import Ledger
from engram.ledger.tables import meta

LOOK_S: Final = 60.0
_NOTED: Final = "common_settings:"
"""Before the epoch of the gateway that noted them."""

_log = structlog.get_logger("engram.ledger")


class Difference(msgspec.Struct, frozen=True):
    """A setting that another gateway of the ledger has another value of."""

    setting: str
    here: str
    there: str
    gateway: str


def compare(connection: Connection, here: Mapping[str, str]) -> list[Difference]:
    """Note the settings of this process and return where those of gateways with a lease differ, theirs by name.

    What gateways noted that are gone is forgotten. A process that has the ledger for itself notes nothing.
    """
    me = owners.me(connection)
    if me == owners.ALONE:
        return []
    facts.put(connection, f"{_NOTED}{me}", msgspec.json.encode(dict(here)).decode())
    live = connection.exec_driver_sql("SELECT epoch, name FROM gateways WHERE ended_at IS NULL").all()
    names = {int(epoch): str(name) for epoch, name in live}
    found: list[Difference] = []
    noted = select(meta.c.key, meta.c.value).where(meta.c.key.startswith(_NOTED, autoescape=True)).order_by(meta.c.key)
    for key, text in connection.execute(noted).all():
        epoch = int(key.removeprefix(_NOTED))
        if epoch not in names:
            connection.execute(delete(meta).where(meta.c.key == key))
            continue
        there = wire.decode(text, dict[str, str])
        found += [
            Difference(setting, value, there[setting], names[epoch])
            for setting, value in here.items()
            if epoch != me and there.get(setting, value) != value
        ]
    return found


async def tell_differences(ledger: Ledger, here: Mapping[str, str], context: Context) -> None:
    """Log each difference once, for as long as it lasts; a job, endless."""
    context.ready()
    logged: set[Difference] = set()
    while True:
        try:
            found = set(await ledger.write(partial(compare, here=here)))
        except LedgerError as error:
            _log.warning("gateways_not_compared", reason=str(error))
        else:
            for each in sorted(found - logged, key=lambda one: (one.gateway, one.setting)):
                _log.error("gateways_differ", **msgspec.structs.asdict(each))
            logged = found
        await trio.sleep(LOOK_S)
