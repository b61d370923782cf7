"""A PostgreSQL ledger as this process uses it: where it is, and the lease that this process has there."""

import os
import socket
from collections.abc import Callable
from typing import final

import psycopg

from engram.durable import DurableError, Group
from engram.ledger.errors import LedgerUnavailable
from engram.ledger.owners import MEMORY
from engram.ledger.postgres import schema
from engram.ledger.postgres.durability import COMMITS_ARE_ON_DISK
from engram.ledger.postgres.faults import text_of
from engram.ledger.postgres.lease import TTL_S, Lease, lock_ms, owner_settings
from engram.ledger.postgres.link import Link, place_of
from engram.ledger.postgres.readers import SETTINGS, PostgresReaders
from engram.ledger.postgres.writer import PostgresWriter
from engram.ledger.sql import OWNER


@final
class PostgresServer:
    """Opens what writes and what reads. One process has one, and one lease for all its life."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "",
        address: str = "",
        folder: str = "",
        ttl_s: float = TTL_S,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        """Know where the ledger is; `name` and `address` are what others see of this process, `folder` names the data
        folder that it has locked, and `on_drain` is called when the operator wants it to end."""
        self._url = url
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._address = address
        self._folder = folder
        self._ttl_s = ttl_s
        self._on_drain = on_drain
        self._memory: dict[str, object] = {}
        self.lease: Lease | None = None

    @property
    def place(self) -> str:
        """Where it is, without the password."""
        return place_of(self._url)

    @property
    def holds(self) -> bool:
        """Whether an effect outside the ledger may begin."""
        return self.lease is not None and self.lease.holds

    def open_writer(
        self, on_fatal: Callable[[DurableError], None], on_group: Callable[[Group], None]
    ) -> PostgresWriter:
        """Connect, migrate, and take a lease at the first call; blocks. Raises LedgerUnusable and LedgerUnavailable."""
        link = self._connect_writer()
        try:
            schema.migrate(link)
            if self.lease is None:
                self.lease = Lease.register(
                    link, self._name, socket.gethostname(), self._address, self._ttl_s, self._folder
                )
                self._memory[OWNER] = self.lease.epoch
        except BaseException:
            link.close()
            raise
        return PostgresWriter(
            self._connect_writer, self.lease, link, on_fatal=on_fatal, on_group=on_group, on_drain=self._on_drain
        )

    def open_readers(self, most: int) -> PostgresReaders:
        """Return a pool of readers; it connects when it is first used."""
        return PostgresReaders(self._connect_reader, most)

    def open_inline(self) -> Link:
        """Connect and migrate, without a lease; blocks. Raises LedgerUnusable and LedgerUnavailable."""
        link = self._connect_to_write(30.0)
        try:
            schema.migrate(link)
        except BaseException:
            link.close()
            raise
        return link

    def _connect_writer(self) -> Link:
        return self._remembering(self._connect_to_write(self._ttl_s))

    def _connect_to_write(self, ttl_s: float) -> Link:
        link = Link(self._url, owner_settings(ttl_s))
        try:
            link.raw.execute(COMMITS_ARE_ON_DISK)
        except psycopg.Error as error:
            link.close()
            raise LedgerUnavailable(f"{self.place} cannot be used: {text_of(error)}") from None
        return link

    def _connect_reader(self) -> Link:
        return self._remembering(Link(self._url, {**SETTINGS, "lock_timeout": lock_ms(self._ttl_s)}))

    def _remembering(self, link: Link) -> Link:
        link.handle.info[MEMORY] = self._memory
        return link
