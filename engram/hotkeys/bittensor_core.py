"""What only bittensor-core knows: mnemonics, secret URIs and encrypted wallet files."""

import bittensor_core
import msgspec

from engram import wire
from engram.hotkeys.errors import MalformedHotkey, WalletFileError, WrongPassword

_LEGACY = (b"$ANSIBLE_VAULT", b"gAAAAA")
"""How the older encrypted forms begin: Ansible vault, Fernet."""
_ENCRYPTED = (b"$NACL", *_LEGACY)
"""How all encrypted forms begin; NaCl is the current one."""


class _Serialized(msgspec.Struct, frozen=True):
    private_key: str = msgspec.field(name="privateKey")


def is_encrypted(content: bytes) -> bool:
    """Return whether these are the bytes of an encrypted key file, in any format."""
    return content.startswith(_ENCRYPTED)


def is_legacy(content: bytes) -> bool:
    """Return whether these are the bytes of a key file encrypted in an obsolete format."""
    return content.startswith(_LEGACY)


def encipher(content: bytes, password: str) -> bytes:
    """Return the bytes of a key file encrypted as NaCl (argon2i); takes 3 to 6 s of CPU."""
    enciphered: bytes = bittensor_core.encrypt_keyfile_data(content, password)
    return enciphered


def new_mnemonic(words: int = 12) -> str:
    """Return a BIP-39 mnemonic of 12, 15, 18, 21 or 24 words from the operating system's secure source."""
    mnemonic: str = bittensor_core.Keypair.generate_mnemonic(words)
    return mnemonic


def is_mnemonic(words: str) -> bool:
    """Return whether these are the words of an English BIP-39 mnemonic, checksum included."""
    try:
        bittensor_core.Keypair.create_from_mnemonic(words)
    except ValueError:
        return False
    return True


def key_file_of(mnemonic: str) -> bytes:
    """Return the plain bytes of the key file of these words, phrase and seed included. Raises MalformedHotkey."""
    try:
        content: bytes = bittensor_core.serialized_keypair_to_keyfile_data(
            bittensor_core.Keypair.create_from_mnemonic(mnemonic)
        )
    except ValueError:
        raise MalformedHotkey("not a mnemonic") from None
    return content


def key_file_of_seed(seed: bytes) -> bytes:
    """Return the plain bytes of the key file of a 32-byte seed, seed included."""
    content: bytes = bittensor_core.serialized_keypair_to_keyfile_data(bittensor_core.Keypair.create_from_seed(seed))
    return content


def private_key_of_uri(uri: str) -> bytes:
    """Return the 64-byte private key of a mnemonic or a secret URI such as `//Alice`. Raises MalformedHotkey."""
    try:
        serialized: bytes = bittensor_core.serialized_keypair_to_keyfile_data(
            bittensor_core.Keypair.create_from_uri(uri)
        )
    except ValueError:
        raise MalformedHotkey("not a mnemonic or secret URI") from None
    return bytes.fromhex(wire.decode(serialized, _Serialized).private_key.removeprefix("0x"))


def decipher(content: bytes, password: str) -> bytes:
    """Return the plain bytes of an encrypted key file; takes 3 to 6 s of CPU.

    Raises WrongPassword, or WalletFileError when no password could open it.
    """
    try:
        plain: bytes = bittensor_core.decrypt_keyfile_data(content, password)
    except bittensor_core.WrongPasswordError:
        raise WrongPassword("wrong password for the key file") from None
    except (bittensor_core.KeyfileError, ValueError):
        raise WalletFileError("the key file is encrypted in no known form") from None
    return plain
