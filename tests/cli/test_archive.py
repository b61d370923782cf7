"""`engram archive` as its owner uses it: made, brought up to date, looked at, restored on another machine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import msgspec
import pytest
import trio

from engram.archive.errors import PlaceUnavailable
from engram.archive.folder_place import FolderPlace
from engram.archive.model import HEADER, manifest_name
from engram.archive.signing import read_header, sign_header
from engram.hotkeys import wallet
from tests.archive.nodes import OWNER, STRANGER, Node, content, entry
from tests.cli.conftest import Run
from tests.fakes.bundler import Arweave
from tests.fakes.responder import Responder


class Command:
    """Runs `engram archive`, and says what came of it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, *argv: str) -> dict[str, Any]:
        done = self._run(*argv, "--json")
        assert done.code == 0, done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    def fails(self, *argv: str, code: int = 1) -> str:
        done = self._run(*argv)
        assert done.code == code, done
        return done.err


@pytest.fixture
def command(run: Run) -> Command:
    return Command(run)


@pytest.fixture
def kept(here: Path) -> Node:
    made = Node(here / "node")
    made.put(*(entry(number) for number in range(3)), entry(9, "diary"))
    made.note(1)
    for name, key in (("owner", OWNER), ("stranger", STRANGER)):
        wallet.write_hotkey_file(here / name, key)
    return made


def test_a_memory_is_archived_and_restored_with_the_owners_hotkey_alone(
    command: Command, here: Path, kept: Node
) -> None:
    made = command("archive", "create", "shelf", "--key", "owner")
    assert (made["owner"], made["opened_by"], made["shares"]) == (OWNER.ss58, "hotkey", [])
    assert command("archive", "show", "shelf")["manifest"] == 0
    done = command("archive", "update", "node", "shelf", "--key", "owner")
    assert (done["sequence"], done["rows"], done["added"], done["is_new"]) == (1, 5, 5, True)
    shown = command("archive", "show", "shelf")
    assert (shown["archive"], shown["opened_by"], shown["manifest"]) == (made["archive"], "the owner's hotkey", 1)
    checked = command("archive", "check", "shelf", "--key", "owner")
    assert (checked["record"], checked["conversation"]) == (4, 1)
    restored = command("archive", "restore", "shelf", "new", "--key", "owner", "--owner", OWNER.ss58)
    assert restored["public_root"] == checked["public_root"]
    assert content(here / "new") == content(here / "node")
    assert command("miner", "verify", "new")["public_root"] == checked["public_root"]


def test_what_is_there_is_replaced_only_by_force_and_kept_beside(command: Command, here: Path, kept: Node) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    command("archive", "update", "node", "shelf", "--key", "owner")
    refused = command.fails("archive", "restore", "shelf", "node", "--key", "owner")
    assert "is there already; --force" in refused
    kept.put(entry(77))
    command("archive", "restore", "shelf", "node", "--key", "owner", "--force")
    assert len(content(here / "node")["records"]) == 4
    assert len(list((here / "node" / "before-restore-1").glob("*.db"))) == 2


def test_shares_open_what_was_made_for_shares(command: Command, here: Path, kept: Node) -> None:
    made = command("archive", "create", "shelf", "--key", "owner", "--opened-by", "shares", "--shares", "2/3")
    assert len(made["shares"]) == 3
    command("archive", "update", "node", "shelf", "--key", "owner")
    (here / "shares").write_text("\n".join(made["shares"][1:]))
    assert command("archive", "check", "shelf", "--owner", OWNER.ss58, "--shares-file", "shares")["record"] == 4
    (here / "one").write_text(made["shares"][0])
    check = ("archive", "check", "shelf", "--owner", OWNER.ss58)
    assert "has 1 shares; 2 open" in command.fails(*check, "--shares-file", "one")
    assert "--shares-file" in command.fails("archive", "check", "shelf", "--key", "owner", code=2)
    (here / "wrong").write_text("1-00\n2-zz")
    assert "is no share" in command.fails(*check, "--shares-file", "wrong", code=2)
    (here / "mixed").write_text(f"1-{'00' * 32}\n2-{'11' * 32}")
    assert "not the archive's key" in command.fails(*check, "--shares-file", "mixed")
    assert "2/3" in command.fails(
        "archive", "create", "b", "--key", "owner", "--opened-by", "shares", "--shares", "5", code=2
    )


