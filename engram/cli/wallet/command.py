"""`engram wallet`: Bittensor wallets as btcli lays them out. Secrets are shown with --reveal only."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.chain.common import WALLET, WalletOptions, hotkey_of, public_coldkey_of, public_hotkey_of
from engram.cli.failures import CommandFailed, Exit
from engram.cli.options import SHOW, Show
from engram.cli.wallet.passwords import PASSWORD, Password, new_password
from engram.hotkeys import HotkeyError, MalformedHotkey, PublicKey, parse_hotkey, ss58, verify, wallet_folder
from engram.hotkeys.bittensor_core import new_mnemonic
from engram.hotkeys.scheme import SIGNATURE

app = App(
    name="wallet",
    help="Bittensor wallets: a coldkey that pays, and hotkeys that sign.",
    help_epilogue="Example: `engram wallet show --wallet.name W --wallet.hotkey H`",
)
app.command(
    "engram.cli.wallet.imports:app",
    name="import",
    help="Import a key into a wallet: words, a seed, a keystore of polkadot-js, or a public key.",
)
app.command(
    "engram.cli.wallet.check:check_wallet",
    name="check",
    help="Check each key of a wallet: its files, who may read them, that secret and public file are of one key.",
    help_epilogue="Example: `engram wallet check W --open`",
)
app.command(
    "engram.cli.wallet.check:export",
    name="export",
    help="Write a key as a keystore (JSON, encrypted) that polkadot-js imports; never over an existing file.",
    help_epilogue="Example: `engram wallet export key.json --as hotkey --wallet.name W --wallet.hotkey H`",
)
Reveal = Annotated[bool, Parameter(help="Show the secret too; anyone who reads it owns the key.", negative="")]


class WalletShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A wallet as it is shown."""

    name: str
    hotkey_name: str
    coldkey: str | None
    hotkey: str
    hotkey_public_key: str
    """64 hex digits, the form of `controller_public_key` in a launch file."""
    hotkey_file: str
    coldkey_public_key: str | None = None
    hotkey_mnemonic: str | None = None
    coldkey_mnemonic: str | None = None
    hotkey_private_key: str | None = None


class Signature(msgspec.Struct, frozen=True):
    """A signature and its signer."""

    hotkey: str
    signature: str
    """128 hex digits."""


@app.command(name="new", help_epilogue="Example: `engram wallet new --wallet.name W --wallet.hotkey H --reveal`")
def new_wallet(
    *,
    plain: Annotated[bool, Parameter(help="Do not encrypt the coldkey.", negative="")] = False,
    encrypt_hotkey: Annotated[
        bool, Parameter(help="Encrypt the hotkey too; signing then needs the password.", negative="")
    ] = False,
    reveal: Reveal = False,
    wallet: WalletOptions = WALLET,
    show: Show = SHOW,
) -> None:
    """Create a wallet: an encrypted coldkey (unless it exists) and a hotkey that must not exist yet."""
    folder = wallet.folder
    mnemonics = {"coldkey": new_mnemonic(), "hotkey": new_mnemonic()}
    made_coldkey = not folder.coldkey_path.exists() and not folder.coldkey_public_path.exists()
    try:
        for path in (folder.hotkey_path, folder.hotkey_public_path):
            if path.exists():
                raise CommandFailed(f"{path} exists already; choose another name")
        coldkey_password = new_password(wallet, "coldkey") if made_coldkey and not plain else None
        hotkey_password = new_password(wallet, "hotkey") if encrypt_hotkey else None
        if made_coldkey:
            coldkey = wallet_folder.write_new(folder.coldkey_path, mnemonics["coldkey"], coldkey_password)
            wallet_folder.write_public(folder.coldkey_public_path, coldkey)
        keypair = wallet_folder.write_new(folder.hotkey_path, mnemonics["hotkey"], hotkey_password)
        wallet_folder.write_public(folder.hotkey_public_path, keypair)
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    shown = _shown(wallet, keypair.public_key)
    if reveal:
        shown = msgspec.structs.replace(
            shown,
            hotkey_mnemonic=mnemonics["hotkey"],
            coldkey_mnemonic=mnemonics["coldkey"] if made_coldkey else None,
        )
    else:
        sys.stderr.write("the keys' words were not shown (see --reveal): only the key files hold them; back those up\n")
    output.record(_filled(shown), json=show.json)


