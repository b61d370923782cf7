"""`engram archive create`, `update`, `show`, `check`, `restore`, `shred`."""

import secrets
import sys
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import trio
from cyclopts import App, Parameter

from engram.cli import output
from engram.cli.archive.common import (
    JOURNALS,
    Key,
    Opener,
    Owner,
    Shares,
    Where,
    archive_errors,
    owner_of,
    passphrase,
    pays_by_x402,
    place_of,
    require_writer,
    secret_of,
)
from engram.cli.data_folder import Data, truth_of
from engram.cli.failures import CommandFailed, Exit
from engram.cli.numbers import whole
from engram.cli.options import SHOW, Show
from engram.cli.progress import progress
from engram.clock import SystemClock
from engram.hotkeys import PublicKey, parse_hotkey, ss58

if TYPE_CHECKING:
    from engram.archive.archiver import Archiver, Made
    from engram.archive.model import Header, KeySource
    from engram.archive.restorer import Checked, Restored

app = App(
    name="archive",
    help="Keep a memory beyond its node: sealed archives in a folder or a bucket, which their owner alone can read.",
    help_epilogue="Example: `engram archive create /mnt/archive --key my-hotkey`",
)

Writer = Annotated[Path, Parameter(help="The hotkey file of the owner, or of a writer that the archive was made with.")]
TakeOver = Annotated[
    bool,
    Parameter(
        help="Go on with an archive that this folder has not written so far: what it holds is replaced.", negative=""
    ),
]
Shrink = Annotated[
    bool, Parameter(help="Archive the node although it holds less than half of what the archive has.", negative="")
]


class ShownArchive(msgspec.Struct, frozen=True):
    """An archive, as everyone sees it."""

    archive: str
    owner: str
    opened_by: str
    writers: list[str]
    created_at: str
    can_erase: bool
    """Whether shredding makes unreadable what was deleted; not where keys lie for ever."""
    manifest: int
    """The number of the newest manifest; 0 while nothing was archived."""


@app.command(help_epilogue="Example: `engram archive create s3://my-bucket/memory --key my-hotkey`")
def create(
    where: Where,
    *,
    key: Key,
    opened_by: Annotated[
        Literal["hotkey", "passphrase", "shares"],
        Parameter(help="What opens it: the owner's hotkey (words on a new phone are enough), a passphrase, or shares."),
    ] = "hotkey",
    shares: Annotated[str, Parameter(help="How many shares of how many open it.")] = "2/3",
    keys_forever: Annotated[
        bool,
        Parameter(
            help="On Arweave: keep the sealed keys there as well. The owner's key is then enough to restore anywhere, "
            "and nothing that was archived can ever be erased.",
            negative="",
        ),
    ] = False,
    writer: Annotated[
        tuple[str, ...], Parameter(help="A hotkey beside the owner's that may write: that of a node.", negative="")
    ] = (),
    show: Show = SHOW,
) -> None:
    """Make an empty archive at WHERE. Shares are shown once and kept nowhere."""
    from engram.archive import opening, signing
    from engram.archive.errors import ArchiveError, PlaceUnavailable
    from engram.archive.model import HEADER, ID_BYTES, Header
    from engram.archive.reading import header_at
    from engram.cli.wallet.passwords import signing_key

    if keys_forever and not where.startswith("ar://"):
        raise CommandFailed(f"--keys-forever is for Arweave: at {where} keys can be destroyed", Exit.USAGE)
    with archive_errors("no archive was made"):
        owner, archive_id = signing_key(key), secrets.token_bytes(ID_BYTES)
        writers = tuple(bytes(parse_hotkey(each)) for each in writer)
        secret, source, texts = _new_secret(opened_by, shares, lambda: opening.of_hotkey(owner, archive_id))
        unproven = Header(
            archive_id=archive_id,
            owner=bytes(owner.public_key),
            archive_key=opening.public_of(secret),
            source=source,
            writers=writers,
            created_at=SystemClock().now(),
            keys_forever=keys_forever,
        )
        header = opening.proven(secret, unproven)

        async def make() -> str:
            """Return why it is not known whether the archive is there; nothing where it is."""
            async with place_of(where, owner) as place:
                try:
                    await place.put(HEADER, signing.sign_header(owner, header))
                except PlaceUnavailable as error:
                    try:
                        return "" if await header_at(place) == header else str(error)
                    except ArchiveError:
                        return str(error)
            return ""

        unknown = trio.run(make)
    made_of = {"archive": archive_id.hex(), "owner": owner.ss58, "opened_by": opened_by, "shares": texts}
    output.record(made_of, json=show.json)
    if unknown:
        raise CommandFailed(
            f"{unknown} (it is not known whether the archive was made: keep what is shown, and look with "
            f"`engram archive show {where}`)"
        )


