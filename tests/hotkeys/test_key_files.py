"""Files that hold a key are never lost: not by a conversion, not by a kill, not by a second writer."""

import ast
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from engram import files
from engram.hotkeys import Keypair, WalletFileError, key_content, key_files, wallet, wallet_folder

PAIR = Keypair.from_seed(bytes(range(32)))
OTHER = Keypair.from_uri("//Alice")
PASSWORD = "horse"
VAULT = b"$ANSIBLE_VAULT;1.1;AES256\n"


@pytest.fixture
def cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cipher that takes no time: the heads of the real forms before what is encrypted."""

    def decipher(content: bytes, password: str) -> bytes:
        assert password == PASSWORD
        return content.removeprefix(VAULT).removeprefix(b"$NACL")

    monkeypatch.setattr(key_content, "decipher", decipher)
    monkeypatch.setattr(wallet_folder, "encipher", lambda content, password: b"$NACL" + content)


def vault(folder: Path, content: bytes, public: Keypair | None = PAIR) -> Path:
    path = folder / "coldkey"
    path.write_bytes(VAULT + content)
    path.chmod(0o600)
    if public is not None:
        wallet_folder.write_public(folder / "coldkeypub.txt", public)
    return path


CONTENT = key_content.content_of(PAIR)


@pytest.mark.usefixtures("cipher")
def test_a_conversion_keeps_the_old_file_and_the_new_one_holds_the_same_key(tmp_path: Path) -> None:
    path = vault(tmp_path, CONTENT)
    path.chmod(0o644)
    kept = wallet_folder.convert(path, PASSWORD)
    assert kept == tmp_path / "coldkey.before-conversion-1"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (VAULT + CONTENT, 0o600)
    assert path.read_bytes().startswith(b"$NACL")
    assert wallet.read_private_hotkey_file(path, PASSWORD) == PAIR
    assert wallet_folder.convert(path, PASSWORD) is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["coldkey", kept.name, "coldkeypub.txt"]


@pytest.mark.usefixtures("cipher")
def test_a_second_conversion_keeps_the_files_that_the_first_one_kept(tmp_path: Path) -> None:
    first = wallet_folder.convert(vault(tmp_path, CONTENT), PASSWORD)
    (tmp_path / "coldkey").unlink()
    second = wallet_folder.convert(vault(tmp_path, b" " + CONTENT), PASSWORD)
    assert first is not None
    assert second is not None
    assert (first.read_bytes(), second.read_bytes()) == (VAULT + CONTENT, VAULT + b" " + CONTENT)


ADDRESS = OTHER.ss58.encode()


@pytest.mark.usefixtures("cipher")
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"secretPhrase: bottom drive obey\nsecretSeed: 0x00\n", "neither JSON nor a seed"),
        (b"", "neither JSON nor a seed"),
        (b"{}", "holds no private key"),
        (key_content.public_content_of(PAIR.public_key, PAIR.ss58), "holds no private key"),
        (CONTENT.replace(b'"cryptoType":1', b'"cryptoType":0'), "no sr25519 key"),
        (CONTENT.replace(PAIR.ss58.encode(), ADDRESS), "its address .* is not its key's"),
        (key_content.content_of(OTHER), "names another key"),
    ],
)
def test_what_holds_no_key_or_another_one_is_not_converted(tmp_path: Path, content: bytes, why: str) -> None:
    path = vault(tmp_path, content)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    with pytest.raises(WalletFileError, match=rf"{why}.*; nothing was changed"):
        wallet_folder.convert(path, PASSWORD)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("cipher")
@pytest.mark.parametrize(
    "spoiled", [b"", b"$NACL", b"$NACL" + CONTENT[:-9], b"$NACL" + key_content.content_of(OTHER), b"$NA"]
)
def test_a_new_form_that_does_not_give_the_key_back_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: bytes
) -> None:
    path = vault(tmp_path, CONTENT)
    monkeypatch.setattr(wallet_folder, "encipher", lambda content, password: spoiled)
    with pytest.raises(WalletFileError):
        wallet_folder.convert(path, PASSWORD)
    assert path.read_bytes() == VAULT + CONTENT
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["coldkey", "coldkeypub.txt"]


@pytest.mark.usefixtures("cipher")
def test_a_file_that_was_exchanged_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = vault(tmp_path, CONTENT)

    def while_another_writes(content: bytes, password: str) -> bytes:
        path.write_bytes(b"another")
        return b"$NACL" + content

    monkeypatch.setattr(wallet_folder, "encipher", while_another_writes)
    with pytest.raises(WalletFileError, match="changed meanwhile"):
        wallet_folder.convert(path, PASSWORD)
    assert path.read_bytes() == b"another"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["coldkey", "coldkeypub.txt"]


@pytest.mark.usefixtures("cipher")
def test_a_link_to_a_key_file_goes_on_naming_the_converted_file(tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    path = vault(tmp_path / "safe", CONTENT)
    (tmp_path / "link").symlink_to(path)
    assert wallet_folder.convert(tmp_path / "link", PASSWORD) == tmp_path / "safe" / "coldkey.before-conversion-1"
    assert (tmp_path / "link").is_symlink()
    assert wallet.read_private_hotkey_file(tmp_path / "link", PASSWORD) == PAIR


def test_a_public_file_that_names_another_key_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "hotpub.txt"
    wallet_folder.write_public(path, PAIR)
    wallet_folder.write_public(path, PAIR)
    with pytest.raises(WalletFileError, match=f"is of {PAIR.ss58}, not of {OTHER.ss58}"):
        wallet_folder.write_public(path, OTHER)
    assert wallet_folder.read_public_file(path) == PAIR.public_key
    path.write_bytes(b"no key")
    with pytest.raises(WalletFileError, match="names no public key"):
        wallet_folder.write_public(path, OTHER)


def test_a_new_file_that_does_not_hold_its_key_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(WalletFileError, match=f"is of {PAIR.ss58}"):
        key_files.create(tmp_path / "hot", CONTENT, OTHER.public_key)
    assert list(tmp_path.iterdir()) == []


HOTKEYS = Path(key_files.__file__).parent
COMMANDS = HOTKEYS.parent / "cli"
WRITING = {"os.replace", "os.rename", "os.link", "os.truncate", "files.put", "tempfile.mkstemp"}


def writes(path: Path) -> set[str]:
    """What of a module could put a file in place."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            name = f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else node.attr
            if name in WRITING or node.attr in ("write_bytes", "write_text", "rename"):
                found.add(name)
    return found