@app.command(name="show", help_epilogue="Example: `engram wallet show --wallet.name W --wallet.hotkey H`")
def show_wallet(*, reveal: Reveal = False, wallet: WalletOptions = WALLET, show: Show = SHOW) -> None:
    """Show the addresses of a wallet."""
    if reveal:
        keypair = hotkey_of(wallet)
        shown = _shown(wallet, keypair.public_key)
        shown = msgspec.structs.replace(shown, hotkey_private_key="0x" + keypair.private_key().hex())
    else:
        shown = _shown(wallet, public_hotkey_of(wallet))
    output.record(_filled(shown), json=show.json)


@app.command(name="sign", help_epilogue="Example: `engram wallet sign 'a message' --wallet.name W --wallet.hotkey H`")
def sign(
    message: Annotated[str, Parameter(help="The text.")], *, wallet: WalletOptions = WALLET, show: Show = SHOW
) -> None:
    """Sign a text with the hotkey."""
    keypair = hotkey_of(wallet)
    output.record(Signature(keypair.ss58, keypair.sign(message.encode()).hex()), json=show.json)


@app.command(name="verify", help_epilogue="Example: `engram wallet verify 'a message' --hotkey 5F… --signature 0x…`")
def verify_signature(
    message: Annotated[str, Parameter(help="The text that was signed.")],
    *,
    hotkey: Annotated[str, Parameter(help="Address, or 64 hex digits of the public key.")],
    signature: Annotated[str, Parameter(help="128 hex digits.")],
) -> int:
    """Verify a hotkey's signature over a text; the exit code is 1 when it is invalid."""
    try:
        public_key = parse_hotkey(hotkey)
    except MalformedHotkey as error:
        raise CommandFailed(f"--hotkey: {error}", Exit.USAGE) from None
    written = SIGNATURE.match(signature)
    if written is None:
        raise CommandFailed(f"--signature: not 128 hex digits, but {len(signature)} characters", Exit.USAGE)
    valid = verify(public_key, message.encode(), bytes.fromhex(written.group(1)))
    output.say("valid" if valid else "not valid")
    return Exit.DONE if valid else Exit.FAILED


@app.command(name="convert", help_epilogue="Example: `engram wallet convert ~/.bittensor/wallets/W/coldkey`")
def convert(path: Annotated[Path, Parameter(help="The key file.")], *, password: Password = PASSWORD) -> None:
    """Encrypt a key file of an older form (Ansible vault, Fernet) in the current one, with the same password.

    The file must hold the key that it names, and that its pub.txt names. The new file is read back before it takes the
    place of the old one, which is kept beside it.
    """
    path = path.expanduser()
    if not path.exists():
        raise CommandFailed(f"there is no key file {path}")
    try:
        kept = wallet_folder.convert(path, password.of(path))
    except HotkeyError as error:
        raise CommandFailed(str(error)) from None
    if kept is None:
        output.say(f"{path} needs no conversion")
    else:
        output.say(f"{path} is encrypted in the current form; the old file is kept as {kept}")


def _shown(wallet: WalletOptions, hotkey: PublicKey) -> WalletShown:
    coldkey = public_coldkey_of(wallet)
    folder = wallet.folder
    return WalletShown(
        name=folder.name,
        hotkey_name=folder.hotkey_name,
        coldkey=None if coldkey is None else ss58.encode(coldkey),
        hotkey=ss58.encode(hotkey),
        hotkey_public_key=hotkey.hex(),
        hotkey_file=str(folder.hotkey_path),
        coldkey_public_key=None if coldkey is None else coldkey.hex(),
    )


def _filled(shown: WalletShown) -> dict[str, object]:
    return {name: value for name, value in msgspec.structs.asdict(shown).items() if value is not None}
