"""`engram hotkeys`: key files, and the pool of hotkeys for nodes."""

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.failures import CommandFailed
from engram.cli.operate.running import ask, done
from engram.cli.options import SHOW, SOURCES, Show, Sources
from engram.cli.output import Column, moment
from engram.cli.wallet.passwords import signing_key
from engram.control.commands import AddNodeKey, ListNodeKeys, RetireNodeKey
from engram.hotkeys import HotkeyError, Keypair, PublicKey, ss58, wallet
from engram.hotkeys.wallet_folder import read_public_file

app = App(
    name="hotkeys",
    help="Create hotkeys, and manage the pool of hotkeys for nodes.",
    help_epilogue="Example: `engram hotkeys new keys/node-1`",
)
pool = App(
    name="pool",
    help="Hotkeys for nodes; each is leased to one session at a time.",
    help_epilogue="Example: `engram hotkeys pool list`",
)
app.command(pool)


Hotkey = Annotated[str, Parameter(help="Its address, as `engram hotkeys pool list` shows it.")]


class HotkeyFile(msgspec.Struct, frozen=True):
    """The public part of a key file."""

    ss58: str
    public_key: str
    """64 hex digits."""
    path: str


@app.command(name="new", help_epilogue="Example: `engram hotkeys new keys/node-1`")
def new_hotkey(path: Annotated[Path, Parameter(help="File to write.")], *, show: Show = SHOW) -> None:
    """Create an sr25519 hotkey and write it to a new wallet file (mode 0600)."""
    keypair = Keypair.generate()
    try:
        wallet.write_hotkey_file(path, keypair)
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    _show(keypair.public_key, path, show)


@app.command(name="show", help_epilogue="Example: `engram hotkeys show keys/node-1`")
def show_hotkey(path: Annotated[Path, Parameter(help="Wallet file.")], *, show: Show = SHOW) -> None:
    """Show the public part of a wallet file: by the …pub.txt beside it if there is one, else by the file itself."""
    public = path.with_name(f"{path.name}pub.txt")
    try:
        key = read_public_file(public) if public.exists() else signing_key(path).public_key
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    _show(key, path, show)


def _show(key: PublicKey, path: Path, show: Show) -> None:
    output.record(HotkeyFile(ss58.encode(key), key.hex(), str(path)), json=show.json)


_COLUMNS = (
    Column("hotkey", "hotkey"),
    Column("source", "source"),
    Column("added", "added_at", moment),
    Column("retired", "retired_at", moment),
    Column("session", "session_id"),
    Column("file", "path"),
)


@pool.command(name="add", help_epilogue="Example: `engram hotkeys pool add keys/node-1 keys/node-2`")
def add_keys(
    files: Annotated[
        list[Path],
        Parameter(help="Wallet files (mode 0600; encrypted: miner.hotkey_password_file).", negative=""),
    ],
    *,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Add hotkeys to the pool of the running gateway."""
    for path in files:
        done(ask(sources, AddNodeKey(path=str(path.resolve()))), f"{path} is in the pool", json=show.json)


@pool.command(name="list", help_epilogue="Example: `engram hotkeys pool list`")
def list_keys(*, sources: Sources = SOURCES, show: Show = SHOW) -> None:
    """List the pool: which key is leased to which session."""
    keys = ask(sources, ListNodeKeys())
    output.rows(keys, _COLUMNS, json=show.json)


@pool.command(name="retire", help_epilogue="Example: `engram hotkeys pool retire 5F…`")
def retire_key(
    hotkey: Hotkey,
    *,
    sources: Sources = SOURCES,
    show: Show = SHOW,
) -> None:
    """Retire a hotkey from the pool; a session that leases it keeps it to its end."""
    done(ask(sources, RetireNodeKey(hotkey=hotkey)), f"{hotkey} is retired", json=show.json)