def test_a_passphrase_opens_what_was_made_for_it(command: Command, kept: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_ARCHIVE_PASSPHRASE", "too short")
    by = ("--opened-by", "passphrase")
    assert "9 characters; it must have 12" in command.fails("archive", "create", "shelf", "--key", "owner", *by)
    monkeypatch.setenv("ENGRAM_ARCHIVE_PASSPHRASE", "words that only I know")
    command("archive", "create", "shelf", "--key", "owner", *by)
    command("archive", "update", "node", "shelf", "--key", "owner")
    assert "--owner" in command.fails("archive", "check", "shelf", code=2)
    assert command("archive", "check", "shelf", "--owner", OWNER.ss58)["record"] == 4
    monkeypatch.setenv("ENGRAM_ARCHIVE_PASSPHRASE", "words that another knows")
    assert "opened by its passphrase" in command.fails("archive", "check", "shelf", "--key", "owner")


def test_a_stranger_neither_reads_nor_writes(command: Command, kept: Node) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    belongs = f"belongs to {OWNER.ss58}"
    assert belongs in command.fails("archive", "update", "node", "shelf", "--key", "stranger")
    as_owner = ("archive", "update", "node", "shelf", "--key", "stranger", "--owner", OWNER.ss58)
    assert "may not write" in command.fails(*as_owner)
    command("archive", "update", "node", "shelf", "--key", "owner")
    assert belongs in command.fails("archive", "check", "shelf", "--key", "stranger")
    check = ("archive", "check", "shelf", "--key", "stranger", "--owner", OWNER.ss58)
    assert "opened by its hotkey" in command.fails(*check)
    refused = command.fails("archive", "restore", "shelf", "new", "--key", "owner", "--owner", STRANGER.ss58)
    assert belongs in refused


def test_whoever_holds_the_place_cannot_have_a_memory_archived_to_a_key_of_his_own(
    command: Command, here: Path, kept: Node
) -> None:
    command("archive", "create", "shelf", "--key", "stranger", "--writer", OWNER.ss58)  # laid where the owner's was
    assert f"belongs to {STRANGER.ss58}" in command.fails("archive", "update", "node", "shelf", "--key", "owner")
    assert sorted(path.name for path in (here / "shelf").iterdir()) == ["header"]


def test_another_archive_of_the_owner_at_the_same_place_is_noticed(command: Command, here: Path, kept: Node) -> None:
    first = command("archive", "create", "shelf", "--key", "owner")["archive"]
    command("archive", "update", "node", "shelf", "--key", "owner")
    (here / "shelf").rename(here / "away")
    second = command("archive", "create", "shelf", "--key", "owner")["archive"]
    refused = command.fails("archive", "update", "node", "shelf", "--key", "owner")
    assert first in refused
    assert second in refused
    assert "another archive lies at" in command.fails(
        "archive", "restore", "shelf", "node", "--key", "owner", "--force"
    )
    assert command("archive", "update", "node", "shelf", "--key", "owner", "--take-over")["sequence"] == 1
    assert command("archive", "update", "node", "shelf", "--key", "owner")["is_new"] is False


def test_an_archive_of_another_is_not_restored_as_ones_own(command: Command, here: Path, kept: Node) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    genuine = read_header((here / "shelf" / HEADER).read_bytes())
    forged = msgspec.structs.replace(genuine, owner=bytes(STRANGER.public_key))
    (here / "shelf" / HEADER).write_bytes(sign_header(STRANGER, forged))
    command("archive", "update", "node", "shelf", "--key", "stranger")
    assert f"belongs to {STRANGER.ss58}" in command.fails("archive", "restore", "shelf", "new", "--key", "owner")
    assert not (here / "new" / "truth.db").exists()


def test_a_node_that_was_admitted_writes_and_cannot_read(command: Command, kept: Node) -> None:
    command("archive", "create", "shelf", "--key", "owner", "--writer", STRANGER.ss58)
    theirs = ("shelf", "--key", "stranger", "--owner", OWNER.ss58)
    assert command("archive", "update", "node", *theirs)["rows"] == 5
    assert "opened by its hotkey" in command.fails("archive", "check", *theirs)
    assert command("archive", "check", "shelf", "--key", "owner")["record"] == 4


def test_shredding_leaves_one_key(command: Command, here: Path, kept: Node) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    command("archive", "update", "node", "shelf", "--key", "owner")
    kept.delete(entry(1))
    assert command("archive", "shred", "node", "shelf", "--key", "owner")["rows"] == 4
    assert [path.name for path in (here / "shelf" / "keys").iterdir()] == ["000002"]
    assert command("archive", "check", "shelf", "--key", "owner")["record"] == 3


def test_a_new_node_archives_on_after_its_restore_and_any_other_asks_first(
    command: Command, here: Path, kept: Node
) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    command("archive", "update", "node", "shelf", "--key", "owner")
    Node(here / "empty")
    empty = ("archive", "update", "empty", "shelf", "--key", "owner")
    assert "--take-over" in command.fails(*empty)
    command("archive", "restore", "shelf", "new", "--key", "owner")
    assert command("archive", "update", "new", "shelf", "--key", "owner")["rows"] == 5
    assert "one writer at a time" in command.fails("archive", "update", "node", "shelf", "--key", "owner")
    assert command(*empty, "--take-over")["rows"] == 0
    assert "has no rows" in command.fails("archive", "restore", "shelf", "node", "--key", "owner", "--force")
    assert command("archive", "restore", "shelf", "back", "--key", "owner", "--manifest", "1")["record"] == 4
    assert content(here / "back") == content(here / "node")
    command("archive", "update", "back", "shelf", "--key", "owner", "--take-over")
    command("archive", "restore", "shelf", "node", "--key", "owner", "--force")
    assert command("archive", "update", "node", "shelf", "--key", "owner")["rows"] == 5


def test_a_memory_that_shrank_is_archived_when_that_is_said(command: Command, here: Path, kept: Node) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    command("archive", "update", "node", "shelf", "--key", "owner")
    kept.delete(entry(0), entry(1), entry(9, "diary"))
    update = ("archive", "update", "node", "shelf", "--key", "owner")
    assert "say so with --shrink" in command.fails(*update)
    assert command(*update, "--shrink")["rows"] == 2


def test_what_is_said_to_be_restored_is_what_was_written(command: Command, here: Path, kept: Node) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    command("archive", "update", "node", "shelf", "--key", "owner")
    before = content(here / "node")
    back = ("archive", "restore", "shelf", "node", "--key", "owner", "--force", "--namespace")
    assert "its namespaces are __public__, diary" in command.fails(*back, "diray")
    assert content(here / "node") == before
    made = command(*back, "diary")
    assert (made["record"], made["conversation"]) == (1, 0)
    assert made["public_root"] == command("miner", "verify", "node")["public_root"]


def test_an_older_state_of_the_place_is_refused_where_a_newer_one_was_seen(
    command: Command, here: Path, kept: Node
) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    command("archive", "update", "node", "shelf", "--key", "owner")
    kept.put(entry(50))
    command("archive", "update", "node", "shelf", "--key", "owner")
    (here / "shelf" / manifest_name(2)).unlink()
    back = ("archive", "restore", "shelf", "node", "--key", "owner", "--force")
    assert "number 2 was seen before" in command.fails(*back)
    assert command(*back, "--older")["record"] == 4
    new = ("archive", "restore", "shelf", "new", "--key", "owner")
    assert "number 2 was seen before" in command.fails(*new, "--at-least", "2")


def test_a_place_that_is_none_is_said(command: Command, kept: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    assert "s3://BUCKET/PREFIX" in command.fails("archive", "show", "ftp://x/y", code=2)
    assert "ar://NAME" in command.fails("archive", "show", "ar://", code=2)
    assert "needs AWS_ACCESS_KEY_ID" in command.fails("archive", "show", "s3://bucket/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    assert "must be an http or https URL" in command.fails("archive", "show", "s3://bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert re.search("s3://bucket/x at .* does not answer", command.fails("archive", "show", "s3://bucket/x"))
    assert "header is missing" in command.fails("archive", "show", "nothing")


def test_an_archive_on_arweave_needs_a_key_of_its_own_and_a_place_for_keys(
    command: Command, here: Path, kept: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ENGRAM_ARWEAVE_KEY_FILE and ENGRAM_ARWEAVE_FOLDER" in command.fails("archive", "show", "ar://memory")
    monkeypatch.setenv("ENGRAM_ARWEAVE_KEY_FILE", "key")
    monkeypatch.setenv("ENGRAM_ARWEAVE_FOLDER", "arweave")
    assert "64 hex digits" in command.fails("archive", "show", "ar://memory")
    (here / "key").write_text("11" * 32)
    (here / "key").chmod(0o644)
    assert "can be read by others" in command.fails("archive", "show", "ar://memory")
    (here / "key").chmod(0o600)
    for name in ("../../evil", "a/b", "x" * 65, "ä"):
        assert "is no name" in command.fails("archive", "show", f"ar://{name}", code=2)
    monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_WINC", "-1")
    assert "a whole number of winston credits" in command.fails("archive", "show", "ar://memory")
    monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_WINC", "1000")
    monkeypatch.setenv("ENGRAM_ARWEAVE_GATEWAY_URL", "arweave.net")
    assert "ENGRAM_ARWEAVE_GATEWAY_URL is" in command.fails("archive", "show", "ar://memory")
    monkeypatch.setenv("ENGRAM_ARWEAVE_GATEWAY_URL", "http://127.0.0.1:9")
    assert "does not answer" in command.fails("archive", "show", "ar://memory")
    for secret in (b"\x07" * 32, OWNER.private_key()[:32], OWNER.private_key()[32:]):
        (here / "key").write_text(secret.hex())
        assert "must be one of its own" in command.fails("archive", "create", "ar://memory", "--key", "owner")
        assert "must be one of its own" in command.fails("archive", "update", "node", "ar://memory", "--key", "owner")
    (here / "key").write_text("00" * 32)
    assert "not on secp256k1" in command.fails("archive", "show", "ar://memory")


@pytest.mark.parametrize("is_found", [True, False])
def test_an_archive_whose_making_was_not_answered_is_looked_for_and_its_shares_are_shown(
    command: Command, run: Run, here: Path, kept: Node, monkeypatch: pytest.MonkeyPatch, is_found: bool
) -> None:
    put = FolderPlace.put

    async def unanswered(place: FolderPlace, name: str, content: bytes) -> None:
        if is_found:
            await put(place, name, content)
        raise PlaceUnavailable("the disk does not answer")

    monkeypatch.setattr(FolderPlace, "put", unanswered)
    done = run("archive", "create", "shelf", "--key", "owner", "--opened-by", "shares", "--json")
    assert len(json.loads(done.out)["shares"]) == 3
    assert done.code == (0 if is_found else 1)
    assert is_found or "it is not known whether the archive was made" in done.err


@pytest.fixture
def arweave() -> Iterator[tuple[Arweave, str]]:
    """Arweave's services in a thread of their own, and their URL."""
    found, started, stop = Arweave(), SimpleQueue[str](), trio.Event()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(Responder(found.answer).run)
            token.append(trio.lowlevel.current_trio_token())
            started.put(url)
            await stop.wait()
            nursery.cancel_scope.cancel()

    token: list[trio.lowlevel.TrioToken] = []
    thread = Thread(target=trio.run, args=(serve,))
    thread.start()
    yield found, started.get(timeout=30)
    trio.from_thread.run_sync(stop.set, trio_token=token[0])
    thread.join(30)


def on_arweave(here: Path, monkeypatch: pytest.MonkeyPatch, url: str, most: str = "10000000") -> None:
    (here / "key").write_text("11" * 32)
    (here / "key").chmod(0o600)
    for name in ("GATEWAY", "UPLOAD", "PAYMENT"):
        monkeypatch.setenv(f"ENGRAM_ARWEAVE_{name}_URL", url)
    monkeypatch.setenv("ENGRAM_ARWEAVE_KEY_FILE", "key")
    monkeypatch.setenv("ENGRAM_ARWEAVE_FOLDER", "arweave")
    monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_WINC", most)


def test_the_owners_key_alone_restores_what_was_archived_with_its_keys_for_ever(
    command: Command, here: Path, kept: Node, monkeypatch: pytest.MonkeyPatch, arweave: tuple[Arweave, str]
) -> None:
    on_arweave(here, monkeypatch, arweave[1])
    command("archive", "create", "ar://memory", "--key", "owner", "--keys-forever")
    assert command("archive", "update", "node", "ar://memory", "--key", "owner")["can_erase"] is False
    refused = command.fails("archive", "shred", "node", "ar://memory", "--key", "owner")
    assert "nothing that was archived can be erased" in refused
    (here / "key").write_text("22" * 32)  # another's archive of the same name
    monkeypatch.setenv("ENGRAM_ARWEAVE_FOLDER", "another")
    command("archive", "create", "ar://memory", "--key", "stranger")
    for name in ("ENGRAM_ARWEAVE_KEY_FILE", "ENGRAM_ARWEAVE_FOLDER"):  # a new machine: the hotkey's words and a name
        monkeypatch.delenv(name)
    command("archive", "restore", "ar://memory", "new", "--key", "owner")
    assert content(here / "new") == content(here / "node")
    shown = command("archive", "show", "ar://memory", "--owner", OWNER.ss58)
    assert (shown["owner"], shown["can_erase"]) == (OWNER.ss58, False)
    assert "none is this owner's" in command.fails("archive", "check", "ar://elsewhere", "--key", "owner")


def test_without_its_folder_of_keys_an_archive_on_arweave_is_locked(
    command: Command, here: Path, kept: Node, monkeypatch: pytest.MonkeyPatch, arweave: tuple[Arweave, str]
) -> None:
    on_arweave(here, monkeypatch, arweave[1])
    command("archive", "create", "ar://memory", "--key", "owner")
    command("archive", "update", "node", "ar://memory", "--key", "owner")
    monkeypatch.delenv("ENGRAM_ARWEAVE_KEY_FILE")
    assert command("archive", "check", "ar://memory", "--key", "owner")["record"] == 4
    monkeypatch.delenv("ENGRAM_ARWEAVE_FOLDER")
    assert "the key of epoch 1 is not there" in command.fails("archive", "check", "ar://memory", "--key", "owner")
    assert "--keys-forever is for Arweave" in command.fails(
        "archive", "create", "shelf", "--key", "owner", "--keys-forever", code=2
    )


def test_what_an_update_costs_is_said_and_kept_within_the_limit(
    command: Command, run: Run, here: Path, kept: Node, monkeypatch: pytest.MonkeyPatch, arweave: tuple[Arweave, str]
) -> None:
    on_arweave(here, monkeypatch, arweave[1])
    command("archive", "create", "ar://memory", "--key", "owner")
    sent = arweave[0].sent
    monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_WINC", "1000")
    update = ("archive", "update", "node", "ar://memory", "--key", "owner")
    assert "at most 1000 are paid at once" in command.fails(*update)
    assert arweave[0].sent == sent
    monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_WINC", "1000000")
    done = run(*update)
    assert done.code == 0
    assert re.search(r"sending 3 parts, [0-9,]+ bytes, for [0-9,]+ winston credits", done.err)


def test_paying_in_usdc_needs_a_limit_a_network_and_a_node_of_it(
    command: Command, run: Run, here: Path, kept: Node, monkeypatch: pytest.MonkeyPatch, arweave: tuple[Arweave, str]
) -> None:
    on_arweave(here, monkeypatch, arweave[1], most="0")
    show = ("archive", "show", "ar://memory")
    for wrong in ("-1", "1e3", "0.0000001", "much"):
        monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_USDC", wrong)
        monkeypatch.setenv("ENGRAM_ARWEAVE_RPC_URL", f"{arweave[1]}/rpc")
        assert "it must be dollars with at most six decimals" in command.fails(*show)
    monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_USDC", "0.25")
    monkeypatch.setenv("ENGRAM_ARWEAVE_USDC_NETWORK", "engram-play")
    assert "must be base or base-sepolia" in command.fails(*show)
    monkeypatch.delenv("ENGRAM_ARWEAVE_USDC_NETWORK")
    monkeypatch.delenv("ENGRAM_ARWEAVE_RPC_URL")
    assert "a JSON-RPC node of base: it proves what became of a payment" in command.fails(*show)


def test_what_an_update_costs_in_usdc_is_said_and_kept_within_its_own_limit(
    command: Command, run: Run, here: Path, kept: Node, monkeypatch: pytest.MonkeyPatch, arweave: tuple[Arweave, str]
) -> None:
    on_arweave(here, monkeypatch, arweave[1], most="0")
    monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_USDC", "0.05")
    monkeypatch.setenv("ENGRAM_ARWEAVE_RPC_URL", f"{arweave[1]}/rpc")
    command("archive", "create", "ar://memory", "--key", "owner")  # the double takes it for nothing
    update = ("archive", "update", "node", "ar://memory", "--key", "owner")
    sent = arweave[0].sent
    assert re.search(r"cost 0\.[0-9]{6} USDC; at most 0\.050000 are paid at once", command.fails(*update))
    assert arweave[0].sent == sent
    monkeypatch.setenv("ENGRAM_ARWEAVE_MOST_USDC", "1")
    done = run(*update)
    assert done.code == 0
    assert re.search(r"sending 3 parts, [0-9,]+ bytes, for about 0\.[0-9]{6} USDC", done.err)


def test_a_node_is_restored_from_an_archive_as_from_a_backup(command: Command, here: Path, kept: Node) -> None:
    command("archive", "create", "shelf", "--key", "owner")
    command("archive", "update", "node", "shelf", "--key", "owner")
    command("miner", "restore", "shelf", "new", "--key", "owner")
    command("miner", "restore", "--from", "shelf", "--data", "newer", "--key", "owner")
    assert content(here / "new") == content(here / "newer") == content(here / "node")
    assert "is there already; --force" in command.fails("miner", "restore", "shelf", "new", "--key", "owner")
    assert "--owner" in command.fails("miner", "restore", "shelf", "other", code=2)
    with_owner = ("miner", "restore", "shelf", "other", "--owner", OWNER.ss58)
    assert "name its file with --key" in command.fails(*with_owner, code=2)
    ftp = ("miner", "restore", "ftp://shelf", "other", "--key", "owner")
    assert "no place for an archive" in command.fails(*ftp, code=2)
    command("miner", "backup", "node", "backup")
    assert "a backup needs neither a key" in command.fails(
        "miner", "restore", "backup", "other", "--key", "owner", code=2
    )