@app.command(help_epilogue="Example: `engram archive update /var/lib/engram/my-node /mnt/archive --key my-hotkey`")
def update(
    data: Data,
    where: Where,
    *,
    key: Writer,
    owner: Owner = "",
    take_over: TakeOver = False,
    shrink: Shrink = False,
    show: Show = SHOW,
) -> None:
    """Archive what a node holds of the owner's: what is new is sent, what is gone is noted. The node may run.

    Run it again after a failure: what was sent is not sent again.
    """
    to = _Target(data, where, key, owner, take_over, shrink)
    _show_made(_archived(to, lambda archiver, on: archiver.update(data, on), "run it again"), show)


@app.command(help_epilogue="Example: `engram archive shred /var/lib/engram/my-node /mnt/archive --key my-hotkey`")
def shred(
    data: Data,
    where: Where,
    *,
    key: Writer,
    owner: Owner = "",
    take_over: TakeOver = False,
    shrink: Shrink = False,
    show: Show = SHOW,
) -> None:
    """Archive what lives under a new key and destroy the old one, so that nothing deleted can ever be opened again.

    Whoever copied the sealed old key before, together with the segments, still needs the owner's key to read them.
    """
    outcome = "old keys may still be there: run it again until it succeeds"
    to = _Target(data, where, key, owner, take_over, shrink)
    _show_made(_archived(to, lambda archiver, on: archiver.shred(data, on), outcome), show)


@app.command(name="show", help_epilogue="Example: `engram archive show /mnt/archive`")
def show_(where: Where, *, owner: Owner = "", show: Show = SHOW) -> None:
    """Show whose an archive is and what opens it, as whoever finds it can see."""
    from engram.archive.model import HotkeySource, PassphraseSource, SharesSource
    from engram.archive.reading import header_at, newest

    async def look() -> ShownArchive:
        expected = bytes(parse_hotkey(owner)) if owner else None
        async with place_of(where, owner=expected) as place:
            header = await header_at(place, expected)
            found = await newest(place, header, 0)
        match header.source:
            case HotkeySource():
                opened_by = "the owner's hotkey"
            case PassphraseSource():
                opened_by = "a passphrase"
            case SharesSource(threshold, total):
                opened_by = f"{threshold} of {total} shares"
        return ShownArchive(
            archive=header.archive_id.hex(),
            owner=_ss58(header.owner),
            opened_by=opened_by,
            writers=[_ss58(each) for each in header.writers],
            created_at=datetime.fromtimestamp(header.created_at, UTC).isoformat(timespec="seconds"),
            can_erase=not header.keys_forever,
            manifest=0 if found is None else found.envelope.sequence,
        )

    with archive_errors("nothing was changed"):
        output.record(trio.run(look), json=show.json)


@app.command(help_epilogue="Example: `engram archive check /mnt/archive --key my-hotkey`")
def check(
    where: Where, *, key: Opener = None, shares_file: Shares = None, owner: Owner = "", show: Show = SHOW
) -> None:
    """Read all of an archive and hold every row against its signed manifest."""
    from engram.archive import restorer
    from engram.archive.reading import header_at, open_archive

    async def read(on_progress: Callable[[int, int], None]) -> "Checked":
        async with place_of(where, owner=expected) as place:
            header = await header_at(place, expected)
            opened = await open_archive(place, header, secret_of(header, key, shares_file))
            return await restorer.check(place, opened, on_progress)

    with archive_errors("nothing was changed"), progress("rows") as on_progress:
        expected = owner_of(owner, key)
        checked = trio.run(read, on_progress)
    _show_checked(checked, {"checked": where}, show)


@app.command(help_epilogue="Example: `engram archive restore /mnt/archive /var/lib/engram/new-node --key my-hotkey`")
def restore(
    where: Where,
    data: Annotated[Path, Parameter(help="The data folder of a node that is down, or of a new one.")],
    *,
    key: Opener = None,
    shares_file: Shares = None,
    owner: Owner = "",
    namespace: Annotated[str | None, Parameter(help="Only the records of this namespace.")] = None,
    since: Annotated[datetime | None, Parameter(help="Only records stored from then on (UTC).")] = None,
    at_least: Annotated[
        int, Parameter(converter=whole, help="Refuse manifests older than this number: the last one you saw.")
    ] = 0,
    older: Annotated[bool, Parameter(help="Take an older manifest than was seen.", negative="")] = False,
    manifest: Annotated[
        int | None,
        Parameter(converter=whole, help="Restore the state of this number, not the newest, if all of it is left."),
    ] = None,
    force: Annotated[bool, Parameter(help="Also replace records that exist, whole or damaged.", negative="")] = False,
    show: Show = SHOW,
) -> None:
    """Restore an archive into a node's data folder; former data are kept beside it. The node builds its index at start.

    Everything is made beside and held against the signed manifest first: a damaged archive changes nothing.
    """
    from engram.archive import restorer
    from engram.archive.journal import Journal, Listing
    from engram.archive.pins import require_pinned
    from engram.archive.reading import header_at, open_archive
    from engram.memory.upkeep import backups
    from engram.miner import folder

    wanted = restorer.Wanted(
        namespace, None if since is None else since.replace(tzinfo=since.tzinfo or UTC).timestamp()
    )

    async def read(on_progress: Callable[[int, int], None]) -> "Restored":
        async with place_of(where, owner=expected) as place:
            header = await header_at(place, expected)
            require_pinned(data / JOURNALS, place.address, header)
            journal = Journal.open(_journal_path(data, header))
            seen = 0 if older else max(at_least, 0 if journal.listed is None else journal.listed.sequence)
            opened = await open_archive(place, header, secret_of(header, key, shares_file), seen, manifest)
            made = await restorer.restore(place, opened, data, str(uuid.uuid4()), wanted, on_progress)
            if wanted.is_all and manifest is None:  # this node goes on with the archive
                (data / JOURNALS).mkdir(mode=0o700, exist_ok=True)
                with journal.held():
                    journal.adopt(Listing(opened.sequence, opened.link, max(opened.keys), sum(made.rows.values())))
            return made

    with archive_errors("nothing was changed"):
        expected = owner_of(owner, key)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folder.claim(data), progress("rows") as on_progress:
            if not force:
                backups.refuse_over(data)
            checked = trio.run(read, on_progress)
    _show_checked(checked, {"restored": str(data)}, show)


