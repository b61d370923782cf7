"""Passwords of key files: from a hidden prompt, a file, a descriptor or the environment."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from engram.cli.chain.common import WalletOptions
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.hotkeys import HotkeyError, Keypair, WalletEncrypted, wallet
from engram.hotkeys.passwords import PASSWORD_VARIABLE, VARIABLES, Role, at_terminal, given, password_for


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Password:
    """The source of a key file's password."""

    password_file: Annotated[Path | None, Parameter(help="File of mode 0600 with the password.")] = None
    password_fd: Annotated[
        int | None, Parameter(converter=whole, help="Open file descriptor whose next line is the password.")
    ] = None

    def of(self, path: Path) -> str:
        """Return the password of the key file, prompting for it. Raises CommandFailed."""
        if self.password_file is not None and self.password_fd is not None:
            raise CommandFailed("give --password-file or --password-fd, not both", Exit.USAGE)
        file = "" if self.password_file is None else str(self.password_file.expanduser())
        try:
            found = given(path, file, "--password-file", os.environ, role_of(path), self.password_fd)
        except HotkeyError as error:
            raise CommandFailed(str(error)) from None
        return found or _typed(f"password of the key file {path}: ", role_of(path), "--password-file")


PASSWORD: Final = Password()


def role_of(path: Path) -> Role:
    """Return whether a file holds a coldkey or a hotkey, by its path in a wallet."""
    return "coldkey" if path.name == "coldkey" else "hotkey"


def new_password(wallet: WalletOptions, role: Role) -> str:
    """Return the password for a new key file; a prompt asks for it twice. Raises CommandFailed."""
    if os.environ.get(PASSWORD_VARIABLE) == "":
        raise CommandFailed(f"{PASSWORD_VARIABLE} is empty, and an empty password protects nothing")
    found = wallet.given_password(role)
    if found is not None:
        return found
    question = f"password for the new {role} file: "
    first = _typed(question, role, f"--{role}-password-file")
    if not first:
        raise CommandFailed("an empty password protects nothing; --plain writes the key unencrypted")
    if _typed("again: ", role, "") != first:
        raise CommandFailed("the passwords differ")
    return first


def signing_key(path: Path) -> Keypair:
    """Return the key in a file, prompting for its password when it is encrypted. Raises HotkeyError."""
    role = role_of(path)
    try:
        password = password_for(path, "", "", os.environ, at_terminal(), role=role)
    except WalletEncrypted:
        raise WalletEncrypted(
            f"the key file {path} is encrypted: set {VARIABLES[role]}, or call the command at a terminal"
        ) from None
    return wallet.read_hotkey_file(path, password)


def typed(question: str, otherwise: str) -> str:
    """Return what is typed at a hidden prompt. Raises CommandFailed with `otherwise` without a terminal."""
    ask = at_terminal()
    if ask is None:
        raise CommandFailed(otherwise)
    return ask(question)


def _typed(question: str, role: Role, setting: str) -> str:
    return typed(
        question,
        f"there is no terminal to ask for a password; give it by {setting}, or in {VARIABLES[role]} or "
        f"{PASSWORD_VARIABLE}",
    )