@pytest.mark.parametrize(
    "path",
    [*HOTKEYS.glob("*.py"), *COMMANDS.glob("wallet*.py"), COMMANDS / "hotkeys.py", COMMANDS / "passwords.py"],
    ids=lambda path: path.stem,
)
def test_of_what_deals_with_keys_one_module_alone_writes_files(path: Path) -> None:
    # The replay guard writes a time, and reads no key.
    allowed = {"key_files.py": {"files.put", "os.link", "os.replace"}, "replay_guard.py": {"files.put"}}
    assert writes(path) == allowed.get(path.name, set())


# a process that is killed

WATCHED = {files.__file__, key_files.__file__}


def killed_at(line: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that kills itself before the given line that it executes; False when it got to its end."""
    child = os.fork()
    if child == 0:
        left = line

        def count(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in WATCHED:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return count

        sys.settrace(count)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.usefixtures("cipher")
def test_a_kill_at_any_line_of_a_conversion_leaves_a_whole_file_that_opens(tmp_path: Path) -> None:
    line, stages = 1, set[bytes]()
    while True:
        folder = tmp_path / str(line)
        folder.mkdir()
        path = vault(folder, CONTENT)
        killed = killed_at(line, partial(wallet_folder.convert, path, PASSWORD))
        now = path.read_bytes()
        assert key_content.keypair(path, key_content.plain(path, now, PASSWORD)) == PAIR
        if now.startswith(b"$NACL"):
            assert (folder / "coldkey.before-conversion-1").read_bytes() == VAULT + CONTENT
        stages.add(now[:5])
        wallet_folder.convert(path, PASSWORD)
        assert wallet.read_private_hotkey_file(path, PASSWORD) == PAIR
        if not killed:
            break
        line += 1
    assert line > 20
    assert stages == {b"$ANSI", b"$NACL"}


def test_a_kill_at_any_line_of_a_new_file_leaves_it_whole_or_absent(tmp_path: Path) -> None:
    line, seen = 1, set[bool]()
    while True:
        path = tmp_path / str(line) / "hot"
        path.parent.mkdir()
        killed = killed_at(line, partial(wallet.write_hotkey_file, path, PAIR))
        seen.add(path.exists())
        if path.exists():
            assert wallet.read_private_hotkey_file(path) == PAIR
        if not killed:
            break
        line += 1
    assert line > 10
    assert seen == {False, True}


@pytest.mark.usefixtures("cipher")
def test_the_new_file_and_the_name_of_the_old_one_are_on_disk_before_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = vault(tmp_path, CONTENT)
    done: list[str] = []

    def noting(name: str) -> None:
        real = getattr(os, name)

        def noted(*args: Any, **options: Any) -> Any:
            of = f" {'folder' if os.path.isdir(f'/proc/self/fd/{args[0]}') else 'file'}" if name == "fsync" else ""
            done.append(name + of)
            return real(*args, **options)

        monkeypatch.setattr(os, name, noted)

    for name in ("fsync", "link", "replace"):
        noting(name)
    wallet_folder.convert(path, PASSWORD)
    assert done == ["fsync file", "link", "fsync folder", "replace", "fsync folder"]


def test_no_secret_is_in_the_repr_of_what_a_key_file_is_read_into() -> None:
    fields = key_content._KEY_FILE.decode(CONTENT)
    assert json.loads(CONTENT)["privateKey"] == fields.private_key
    assert str(fields.private_key) not in repr(fields)
