"""Where the password of an encrypted key file comes from, and what is said when it is nowhere."""

import base64
import os
import re
import shutil
from pathlib import Path

import pytest
import trio

from engram.hotkeys import Keypair, WalletEncrypted, WalletFileError, opening, wallet
from engram.hotkeys.passwords import PASSWORD_VARIABLE, password_for, unscrambled, variables_of

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
    with pytest.raises(
        WalletEncrypted, match=rf"{key} is encrypted.*{SETTING}, or set {PASSWORD_VARIABLE} or ENGRAM_HOTKEY_PASSWORD$"
    ):
        password_for(key, "", SETTING, {})
    with pytest.raises(WalletEncrypted, match=rf"in {SETTING}$"):
        password_for(key, "", SETTING, None)


def variable_of(path: Path) -> str:
    (name,) = set(variables_of(path))
    return name


def scrambled(name: str, password: str) -> str:
    mixed = bytes(byte ^ ord(name[place % len(name)]) for place, byte in enumerate(password.encode()))
    return base64.b64encode(mixed).decode()


def test_a_variable_of_bittensor_wallet_names_the_file_and_hides_the_password() -> None:
    path = Path("w2/W/coldkey")  # name and value as bittensor-wallet 4.1.1 made them
    assert next(variables_of(path)) == "BT_PW_W2_W_COLDKEY"
    assert unscrambled("BT_PW_W2_W_COLDKEY", "MiNyPzFyA1csIyx6bmyH9w==") == "pw-of-Tests9! ü"
    assert list(variables_of(Path("~/.b/my wallet-1/hotkeys/h.k"))) == [
        "BT_PW_~__B_MY WALLET-1_HOTKEYS_H_K",
        "BT_PW_" + str(Path.home()).replace("/", "_").upper() + "__B_MY WALLET-1_HOTKEYS_H_K",
    ]


@pytest.mark.parametrize("value", ["plain password", "!", "Zm9vYg", "//////////8="])
def test_a_variable_that_is_not_of_bittensor_wallet_is_named_and_not_shown(key: Path, value: str) -> None:
    name = variable_of(key)
    with pytest.raises(WalletFileError, match=re.escape(name)) as refused:
        password_for(key, "", SETTING, {name: value})
    assert value not in str(refused.value).replace(name, "")


def test_the_password_of_the_very_key_comes_before_one_for_all(key: Path) -> None:
    name = variable_of(key)
    environ = {
        "ENGRAM_HOTKEY_PASSWORD": "of hotkeys",
        name: scrambled(name, "of this file"),
        PASSWORD_VARIABLE: "of all",
        "ENGRAM_COLDKEY_PASSWORD": "of coldkeys",
    }
    assert password_for(key, "", SETTING, environ, role="coldkey") == "of coldkeys"
    assert password_for(key, "", SETTING, environ) == "of hotkeys"
    del environ["ENGRAM_HOTKEY_PASSWORD"]
    assert password_for(key, "", SETTING, environ) == "of this file"
    del environ[name]
    assert password_for(key, "", SETTING, environ) == "of all"


def test_each_password_that_a_descriptor_gives_is_one_line_of_it(key: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"of the coldkey\nof the hotkey\r\nno")
    os.close(writing)
    try:
        for expected in ("of the coldkey", "of the hotkey", "no"):
            assert password_for(key, "", SETTING, {}, descriptor=reading) == expected
        with pytest.raises(WalletFileError, match=rf"file descriptor {reading} \({SETTING}\) must hold one line"):
            password_for(key, "", SETTING, {}, descriptor=reading)
    finally:
        os.close(reading)
    with pytest.raises(WalletFileError, match="cannot read file descriptor 997"):
        password_for(key, "", SETTING, {}, descriptor=997)


def test_a_descriptor_that_is_a_terminal_is_refused_for_it_would_show_the_password(key: Path) -> None:
    parent, child = os.openpty()
    try:
        with pytest.raises(WalletFileError, match="is a terminal"):
            password_for(key, "", SETTING, {}, descriptor=child)
    finally:
        os.close(parent)
        os.close(child)


def test_a_descriptor_that_never_ends_its_line_is_given_up(key: Path) -> None:
    with Path("/dev/zero").open("rb") as file, pytest.raises(WalletFileError, match="must hold one line"):
        password_for(key, "", SETTING, {}, descriptor=file.fileno())


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
