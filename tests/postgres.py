"""A real PostgreSQL for tests: one server a run, fsync on, a schema of its own for each ledger."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
needs_postgresql = [
    pytest.mark.skipif(not _PROGRAMS, reason="no PostgreSQL here: apt-get install postgresql"),
    pytest.mark.heavy,
    pytest.mark.external,
    pytest.mark.xdist_group("postgresql"),
]
_NUMBERS = itertools.count()


class Cluster:
    """One server in a folder of its own. As root it runs as the user postgres: it refuses to run as root."""

    def __init__(self, folder: Path, settings: str = "", primary: "Cluster | None" = None) -> None:
        """Make it, as a standby where there is a `primary`, and start it."""
        self.folder = folder
        self.port = _free_port()
        self._settings = settings
        self._bin = _PROGRAMS[0]
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        if primary is None:
            self._run("initdb", "-D", "data", "-A", "trust", "-U", "engram", "-E", "UTF8", "--locale=C", "--no-sync")
        else:
            self._run("pg_basebackup", "-D", "data", "-R", "-d", primary.base, "-c", "fast", "--no-sync")
        self.start()

    def start(self, wait: bool = True) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 {self._settings}"
        self._run("pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w" if wait else "-W", "start")

    def stop(self, how: str = "fast") -> None:
        self._run("pg_ctl", "-D", "data", "-m", how, "-w", "stop")

    def promote(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "promote")

    @property
    def base(self) -> str:
        return f"postgresql://engram@127.0.0.1:{self.port}/postgres"

    def new_ledger(self) -> str:
        """The address of an empty ledger."""
        schema = f"ledger_{os.getpid()}_{next(_NUMBERS)}"
        self.run(f"CREATE SCHEMA {schema}")
        return f"{self.base}?options=-csearch_path%3D{schema}"

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.base, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        assert done.returncode == 0, done.stdout.decode()


@contextlib.contextmanager
def cluster(settings: str = "", primary: Cluster | None = None) -> Iterator[Cluster]:
    """A server that is gone when the block ends. Its folder is not below one of root's alone."""
    with tempfile.TemporaryDirectory(prefix="engram-pg-") as name:
        Path(name).chmod(0o755)
        server = Cluster(Path(name), settings, primary)
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):
                server.stop("immediate")


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
