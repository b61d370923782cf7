"""`engram akash wallet`: the key of the account that pays on Akash, in a file of mode 0600.

A secret is typed at a hidden prompt, or comes from a file or a descriptor; never from an argument, which other users
can read.
"""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.wallet.imports import SECRET, Secret
from engram.provisioning.akash import account
from engram.provisioning.akash.errors import UnusableKey

app = App(
    name="wallet",
    help="The account that pays: create or import its key, show its address.",
    help_epilogue="Example: `engram akash wallet new ~/akash.key`",
)
app.command(
    "engram.cli.akash.deployments:balance_",
    name="balance",
    help="Show what the account has; the exit code is 1 when it is below an alarm.",
    help_epilogue="Example: `engram akash wallet balance`",
)
KeyFile = Annotated[Path | None, Parameter(help="The key file; else akash.key_file.")]


class AccountShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """The account of a key file."""

    address: str
    """What is given AKT for fees and ACT for deployments; the setting akash.owner_address."""
    public_key: str
    """66 hex digits."""
    key_file: str
    mnemonic: str | None = None


@app.command(name="new", help_epilogue="Example: `engram akash wallet new ~/akash.key`")
def new_wallet(
    path: KeyFile = None,
    *,
    reveal: Annotated[
        bool, Parameter(help="Show the words too; anyone who reads them owns the account.", negative="")
    ] = False,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Create an account of its own for this gateway: 24 words in a new key file, which nobody else may read."""
    place = _place(path, sources)
    mnemonic = account.generate_mnemonic()
    signer = _written(place, mnemonic)
    if not reveal:
        sys.stderr.write(
            "the account's words were not shown (see --reveal): only the key file holds them; back it up\n"
        )
    _show(signer, place, show, mnemonic if reveal else None)


@app.command(name="import", help_epilogue="Example: `engram akash wallet import ~/akash.key --secret-file words`")
def import_wallet(
    path: KeyFile = None,
    *,
    secret: Secret = SECRET,
    address: Annotated[str | None, Parameter(help="Write nothing unless the account has this address.")] = None,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Write the key of an account that exists: its 12 or 24 words, or 64 hex digits, typed at a hidden prompt."""
    place = _place(path, sources)
    text = secret.read("the account's words, or its key as 64 hex digits (hidden): ")
    try:
        found = account.Signer(account.secret_in(text)).address
    except UnusableKey as error:
        raise CommandFailed(str(error)) from None
    if address is not None and found != address:
        raise CommandFailed(f"this is the key of {found}, not of {address}: nothing was written")
    _show(_written(place, text), place, show)


@app.command(name="address", help_epilogue="Example: `engram akash wallet address ~/akash.key`")
def show_address(path: KeyFile = None, *, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """Show the address of a key file."""
    place = _place(path, sources)
    try:
        signer = account.read_key_file(place)
    except UnusableKey as error:
        raise CommandFailed(str(error)) from None
    _show(signer, place, show)


def _place(path: Path | None, sources: Sources) -> Path:
    given = str(path or "") or sources.load().settings.akash.key_file
    if not given:
        raise CommandFailed("name a key file: as an argument, or by the setting akash.key_file", Exit.USAGE)
    return Path(given).expanduser()


def _written(path: Path, text: str) -> account.Signer:
    try:
        return account.write_key_file(path, text)
    except UnusableKey as error:
        raise CommandFailed(str(error)) from None


def _show(signer: account.Signer, path: Path, show: Show, mnemonic: str | None = None) -> None:
    shown = AccountShown(signer.address, signer.public_key.hex(), str(path), mnemonic)
    filled = {name: value for name, value in msgspec.structs.asdict(shown).items() if value is not None}
    output.record(filled, json=show.json)
