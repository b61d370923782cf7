"""sr25519 identity: addresses, key pairs, wallet files, and signing and verifying of every request scheme.

Inside, an identity is the 32 bytes of a public key; SS58 and hex exist only at the edge.
"""

from engram.hotkeys import answers, gateway_scheme, miner_scheme, ss58, wallet
from engram.hotkeys.errors import (
    AuthError,
    HotkeyError,
    MalformedHotkey,
    WalletEncrypted,
    WalletFileError,
    WrongPassword,
)
from engram.hotkeys.keypair import Keypair, verify
from engram.hotkeys.scheme import Scheme, SignedRequest, verify_signed
from engram.hotkeys.ss58 import PublicKey, parse_hotkey

__all__ = [
    "AuthError",
    "HotkeyError",
    "Keypair",
    "MalformedHotkey",
    "PublicKey",
    "Scheme",
    "SignedRequest",
    "WalletEncrypted",
    "WalletFileError",
    "WrongPassword",
    "answers",
    "gateway_scheme",
    "miner_scheme",
    "parse_hotkey",
    "ss58",
    "verify",
    "verify_signed",
    "wallet",
]
