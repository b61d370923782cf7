"""What can go wrong with keys and signatures."""

from typing import final


class HotkeyError(Exception):
    """Base; never raised itself."""


@final
class MalformedHotkey(HotkeyError):
    """The text is no ss58 address (prefix 42) and no 64 hex digits of a usable public key."""


@final
class InvalidWalletName(HotkeyError):
    """The name of a wallet or a hotkey is not the name of one file."""


@final
class WalletFileError(HotkeyError):
    """A key file cannot be read, is damaged, or is open to other users. The message names the file, never a secret."""


@final
class WalletEncrypted(HotkeyError):
    """The key file is encrypted and no password was given."""


@final
class WrongPassword(HotkeyError):
    """The password does not open the key file."""


@final
class AuthError(HotkeyError):
    """A signed request was refused.

    `code` is one of missing_header, duplicate_header, malformed, bad_version, signed_for_missing,
    signed_for_mismatch, stale, future, before_start, bad_signature, replay, bound_elsewhere (HTTP 401; 403 for a
    node's namespaces), not_permitted (403) and busy (503). `skew_ms` is the request's timestamp minus our clock
    (positive: the sender's clock is ahead), or None when no timestamp could be read.
    """

    def __init__(self, code: str, message: str, skew_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.skew_ms = skew_ms
