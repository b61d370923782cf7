"""sr25519 identity: addresses, key pairs, wallet files, and signing and verifying of every request scheme.

Inside, an identity is the 32 bytes of a public key; SS58 and hex exist only at the edge.
"""

from engram.hotkeys import answers, chutes, epistula, gateway_scheme, miner_scheme, profiles, ss58, wallet
from engram.hotkeys.errors import (
    AuthError,
    HotkeyError,
    MalformedHotkey,
    WalletEncrypted,
    WalletFileError,
    WrongPassword,
)
from engram.hotkeys.keypair import Keypair, verify
from engram.hotkeys.replay_guard import Noted, ReplayStore
from engram.hotkeys.scheme import (
    Claim,
    Scheme,
    SignedRequest,
    prove,
    sign_fields,
    sign_headers,
    verify_fields,
    verify_signed,
)
from engram.hotkeys.ss58 import PublicKey, parse_hotkey
from engram.hotkeys.verifier import Verifier

__all__ = [
    "AuthError",
    "Claim",
    "HotkeyError",
    "Keypair",
    "MalformedHotkey",
    "Noted",
    "PublicKey",
    "ReplayStore",
    "Scheme",
    "SignedRequest",
    "Verifier",
    "WalletEncrypted",
    "WalletFileError",
    "WrongPassword",
    "answers",
    "chutes",
    "epistula",
    "gateway_scheme",
    "miner_scheme",
    "parse_hotkey",
    "profiles",
    "prove",
    "sign_fields",
    "sign_headers",
    "ss58",
    "verify",
    "verify_fields",
    "verify_signed",
    "wallet",
]
