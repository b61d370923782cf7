"""The yardstick of a restart: a bare process that opens the same ledger, checks it, and reads the rows of what runs.

`python -m bench.support.bare_restart LEDGER READY_FD`. It imports nothing of ours and no framework.
"""

import os
import sqlite3
import sys

TABLES = ("sessions", "nodes", "node_keys")


def main(ledger: str, ready_fd: int) -> None:
    database = sqlite3.connect(ledger)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA quick_check").fetchone()
    live = {table: [dict(row) for row in database.execute(f"SELECT * FROM {table}")] for table in TABLES}
    os.write(ready_fd, b"%d\n" % len(live["sessions"]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
