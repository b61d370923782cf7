"""`engram wallet check` and `engram wallet export`: check a wallet's files, export a key to polkadot-js."""

import dataclasses
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engram.cli import output
from engram.cli.chain.common import WALLET, WalletOptions, coldkey_of, hotkey_of
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, Show
from engram.cli.output import Column
from engram.cli.wallet.imports import As, keystore_password
from engram.cli.wallet.passwords import typed
from engram.hotkeys import HotkeyError, key_files
from engram.hotkeys.passwords import Role
from engram.hotkeys.wallet_check import check

NO_TERMINAL = "--open prompts on a terminal, and there is none: give the passwords by file, descriptor or variable"
_COLUMNS = (
    Column("key", "key"),
    Column("form", "form"),
    Column("opened", "opened"),
    Column("address", "address"),
    Column("public key", "public_key"),
)


def check_wallet(
    name: Annotated[str | None, Parameter(help="The wallet, in place of --wallet.name.")] = None,
    *,
    open_encrypted: Annotated[
        bool, Parameter(name="--open", help="Prompt for the passwords of encrypted keys.", negative="")
    ] = False,
    wallet: WalletOptions = WALLET,
    show: Show = SHOW,
) -> int:
    """Check each key of a wallet: its files, who may read them, that secret and public file are of one key.

    An encrypted key is opened with the password that is given for it; --open asks for one. The exit code is 1 when
    something is wrong.
    """
    if name is not None:
        wallet = dataclasses.replace(wallet, name=name)

    def password_of(path: Path, role: Role) -> str | None:
        found = wallet.given_password(role, path)
        if found is None and open_encrypted:
            return typed(f"password of the key file {path}: ", NO_TERMINAL)
        return found

    folder = wallet.folder.folder
    found = check(folder, password_of)
    if not found:
        raise CommandFailed(f"there is no wallet in {folder}")
    output.rows(found, _COLUMNS, json=show.json)
    for problem in (f"{key.key}: {problem}" for key in found for problem in key.problems):
        output.complain(problem)
    return Exit.FAILED if any(key.problems for key in found) else Exit.DONE


def export(
    to: Annotated[Path, Parameter(help="File to write; it must not exist yet.")],
    *,
    role: As,
    keystore_password_file: Annotated[Path | None, Parameter(help="File of mode 0600 with its password.")] = None,
    keystore_password_fd: Annotated[
        int | None, Parameter(converter=whole, help="Descriptor whose next line is its password.")
    ] = None,
    wallet: WalletOptions = WALLET,
) -> None:
    """Write a key as a keystore (JSON, encrypted) that polkadot-js imports; never over an existing file."""
    from engram.hotkeys import polkadot_keystore

    pair = coldkey_of(wallet) if role == "coldkey" else hotkey_of(wallet)
    question = f"password for the keystore {to}: "
    password = keystore_password(keystore_password_file, keystore_password_fd, question)
    if keystore_password_file is None and keystore_password_fd is None:
        if not password:
            raise CommandFailed("an empty password protects nothing")
        if keystore_password(None, None, "again: ") != password:
            raise CommandFailed("the passwords differ")
    try:
        key_files.create_other(
            to.expanduser(),
            polkadot_keystore.write(pair, password, wallet.name),
            lambda written: polkadot_keystore.read(written, password).public_key == pair.public_key,
        )
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    output.say(f"{to} holds {pair.ss58}")
