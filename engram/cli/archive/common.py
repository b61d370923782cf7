"""What the commands on archives share: where an archive lies, which key opens it, what failed."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from engram.cli.failures import CommandFailed, Exit
from engram.clock import SystemClock
from engram.durable.driver import sqlite3
from engram.hotkeys import Keypair

if TYPE_CHECKING:
    from engram.archive.model import Header
    from engram.archive.place import Place

JOURNALS: Final = "archives"
"""The folder in a node's data folder where archivers note what they have sent."""
PASSPHRASE_VARIABLE: Final = "ENGRAM_ARCHIVE_PASSPHRASE"  # noqa: S105 (the variable's name)
Where = Annotated[
    str,
    Parameter(
        help="A folder, or s3://BUCKET/PREFIX (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for another "
        "service than Amazon's, AWS_ENDPOINT_URL)."
    ),
]
Key = Annotated[Path, Parameter(help="The owner's hotkey file.")]


@asynccontextmanager
async def place_of(where: str) -> "AsyncIterator[Place]":
    """Open the place of an archive. Raises CommandFailed for an address that is none."""
    from engram.archive.bucket_place import BucketPlace
    from engram.archive.folder_place import FolderPlace
    from engram.archive.sigv4 import Credentials
    from engram.http.client import HttpClient

    scheme, separator, rest = where.partition("://")
    if not separator:
        yield FolderPlace(Path(where).expanduser())
        return
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise CommandFailed(f"{where} is no place for an archive: name a folder, or s3://BUCKET/PREFIX", Exit.USAGE)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    access, secret = (os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if not access or not secret:
        raise CommandFailed("a bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
    if not endpoint.startswith(("http://", "https://")):
        raise CommandFailed(f"AWS_ENDPOINT_URL is {endpoint!r}; it must be an http or https URL")
    credentials = Credentials(access, secret, region, os.environ.get("AWS_SESSION_TOKEN", ""))
    client = HttpClient()
    try:
        yield BucketPlace(endpoint, bucket, prefix, credentials, client, SystemClock().now)
    finally:
        await client.aclose()


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
    return opening.require(secret, header.archive_key, header.source)


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


def writing_key(header: "Header", key: Path) -> Keypair:
    """Return the key that signs manifests. Raises CommandFailed when it may not write this archive."""
    from engram.cli.wallet.passwords import signing_key

    keypair = signing_key(key)
    if bytes(keypair.public_key) not in (header.owner, *header.writers):
        raise CommandFailed(
            f"{keypair.ss58} may not write this archive: its owner, and writers named at its making, may"
        )
    return keypair


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
