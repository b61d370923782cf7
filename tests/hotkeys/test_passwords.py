"""Where the password of an encrypted key file comes from, and what is said when it is nowhere."""

import shutil
from pathlib import Path

import pytest
import trio

from engram.hotkeys import Keypair, WalletEncrypted, WalletFileError, opening, wallet
from engram.hotkeys.passwords import PASSWORD_VARIABLE, password_for

ENCRYPTED = Path(__file__).parent / "data" / "encrypted_hotkey"
PASSWORD = "pw-of-Tests9!"
SEED = bytes(range(32))
SETTING = "miner.hotkey_password_file"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "hot"
    shutil.copy(ENCRYPTED, path)
    path.chmod(0o600)
    return path


def password_file(folder: Path, content: bytes = b"from the file\n", mode: int = 0o600) -> Path:
    path = folder / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_file_comes_first_then_the_environment_then_the_terminal(key: Path, tmp_path: Path) -> None:
    environ, asked = {PASSWORD_VARIABLE: "from the environment"}, list[str]()

    def ask(question: str) -> str:
        asked.append(question)
        return "typed"

    assert password_for(key, str(password_file(tmp_path)), SETTING, environ, ask) == "from the file"
    assert password_for(key, "", SETTING, environ, ask) == "from the environment"
    assert asked == []
    assert password_for(key, "", SETTING, {}, ask) == "typed"
    assert asked == [f"password of the key file {key}: "]


def test_a_password_that_is_nowhere_is_asked_for_in_the_error(key: Path) -> None:
    with pytest.raises(WalletEncrypted, match=rf"{key} is encrypted.*{SETTING}, or set {PASSWORD_VARIABLE}$"):
        password_for(key, "", SETTING, {})
    with pytest.raises(WalletEncrypted, match=rf"in {SETTING}$"):
        password_for(key, "", SETTING, None)


def test_a_plain_or_missing_key_file_wants_none(tmp_path: Path) -> None:
    wallet.write_hotkey_file(tmp_path / "plain", Keypair.from_seed(SEED))
    for name in ("plain", "missing"):
        assert password_for(tmp_path / name, str(tmp_path / "none"), SETTING, {}) is None


@pytest.mark.parametrize(
    ("content", "password"), [(b"word", "word"), (b"word\r\n", "word"), (b" two words \n", " two words ")]
)
def test_the_line_end_alone_is_no_part_of_a_password(content: bytes, password: str, key: Path, tmp_path: Path) -> None:
    assert password_for(key, str(password_file(tmp_path, content)), SETTING, {}) == password


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"word", 0o640, "open to other users: chmod 600"),
        (b"", 0o600, "must hold one line"),
        (b"\n", 0o600, "must hold one line"),
        (b"secret one\nsecret two\n", 0o600, "must hold one line"),
        (b"x" * 5_000, 0o600, "must hold one line"),
        (b"\xff\xfe", 0o600, "is no UTF-8 text"),
    ],
)
def test_a_password_file_that_is_none_is_named_and_not_shown(
    content: bytes, mode: int, why: str, key: Path, tmp_path: Path
) -> None:
    path = password_file(tmp_path, content, mode)
    with pytest.raises(WalletFileError, match=why) as refused:
        password_for(key, str(path), SETTING, {})
    assert str(path) in str(refused.value)
    assert SETTING in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_password_file_that_is_missing_is_named(key: Path, tmp_path: Path) -> None:
    with pytest.raises(WalletFileError, match=r"cannot read the password file .*none.*No such file"):
        password_for(key, str(tmp_path / "none"), SETTING, {})


@pytest.mark.parametrize("head", [b"$ANSIBLE_VAULT;1.1;AES256\n6162", b"gAAAAABh0123"])
def test_an_old_encryption_is_refused_with_the_command_that_converts_it(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_bytes(head)
    path.chmod(0o600)
    with pytest.raises(WalletFileError, match=f"engram wallet convert {path}$"):
        wallet.read_private_hotkey_file(path, "any")


async def test_a_request_to_the_opening_process_that_is_refused_names_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_bytes(b"gAAAAABh0123")
    path.chmod(0o600)
    with pytest.raises(WalletFileError, match="engram wallet convert"):
        await opening.public_key_of(path, "any")


@pytest.mark.nightly
async def test_the_loop_goes_on_while_a_key_file_is_deciphered(key: Path) -> None:
    looked = 0

    async def look() -> None:
        nonlocal looked
        while True:
            await trio.sleep(0.01)
            looked += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        public_key = await opening.public_key_of(key, PASSWORD)
        nursery.cancel_scope.cancel()
    assert public_key == Keypair.from_seed(SEED).public_key
    assert looked > 20  # of some 200; in a thread it is 1: deciphering holds the interpreter lock
    with pytest.raises(WalletFileError, match="wrong password"):
        await opening.public_key_of(key, "not the one")
