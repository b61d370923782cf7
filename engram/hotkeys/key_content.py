"""The content of a key file: its JSON, its encryption formats, and the key that it holds.

The JSON has `publicKey`, `accountId`, `privateKey`, `secretPhrase`, `secretSeed`, `ss58Address`, `cryptoType`; files of
keys made from a URI carry neither phrase nor seed, so `privateKey` is what is read first. The oldest files are nothing
but the hex of a seed. An encrypted file starts with `$NACL` (argon2i and secretbox), in older forms with
`$ANSIBLE_VAULT` or as a Fernet token. Deciphering is left to bittensor-core: it takes 3 to 6 s of CPU.
"""

from pathlib import Path
from typing import Final

import msgspec

from engram import wire
from engram.hotkeys.bittensor_core import decipher, is_encrypted
from engram.hotkeys.errors import MalformedHotkey, WalletEncrypted, WalletFileError, WrongPassword
from engram.hotkeys.keypair import Keypair
from engram.hotkeys.ss58 import PublicKey, parse_hotkey

MAX_BYTES: Final = 65_536
_MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark that editors on Windows put before UTF-8."""


class _KeyFile(msgspec.Struct, frozen=True):
    private_key: str | None = msgspec.field(default=None, name="privateKey")
    secret_seed: str | None = msgspec.field(default=None, name="secretSeed")
    secret_phrase: str | None = msgspec.field(default=None, name="secretPhrase")
    address: str | None = msgspec.field(default=None, name="ss58Address")
    crypto_type: int = msgspec.field(default=1, name="cryptoType")

    def __repr__(self) -> str:
        return f"_KeyFile({self.address})"


class _PublicFile(msgspec.Struct, frozen=True):
    address: str | None = msgspec.field(default=None, name="ss58Address")
    public_key: str | None = msgspec.field(default=None, name="publicKey")
    account_id: str | None = msgspec.field(default=None, name="accountId")


_KEY_FILE: Final = wire.decoder(_KeyFile)
_PUBLIC_FILE: Final = wire.decoder(_PublicFile)


def unmarked(content: bytes) -> bytes:
    """Return the bytes without a byte order mark."""
    return content.removeprefix(_MARK)


def plain(path: Path, content: bytes, password: str | None) -> bytes:
    """Return the content, decrypted if it is encrypted. `path` is for error messages.

    Raises WalletEncrypted (a password is needed), WrongPassword, WalletFileError (no known form).
    """
    content = unmarked(content)
    if not is_encrypted(content):
        return content
    if password is None:
        raise WalletEncrypted(f"the key file {path} is encrypted: give its password, or an unencrypted hotkey")
    try:
        return unmarked(decipher(content, password))
    except WrongPassword:
        raise WrongPassword(f"wrong password for the key file {path}") from None
    except WalletFileError as error:
        raise WalletFileError(f"{error}: {path}") from None


def keypair(path: Path, content: bytes) -> Keypair:
    """Return the key in the plain content of a key file. `path` is for error messages.

    Raises WalletFileError: damaged, not sr25519, no private key, address and key disagree.
    """
    try:
        fields = _KEY_FILE.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _of_bare_seed(path, content)
    if fields.crypto_type != 1:
        raise WalletFileError(f"the key file {path} holds no sr25519 key (cryptoType {fields.crypto_type})")
    try:
        pair = _of_fields(fields)
    except (MalformedHotkey, ValueError):
        raise WalletFileError(f"the key file {path} holds no usable private key") from None
    if pair is None:
        raise WalletFileError(f"the key file {path} holds no private key; is it the public one (…pub.txt)?")
    if fields.address is not None and fields.address != pair.ss58:
        raise WalletFileError(f"the key file {path} is damaged: its address {fields.address} is not its key's")
    return pair


def public_key(path: Path, content: bytes) -> PublicKey:
    """Return the key that the content of a `…pub.txt` names. `path` is for error messages. Raises WalletFileError."""
    try:
        fields = _PUBLIC_FILE.decode(unmarked(content))
        return parse_hotkey(fields.address or fields.public_key or fields.account_id or "")
    except (msgspec.DecodeError, UnicodeDecodeError, MalformedHotkey):
        raise WalletFileError(f"the key file {path} names no public key") from None


def content_of(pair: Keypair) -> bytes:
    """Return the plain content of a key file that holds this key."""
    public_hex = "0x" + pair.public_key.hex()
    return msgspec.json.encode(
        {
            "accountId": public_hex,
            "publicKey": public_hex,
            "privateKey": "0x" + pair.private_key().hex(),
            "ss58Address": pair.ss58,
            "cryptoType": 1,
        }
    )


def public_content_of(key: PublicKey, address: str) -> bytes:
    """Return the content of the `…pub.txt` of this key."""
    public = "0x" + key.hex()
    return msgspec.json.encode({"accountId": public, "publicKey": public, "ss58Address": address, "cryptoType": 1})


def _of_fields(fields: _KeyFile) -> Keypair | None:
    if fields.private_key:
        return Keypair(_unhex(fields.private_key))
    if fields.secret_seed:
        return Keypair.from_seed(_unhex(fields.secret_seed))
    if fields.secret_phrase:
        return Keypair.from_uri(fields.secret_phrase)
    return None


def _of_bare_seed(path: Path, content: bytes) -> Keypair:
    try:
        return Keypair.from_seed(_unhex(content.decode("ascii").strip()))
    except (MalformedHotkey, ValueError):
        raise WalletFileError(f"the key file {path} is damaged: neither JSON nor a seed") from None


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
