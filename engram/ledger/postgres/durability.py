"""What of a server's settings an acknowledged commit rests on."""

from typing import Final

from sqlalchemy import Connection

COMMITS_ARE_ON_DISK: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
)
"""For each writing connection: a COMMIT is answered once it is on disk, and at the synchronous standbys if there are
some. What is configured to wait for more, or for their memory alone, stays."""
_NEEDED: Final = {
    "fsync": "a crash of the machine may destroy the ledger",
    "full_page_writes": "a loss of power may destroy the ledger",
}
_QUERY: Final = (
    "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
    "current_setting('synchronous_standby_names'), (SELECT count(*) FROM pg_stat_replication)"
)


def weaknesses(connection: Connection) -> list[str]:
    """Return what may lose acknowledged commits at the server, and what to set."""
    *settings, names, standbys = connection.exec_driver_sql(_QUERY).one()
    found = [
        f"{name} is off: {text}; set it to on"
        for (name, text), value in zip(_NEEDED.items(), settings, strict=True)
        if value == "off"
    ]
    if standbys and not names:
        found.append(
            "it has a standby and no synchronous_standby_names: what was acknowledged last is lost where it is promoted"
        )
    return found