Work = Callable[["Archiver", Callable[[int, int], None]], Coroutine[Any, Any, "Made"]]


class _Target(msgspec.Struct, frozen=True):
    """Which node is archived where, and by which key for which owner."""

    data: Path
    where: str
    key: Path
    owner: str
    take_over: bool
    shrink: bool


def _archived(to: _Target, work: Work, outcome: str) -> "Made":
    from engram.archive import pins
    from engram.archive.archiver import Allowed, Archiver
    from engram.archive.journal import Journal
    from engram.archive.reading import header_at
    from engram.cli.wallet.passwords import signing_key

    truth_of(to.data)

    async def run(on_progress: Callable[[int, int], None]) -> "Made":
        async with place_of(to.where, writer) as place:
            header = await header_at(place, bytes(parse_hotkey(to.owner) if to.owner else writer.public_key))
            require_writer(header, writer)
            path = _journal_path(to.data, header)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            if not to.take_over:
                pins.require_pinned(path.parent, place.address, header)
            pins.pin(path.parent, place.address, header)
            allowed = Allowed(take_over=to.take_over, shrinking=to.shrink)
            archiver = Archiver(place, header, writer, Journal(path), SystemClock().now, allowed, _say_price)
            return await work(archiver, on_progress)

    with archive_errors(outcome), progress("rows") as on_progress:
        writer = signing_key(to.key)
        return trio.run(run, on_progress)


def _say_price(parts: int, size: int, price: int) -> None:
    if price:
        cost = f"about {price / 1e6:.6f} USDC" if pays_by_x402() else f"{price:,} winston credits"
        print(f"sending {parts} parts, {size:,} bytes, for {cost}", file=sys.stderr)


def _journal_path(data: Path, header: "Header") -> Path:
    return data / JOURNALS / f"{header.archive_id.hex()}.journal"


def _new_secret(
    opened_by: Literal["hotkey", "passphrase", "shares"], shares: str, of_hotkey: Callable[[], bytes]
) -> "tuple[bytes, KeySource, list[str]]":
    """Return an archive's secret key, where it comes from, and its shares. Raises CommandFailed."""
    from engram.archive import opening
    from engram.archive.model import HotkeySource, SharesSource
    from engram.sdk.shamir import split

    if opened_by == "hotkey":
        return of_hotkey(), HotkeySource(), []
    if opened_by == "passphrase":
        words = passphrase()
        if len(words) < opening.LEAST_PASSPHRASE:
            raise CommandFailed(f"the passphrase has {len(words)} characters; it must have {opening.LEAST_PASSPHRASE}")
        source = opening.new_passphrase_source()
        return opening.of_passphrase(words, source), source, []
    threshold, _, total = shares.partition("/")
    secret = opening.new_secret()
    try:
        made = split(secret, int(threshold), int(total))
    except ValueError as error:
        raise CommandFailed(f"--shares {shares} must be like 2/3: {error}", Exit.USAGE) from None
    texts = [f"{share.index}-{share.data.hex()}" for share in made]
    return secret, SharesSource(int(threshold), int(total)), texts


def _show_made(made: "Made", show: Show) -> None:
    output.record(made, json=show.json)


def _show_checked(checked: "Checked | Restored", before: dict[str, str], show: Show) -> None:
    facts = {"manifest": checked.sequence, **checked.rows, "public_root": checked.public_root}
    output.record({**before, **facts}, json=show.json)


def _ss58(public_key: bytes) -> str:
    return ss58.encode(PublicKey(public_key))
