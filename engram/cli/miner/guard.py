"""`engram miner guard`: keeps an export of a session's memory, and restores it when the node begins again empty."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.miner.target import answered
from engram.cli.numbers import whole
from engram.cli.wallet.passwords import signing_key
from engram.hotkeys import HotkeyError
from engram.sdk.errors import NotReached, OutcomeUnknown

if TYPE_CHECKING:
    from engram.sdk.guarding import Guard
    from engram.sdk.restoring import RestoredMemory

LOOK_S: Final = 30.0
"""Seconds between two looks at the session."""


def guard(
    file: Annotated[Path, Parameter(help="Where the export is kept (mode 0600); the one before is FILE.before.")],
    *,
    gateway: Annotated[str, Parameter(help="URL of the gateway that sold the session.")],
    session: Annotated[str, Parameter(help="The session's id.")],
    key: Annotated[Path, Parameter(help="The hotkey file of the session's controller.")],
    every: Annotated[int, Parameter(converter=whole, help="Seconds between exports, 60 or more.")] = 600,
    once: Annotated[bool, Parameter(help="Do what is due now, and end: for cron.", negative="")] = False,
) -> int:
    """Export a session's memory to FILE again and again, and restore it when the node had to begin elsewhere, empty.

    The gateway keeps no export and can make none: this runs where the controller's key is. What was stored since the
    last export is lost with a node; the session says `memory: lost` until everything in FILE is stored again, then
    `memory: restored`. Ends with the session, or when the node refuses a part of FILE.
    """
    from engram.sdk.gateway import GatewayClient
    from engram.sdk.guarding import Guard

    if every < 60:
        raise CommandFailed(f"--every must be 60 or more, not {every}", Exit.USAGE)
    try:
        keypair = signing_key(key)
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    with GatewayClient(gateway, keypair) as client, answered():
        guarding = Guard(client, keypair, session, file, every_s=float(every))
        while True:
            try:
                ended = look(guarding, file)
            except (NotReached, OutcomeUnknown) as error:
                if once:
                    raise
                output.complain(f"{error}; looking again in {LOOK_S:g} s")
                ended = None
            except OSError as error:
                raise CommandFailed(f"{file}: {error.strerror}") from None
            if ended is not None or once:
                return ended or Exit.DONE
            time.sleep(LOOK_S)


def look(guarding: "Guard", file: Path) -> int | None:
    """Do what is due, say so, and return how the command ends; None: it goes on. Raises CommandFailed, SdkError."""
    from engram.sdk.guarding import GuardStep

    nothing_kept = guarding.kept() is None
    session, step, restored = guarding.step()
    if nothing_kept and step is GuardStep.EXPORT and session.memory == "lost":
        output.complain(f"the memory was lost, and there was no {file} to restore it from: it is kept from now on")
    match step:
        case GuardStep.END:
            output.complain(f"the session is {session.status}; what its node held is in {file}")
            return Exit.DONE
        case GuardStep.EXPORT:
            output.complain(f"{file} has the node's memory as of now")
        case GuardStep.RESTORE if restored is not None:
            _tell(restored, file)
        case _:
            pass
    return None


def _tell(restored: "RestoredMemory", file: Path) -> None:
    counts = f"{restored.records} records, {restored.conversations} conversations, {restored.key_shares} key shares"
    if restored.attestations:
        output.complain(f"{restored.attestations} attestations have to be signed again by whoever made them")
    if restored.overtaken:
        output.complain(f"{restored.overtaken} versions of facts were left out: the node knows newer ones by now")
    if restored.is_whole:
        output.complain(f"the node began again empty, and holds what is in {file} once more: {counts}")
        return
    for reason in restored.failures:
        output.complain(reason)
    raise CommandFailed(
        f"{counts} are there again, {restored.failed} documents of {file} are not: the session stays `memory: lost`"
    )
