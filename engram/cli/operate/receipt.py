"""`engram receipt`: check a receipt of the app, without the gateway."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import SHOW, Show
from engram.cli.output import Column
from engram.hotkeys import MalformedHotkey, parse_hotkey
from engram.sdk.app_receipt import ReceiptRefused, check


def receipt(
    file: Annotated[Path, Parameter(help="The file that the app saved.")],
    /,
    *,
    gateway: Annotated[str | None, Parameter(help="The gateway's address; else the one it names.")] = None,
    show: Show = SHOW,
) -> int:
    """Check that the gateway signed what a receipt says of each payment, and who signed it. Asks nobody."""
    try:
        key = None if gateway is None else parse_hotkey(gateway)
        found = check(file.read_bytes(), key)
    except MalformedHotkey as error:
        raise CommandFailed(f"--gateway: {error}") from None
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}") from None
    except ReceiptRefused as refused:
        raise CommandFailed(f"{file}: {refused}") from None
    if not show.json:
        output.say(f"Signed by the gateway {found.gateway}, for {found.buyer}")
    columns = (
        Column("payment", "payment_id"),
        Column("status", "status"),
        Column("paid", "amount_usd", output.usd),
        Column("sent back", "refunded_usd", output.usd),
        Column("payer", "payer"),
        Column("transaction", "transaction"),
    )
    output.rows(found.payments, columns, json=show.json)
    return Exit.DONE
