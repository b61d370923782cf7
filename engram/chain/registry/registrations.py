"""Where a miner serves, as committed on the chain: the text `address:port`, written strictly and read leniently.

| text                        | read as                                   | written |
|-----------------------------|-------------------------------------------|---------|
| `13.89.38.129:9999`         | IPv4                                      | so      |
| `[2001:db8::1]:8091`        | IPv6                                      | so      |
| `2001:db8::1:8091`          | IPv6, as older tools wrote it             | never   |
| `miner.example.org:443`     | host name                                 | so      |
| `myorg:my-model:abc123`     | invalid: an older kind of commitment      | never   |

The limits (45, 5 and 128) count bytes: the chain does.
"""

import ipaddress
import re
from typing import Final

import msgspec

from config.addresses import is_public_host
from engram.chain.errors import ChainError
from engram.chain.read.commitments import HotkeyCommitment, read_commitments
from engram.chain.read.view import View
from engram.chain.submit.calls import COMMITMENT_BYTES
from engram.hotkeys import PublicKey

ADDRESS_BYTES: Final = 45
PORT_BYTES: Final = 5
_HOST_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")
_DIGITS: Final = re.compile(r"[0-9]{1,5}\Z")
_NUMERIC_LABEL: Final = re.compile(r"(?:[0-9]+|0[xX][0-9a-fA-F]*)\Z")
"""Resolvers read a name whose last label is numeric as an address (`0x7f.1` is 127.0.0.1)."""


class InvalidRegistration(ChainError):
    """The address or port cannot be committed. The first line is the documented message. Nothing was sent."""


class Registration(msgspec.Struct, frozen=True):
    """Where a miner serves."""

    address: str
    """IPv4, IPv6 (without brackets) or host name."""
    port: int

    @property
    def text(self) -> str:
        """The text that is committed."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address, None for a host name."""
        try:
            return ipaddress.ip_address(self.address)
        except ValueError:
            return None


class RegistryEntry(msgspec.Struct, frozen=True):
    """One commitment, and the registration that it holds."""

    hotkey: PublicKey
    address: str
    """The hotkey as the chain's tools write it."""
    block: int | None
    raw: str
    """The payload as text; bytes that are not UTF-8 are escaped."""
    length: int
    """Bytes of the payload."""
    registration: Registration | None
    error_type: str = ""
    error: str = ""
    """Why it is not a registration; empty when it is one."""


def registration(address: str, port: str, *, allow_private: bool = False) -> Registration:
    """Return the registration to commit. Raises InvalidRegistration."""
    if len(address.encode()) > ADDRESS_BYTES:
        raise InvalidRegistration(f"Address '{address}' exceeds maximum length of {ADDRESS_BYTES}")
    if len(port.encode()) > PORT_BYTES:
        raise InvalidRegistration(f"Port '{port}' exceeds maximum length of {PORT_BYTES}")
    try:
        found = Registration(_address(address), _port(port))
    except ValueError as error:
        raise InvalidRegistration(f"Invalid input: {error}") from None
    size = len(found.text.encode())
    if size > COMMITMENT_BYTES:
        raise InvalidRegistration(
            f"Commit string length {size} exceeds maximum {COMMITMENT_BYTES}\n"
            f"Address length: {len(address.encode())}, Port length: {len(port.encode())}"
        )
    if not allow_private and not is_public_host(found.address):
        raise InvalidRegistration(
            f"Invalid input: Address {found.address} cannot be reached from the internet (--allow-private commits it)"
        )
    return found


def parse_text(text: str) -> Registration:
    """Parse a committed text. Raises ValueError with the documented message."""
    address, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"Invalid compressed string format: {text}")
    bracketed = address.startswith("[") and address.endswith("]")
    if ":" in address and not bracketed and not _is_ipv6(address):
        raise ValueError(f"Invalid compressed string format: {text}")
    return Registration(_address(address), _port(port))


async def read_entries(view: View, netuid: int) -> list[RegistryEntry]:
    """Return every commitment of a subnet as an entry. Raises as `read_commitments`."""
    return [registry_entry(commitment) for commitment in await read_commitments(view, netuid)]


def registry_entry(commitment: HotkeyCommitment) -> RegistryEntry:
    """Return the entry of a commitment, valid or not."""
    hotkey, address, block, payload = commitment.hotkey, commitment.address, commitment.block, commitment.payload
    if not payload:
        return RegistryEntry(
            hotkey, address, block, "", 0, None, "MissingData", "No valid chain string found in commitment"
        )
    raw = payload.decode("utf-8", "backslashreplace")
    try:
        found = parse_text(payload.decode("utf-8"))
    except UnicodeDecodeError:
        reason = f"Invalid compressed string format: {raw}"
    except ValueError as error:
        reason = str(error)
    else:
        return RegistryEntry(hotkey, address, block, raw, len(payload), found)
    return RegistryEntry(hotkey, address, block, raw, len(payload), None, "ValueError", reason)


def _address(text: str) -> str:
    if len(text.encode()) > ADDRESS_BYTES + (2 if text.startswith("[") else 0):
        raise ValueError(f"Address must be at most {ADDRESS_BYTES} characters")
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(_no_zone(text)[1:-1]))
        except ipaddress.AddressValueError:
            raise ValueError(f"Address '{text}' is no IPv6 address") from None
    if ":" in text:
        try:
            return str(ipaddress.IPv6Address(_no_zone(text)))
        except ValueError:
            raise ValueError(f"Invalid compressed string format: {text}") from None
    labels = text.removesuffix(".").split(".")
    if _NUMERIC_LABEL.match(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError(f"Address '{text}' is no IPv4 address") from None
    if not text or not all(_HOST_LABEL.match(label) for label in labels):
        raise ValueError(f"Address '{text}' is neither an IP address nor a host name")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _no_zone(text: str) -> str:
    if "%" in text:
        raise ValueError(f"Address '{text}' names an interface of one machine")
    return text


def _port(text: str) -> int:
    if len(text.encode()) > PORT_BYTES:
        raise ValueError(f"Port must be at most {PORT_BYTES} characters")
    if re.fullmatch(r"-[0-9]+", text) or (_DIGITS.match(text) and int(text) > 65_535):
        raise ValueError("Port must be between 0 and 65535")
    if not _DIGITS.match(text):
        raise ValueError("Port must be a valid number")
    if int(text) == 0:
        raise ValueError("Port 0 cannot be connected to")
    return int(text)
