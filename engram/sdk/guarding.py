"""Keeps an export of a session's memory in a file, and restores it when the node begins again empty.

The file's first line says of which session it is, after which loss it was made, and when. It is replaced whole: the one
before stays beside it, as `FILE.before`. A file is never replaced by an export during which the node was exchanged, so
an empty node cannot take the place of what was kept.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Final, final

import msgspec

from engram import wire
from engram.clock import Clock, SystemClock
from engram.hotkeys import Keypair, parse_hotkey
from engram.sdk.errors import SdkError
from engram.sdk.export_rules import MAX_LINE_BYTES
from engram.sdk.gateway import GatewayClient
from engram.sdk.model import Session
from engram.sdk.node import NodeClient
from engram.sdk.restoring import RestoredMemory, read_export, restore_session

HEADER: Final = "guarded"


class KeptExport(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the file."""

    kind: str = HEADER
    session_id: str
    emptied_at: float | None
    """The loss after which the export was made; None: before any."""
    exported_at: float


class GuardStep(StrEnum):
    """What there is to do now."""

    EXPORT = "export"
    RESTORE = "restore"
    WAIT = "wait"
    END = "end"


class ForeignExport(SdkError):
    """The file is of another session, or is no guarded export: name another file."""


def next_step(session: Session, kept: KeptExport | None, now: float, every_s: float) -> GuardStep:
    """Return what is to be done for a session.

    What was lost before the export was made is not in it: such a loss is not restored by it.
    """
    if session.ended:
        return GuardStep.END
    if session.status != "active" or session.node_endpoint is None:
        return GuardStep.WAIT
    is_lost = session.emptied_at is not None and session.restored_at is None
    if kept is not None and is_lost and kept.emptied_at != session.emptied_at:
        return GuardStep.RESTORE
    if kept is None or kept.emptied_at != session.emptied_at or now - kept.exported_at >= every_s:
        return GuardStep.EXPORT
    return GuardStep.WAIT


@final
class Guard:
    """Guards one session's memory by one file."""

    def __init__(
        self,
        gateway: GatewayClient,
        keypair: Keypair,
        session_id: str,
        file: Path,
        *,
        every_s: float = 600.0,
        clock: Clock | None = None,
    ) -> None:
        self._gateway = gateway
        self._keypair = keypair
        self._id = session_id
        self._file = file
        self._every_s = every_s
        self._clock = clock or SystemClock()

    def kept(self) -> KeptExport | None:
        """Return what the file is; None where there is none. Raises ForeignExport, OSError."""
        try:
            with open(self._file, "rb") as file:
                line = file.readline(MAX_LINE_BYTES)
        except FileNotFoundError:
            return None
        try:
            kept = wire.decode(line, KeptExport)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ForeignExport(f"{self._file} was not written by `engram miner guard`: {error}") from None
        if (kept.kind, kept.session_id) != (HEADER, self._id):
            raise ForeignExport(f"{self._file} is of session {kept.session_id}, not of {self._id}: name another file")
        return kept

    def step(self) -> tuple[Session, GuardStep, RestoredMemory | None]:
        """Do what is due now; return the session as it was, what was done, and what was restored.

        Raises what clients raise, OSError, ForeignExport.
        """
        session = self._gateway.get(self._id)
        step = next_step(session, self.kept(), self._clock.now(), self._every_s)
        match step:
            case GuardStep.EXPORT:
                return session, (step if self._export(session) else GuardStep.WAIT), None
            case GuardStep.RESTORE:
                with open(self._file, "rb") as file:
                    return session, step, restore_session(self._gateway, self._keypair, self._id, read_export(file))
            case _:
                return session, step, None

    def _export(self, session: Session) -> bool:
        """Replace the file; False when the node was exchanged meanwhile, and the file stays as it was."""
        partial = self._file.with_name(f".{self._file.name}.partial")
        head = KeptExport(session_id=self._id, emptied_at=session.emptied_at, exported_at=self._clock.now())
        node_key = parse_hotkey(session.node_hotkey or "")
        with (
            open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,
            NodeClient(session.node_endpoint or "", self._keypair, session_id=self._id) as node,
        ):
            file.write(msgspec.json.encode(head) + b"\n")
            file.writelines(msgspec.json.encode(document.fields) + b"\n" for document in node.export(node=node_key))
            file.flush()
            os.fsync(file.fileno())
        after = self._gateway.get(self._id)
        if (after.status, after.emptied_at) != ("active", session.emptied_at):
            partial.unlink()
            return False
        if self._file.exists():
            before = self._file.with_name(f"{self._file.name}.before")
            before.unlink(missing_ok=True)
            os.link(self._file, before)
        os.replace(partial, self._file)
        return True
