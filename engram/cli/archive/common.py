"""What the commands on archives share: where an archive lies, which key opens it, what failed."""

import os
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from engram.cli.failures import CommandFailed, Exit
from engram.clock import SystemClock
from engram.durable.driver import sqlite3
from engram.hotkeys import Keypair, parse_hotkey

if TYPE_CHECKING:
    from engram.archive.item_keys import EthereumKey
    from engram.archive.model import Header
    from engram.archive.place import Place
    from engram.archive.upload_payment import UploadWallet
    from engram.http.client import HttpClient

JOURNALS: Final = "archives"
"""The folder in a node's data folder where archivers note what they have sent."""
PASSPHRASE_VARIABLE: Final = "ENGRAM_ARCHIVE_PASSPHRASE"  # noqa: S105 (the variable's name)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRET_BYTES: Final = 32
_MOST_USDC: Final = "ENGRAM_ARWEAVE_MOST_USDC"
_USDC: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)
_RPC_S: Final = 30.0
_CONFIRMATIONS: Final = 12
"""Blocks, 24 s on Base, on top of the one at which what became of a payment is final."""
Where = Annotated[
    str,
    Parameter(
        help="A folder, s3://BUCKET/PREFIX (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for another "
        "service than Amazon's, AWS_ENDPOINT_URL), or ar://NAME on Arweave (ENGRAM_ARWEAVE_*; see the documentation)."
    ),
]
Key = Annotated[Path, Parameter(help="The owner's hotkey file.")]
Opener = Annotated[Path | None, Parameter(help="The owner's hotkey file, where the hotkey opens the archive.")]
Shares = Annotated[Path | None, Parameter(help="A file with the shares, one a line, where shares open the archive.")]
Owner = Annotated[
    str, Parameter(help="The owner's address (ss58), where --key is not the owner's: any other's archive is refused.")
]


@asynccontextmanager
async def place_of(where: str, hotkey: Keypair | None = None, owner: bytes | None = None) -> "AsyncIterator[Place]":
    """Open the place of an archive, where `hotkey` must not pay; that of an `owner` is only read.

    Raises CommandFailed for no address, ArchiveError.
    """
    from engram.archive.folder_place import FolderPlace
    from engram.http.client import HttpClient

    scheme, separator, rest = where.partition("://")
    if not separator:
        yield FolderPlace(Path(where).expanduser())
        return
    if scheme not in ("s3", "ar") or not rest:
        kinds = "a folder, s3://BUCKET/PREFIX or ar://NAME"
        raise CommandFailed(f"{where} is no place for an archive: name {kinds}", Exit.USAGE)
    client = HttpClient()
    try:
        yield _bucket(rest, client) if scheme == "s3" else await _arweave(rest, client, hotkey, owner)
    finally:
        await client.aclose()


def _bucket(rest: str, client: "HttpClient") -> "Place":
    from engram.archive.bucket_place import BucketPlace
    from engram.archive.sigv4 import Credentials

    bucket, _, prefix = rest.partition("/")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    access, secret = (os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if not access or not secret:
        raise CommandFailed("a bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
    endpoint = _url("AWS_ENDPOINT_URL", f"https://s3.{region}.amazonaws.com")
    credentials = Credentials(access, secret, region, os.environ.get("AWS_SESSION_TOKEN", ""))
    return BucketPlace(endpoint, bucket, prefix, credentials, client, SystemClock().now)


async def _arweave(name: str, client: "HttpClient", hotkey: Keypair | None, owner: bytes | None) -> "Place":
    """Open an archive on Arweave; its keys lie in a folder, where they can be destroyed.

    Of one that is only read, and whose owner is known, the key that pays is not needed, nor a folder if keys lie there
    for ever.
    """
    from engram.archive.arweave_place import ArweavePlace, SplitPlace, address_of
    from engram.archive.bundler import Bundler
    from engram.archive.folder_place import FolderPlace

    needed = {each: os.environ.get(each, "") for each in ("ENGRAM_ARWEAVE_KEY_FILE", "ENGRAM_ARWEAVE_FOLDER")}
    missing = [each for each, value in needed.items() if not value]
    if missing and owner is None:
        raise CommandFailed(f"an archive on Arweave needs {' and '.join(missing)} in the environment")
    if not _NAME.fullmatch(name):
        raise CommandFailed(f"ar://{name} is no name: it has 1 to 64 letters, digits, - and _", Exit.USAGE)
    key_file, folder = (Path(value).expanduser() for value in needed.values())
    upload = _url("ENGRAM_ARWEAVE_UPLOAD_URL", "https://upload.ardrive.io")
    gateway = _url("ENGRAM_ARWEAVE_GATEWAY_URL", "https://arweave.net")
    payment = _url("ENGRAM_ARWEAVE_PAYMENT_URL", "https://payment.ardrive.io")
    most = os.environ.get("ENGRAM_ARWEAVE_MOST_WINC", "0")
    if not most.isascii() or not most.isdigit():
        raise CommandFailed(f"ENGRAM_ARWEAVE_MOST_WINC is {most!r}; it must be a whole number of winston credits")
    bundler = Bundler(client, upload, gateway, payment)
    if needed["ENGRAM_ARWEAVE_KEY_FILE"]:
        key: EthereumKey | str = _paying_key(key_file, hotkey)
    else:
        key = await address_of(bundler, name, lambda stored: _is_header_of(stored, owner))
    wallet = _upload_wallet(key, client)
    place = ArweavePlace(bundler, key, name, folder / "spool" / name, int(most), wallet)
    return SplitPlace(FolderPlace(folder / "keys" / name), place) if needed["ENGRAM_ARWEAVE_FOLDER"] else place


def pays_by_x402() -> bool:
    """Return whether what is sent to Arweave is paid for in USDC, part by part."""
    return bool(os.environ.get(_MOST_USDC))


def _upload_wallet(key: "EthereumKey | str", client: "HttpClient") -> "UploadWallet | None":
    """Return what pays for uploads by x402 where a limit in USDC is set. Raises CommandFailed."""
    from engram.archive.upload_payment import UploadWallet
    from engram.payments.evm_rpc import EvmRpc, json_rpc
    from engram.payments.networks import BASE, BASE_SEPOLIA

    if not pays_by_x402() or isinstance(key, str):
        return None
    most, named = os.environ[_MOST_USDC], os.environ.get("ENGRAM_ARWEAVE_USDC_NETWORK") or BASE.v1_name
    if not _USDC.fullmatch(most):
        raise CommandFailed(f"{_MOST_USDC} is {most!r}; it must be dollars with at most six decimals, such as 0.25")
    network = {each.v1_name: each for each in (BASE, BASE_SEPOLIA)}.get(named)
    if network is None:
        raise CommandFailed(f"ENGRAM_ARWEAVE_USDC_NETWORK is {named!r}; it must be base or base-sepolia")
    if not os.environ.get("ENGRAM_ARWEAVE_RPC_URL"):
        raise CommandFailed(
            f"{_MOST_USDC} needs ENGRAM_ARWEAVE_RPC_URL, a JSON-RPC node of {named}: it proves what became of a payment"
        )
    url = _url("ENGRAM_ARWEAVE_RPC_URL", "")
    chain = EvmRpc(json_rpc(client, url, _RPC_S), network, _CONFIRMATIONS)
    dollars, _, decimals = most.partition(".")
    micros = int(dollars) * 1_000_000 + int(decimals.ljust(6, "0"))
    return UploadWallet(key, network, chain.look, micros, SystemClock().now)


def _is_header_of(stored: bytes, owner: bytes | None) -> bool:
    from engram.archive.errors import ArchiveError
    from engram.archive.signing import read_header

    try:
        read_header(stored, owner)
    except ArchiveError:
        return False
    return True


def _paying_key(path: Path, hotkey: Keypair | None) -> "EthereumKey":
    from engram.archive.item_keys import EthereumKey

    secret = _paying_secret(path)
    if hotkey is not None and _is_of(secret, hotkey):
        raise CommandFailed(f"{path} has the bytes of the hotkey {hotkey.ss58}: a key that pays must be one of its own")
    try:
        return EthereumKey(secret)
    except ValueError:
        raise CommandFailed(f"{path} has no key: those bytes are not on secp256k1") from None


def _paying_secret(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise CommandFailed(f"{path} can be read by others, and has a key that pays: chmod 600 {path}")
        secret = bytes.fromhex(path.read_text().strip().removeprefix("0x"))
    except (OSError, ValueError):
        secret = b""
    if len(secret) != _SECRET_BYTES:
        raise CommandFailed(f"{path} has no key: it holds the 64 hex digits of a secp256k1 key of its own")
    return secret


def _is_of(secret: bytes, hotkey: Keypair) -> bool:
    """Return whether a secret is the seed of a hotkey or a part of its private key."""
    private = hotkey.private_key()
    return Keypair.from_seed(secret) == hotkey or secret in (private[:_SECRET_BYTES], private[_SECRET_BYTES:])


def _url(variable: str, default: str) -> str:
    found = os.environ.get(variable) or default
    if not found.startswith(("http://", "https://")):
        raise CommandFailed(f"{variable} is {found!r}; it must be an http or https URL")
    return found


def owner_of(owner: str, key: Path | None) -> bytes:
    """Return the public key that an archive must belong to: the address named, or of the key.

    Raises CommandFailed, HotkeyError.
    """
    from engram.cli.wallet.passwords import signing_key

    if owner:
        return bytes(parse_hotkey(owner))
    if key is None:
        raise CommandFailed("say whose archive it is: name the owner's address with --owner", Exit.USAGE)
    return bytes(signing_key(key).public_key)


def secret_of(header: "Header", key: Path | None, shares: Path | None) -> bytes:
    """Return the secret key that opens an archive. Raises CommandFailed, Locked, HotkeyError."""
    from engram.archive import opening
    from engram.archive.model import HotkeySource, PassphraseSource, SharesSource
    from engram.cli.wallet.passwords import signing_key

    match header.source:
        case HotkeySource():
            if key is None:
                raise CommandFailed(
                    "this archive is opened by its owner's hotkey: name its file with --key", Exit.USAGE
                )
            secret = opening.of_hotkey(signing_key(key), header.archive_id)
        case PassphraseSource():
            secret = opening.of_passphrase(passphrase(), header.source)
        case SharesSource(threshold):
            if shares is None:
                raise CommandFailed(
                    f"this archive is opened by {threshold} of its shares: name a file of them with --shares-file",
                    Exit.USAGE,
                )
            texts = sorted(set(shares.expanduser().read_text().split()))
            if len(texts) < threshold:
                raise CommandFailed(f"{shares} has {len(texts)} shares; {threshold} open this archive")
            secret = combined(texts)
    opening.require(secret, header)
    return secret


def passphrase() -> str:
    """Return the passphrase from the environment, or from a hidden prompt. Raises CommandFailed."""
    from engram.cli.wallet.passwords import typed

    return os.environ.get(PASSPHRASE_VARIABLE) or typed(
        "passphrase of the archive: ",
        f"there is no terminal to ask for the passphrase: give it in {PASSPHRASE_VARIABLE}",
    )


def combined(texts: Sequence[str]) -> bytes:
    """Return the secret of shares as `engram archive create` prints them. Raises CommandFailed."""
    from engram.sdk.shamir import Share, combine

    found = []
    for text in texts:
        index, _, digits = text.partition("-")
        try:
            found.append(Share(int(index), bytes.fromhex(digits)))
        except ValueError:
            raise CommandFailed(f"{text[:6]}… is no share: it looks like 2-4fa1…", Exit.USAGE) from None
    try:
        return combine(found)
    except ValueError as error:
        raise CommandFailed(f"the shares do not fit together: {error}") from None


def require_writer(header: "Header", keypair: Keypair) -> None:
    """Raise CommandFailed when a key may not write this archive."""
    if bytes(keypair.public_key) not in (header.owner, *header.writers):
        raise CommandFailed(
            f"{keypair.ss58} may not write this archive: its owner, and writers named at its making, may"
        )


@contextmanager
def archive_errors(outcome: str) -> Iterator[None]:
    """Raise CommandFailed for what can go wrong with an archive; `outcome` says what state things are in then."""
    from engram.archive.errors import ArchiveError
    from engram.hotkeys import HotkeyError
    from engram.memory.errors import MemoryAreaError
    from engram.miner.errors import FolderInUse, NodeError

    try:
        yield
    except FolderInUse as error:
        raise CommandFailed(f"{error}; stop the node first") from None
    except (ArchiveError, MemoryAreaError, NodeError, HotkeyError, OSError, sqlite3.Error) as error:
        raise CommandFailed(f"{error} ({outcome})") from None
