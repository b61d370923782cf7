"""bittensor-wallet, the library of btcli, opens what we make, and we open what it makes."""

import base64
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bittensor_wallet
import pytest

from engram.hotkeys import Keypair, bittensor_core, key_content, key_files, passwords, restoring, wallet, wallet_folder
from engram.hotkeys.passwords import variables_of
from engram.hotkeys.wallet_folder import WalletFolder

WORDS = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"
PAIR, HOT = Keypair.from_uri(WORDS), Keypair.from_uri("//Bob")
PASSWORD = "pw-of-Tests9! ü"


def theirs(root: Path) -> Any:
    return bittensor_wallet.Wallet(name="my wallet", hotkey="h.k", path=str(root))


def ours(root: Path) -> WalletFolder:
    return WalletFolder("my wallet", "h.k", root)


def test_we_open_the_plain_wallet_that_it_makes(tmp_path: Path) -> None:
    made = theirs(tmp_path)
    made.regenerate_coldkey(mnemonic=WORDS, use_password=False, suppress=True)
    made.create_hotkey_from_uri("//Bob", suppress=True)
    folder = ours(tmp_path)
    assert (folder.coldkey(), folder.hotkey()) == (PAIR, HOT)
    assert (folder.coldkey_public(), folder.hotkey_public()) == (PAIR.public_key, HOT.public_key)


def test_it_opens_the_plain_wallet_that_we_make(tmp_path: Path) -> None:
    folder = ours(tmp_path)
    wallet_folder.write_new(folder.coldkey_path, WORDS, None)
    wallet_folder.write_public(folder.coldkey_public_path, PAIR)
    wallet.write_hotkey_file(folder.hotkey_path, HOT)
    wallet_folder.write_public(folder.hotkey_public_path, HOT)
    made = theirs(tmp_path)
    assert (made.coldkey.ss58_address, made.hotkey.ss58_address) == (PAIR.ss58, HOT.ss58)
    assert (made.coldkeypub.ss58_address, made.hotkeypub.ss58_address) == (PAIR.ss58, HOT.ss58)
    assert PAIR.public_key == made.coldkey.public_key


def test_it_opens_what_we_restore_from_words_a_path_and_a_seed(tmp_path: Path) -> None:
    for place, restored in enumerate(
        [restoring.from_words(WORDS, "//hard/soft"), restoring.from_seed("11" * 32), restoring.from_words(WORDS)]
    ):
        key_files.create(tmp_path / str(place), restored.content, restored.keypair.public_key)
        opened = bittensor_wallet.Keyfile(str(tmp_path / str(place))).get_keypair()
        assert opened.ss58_address == restored.keypair.ss58


def test_the_variable_that_it_sets_is_the_one_that_we_read(tmp_path: Path) -> None:
    keyfile = theirs(tmp_path).coldkey_file
    name = keyfile.env_var_name()
    assert name in set(variables_of(ours(tmp_path).coldkey_path))
    script = (
        "import subprocess, sys, bittensor_wallet as b\n"
        "b.Keyfile(sys.argv[1]).save_password_to_env(sys.argv[2])\n"
        "sys.stdout.buffer.write(subprocess.run(['env', '-0'], stdout=subprocess.PIPE).stdout)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(keyfile.path), PASSWORD], stdout=subprocess.PIPE, check=True, env={}
    )
    environ = dict(line.split("=", 1) for line in ran.stdout.decode().rstrip("\0").split("\0") if "=" in line)
    assert base64.b64decode(environ[name]) != PASSWORD.encode()
    ours(tmp_path).folder.mkdir()
    ours(tmp_path).coldkey_path.write_bytes(b"$NACL")
    assert passwords.password_for(ours(tmp_path).coldkey_path, "", "", environ, role="coldkey") == PASSWORD


def test_it_opens_a_key_that_is_encrypted_in_the_form_that_we_write(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    shutil.copy(Path(__file__).parent / "data" / "encrypted_hotkey", path)
    opened = bittensor_wallet.Keyfile(str(path)).get_keypair(password="pw-of-Tests9!")
    assert opened.ss58_address == Keypair.from_seed(bytes(range(32))).ss58


@pytest.mark.nightly
def test_it_opens_the_key_that_we_encrypt(tmp_path: Path) -> None:
    path = tmp_path / "coldkey"
    path.write_bytes(bittensor_core.encipher(key_content.content_of(PAIR), PASSWORD))
    assert bittensor_wallet.Keyfile(str(path)).get_keypair(password=PASSWORD).ss58_address == PAIR.ss58


@pytest.mark.nightly
def test_we_open_the_key_that_it_encrypts_and_the_one_that_it_encrypted_in_an_old_form(tmp_path: Path) -> None:
    made = theirs(tmp_path)
    made.regenerate_coldkey(mnemonic=WORDS, coldkey_password=PASSWORD, suppress=True)
    folder = ours(tmp_path)
    assert folder.coldkey(PASSWORD) == PAIR
    content = key_content.content_of(PAIR)
    folder.coldkey_path.write_bytes(bittensor_wallet.keyfile.legacy_encrypt_keyfile_data(content, PASSWORD))
    kept = wallet_folder.convert(folder.coldkey_path, PASSWORD)
    assert kept is not None
    assert kept.read_bytes().startswith(b"$ANSIBLE_VAULT")
    assert folder.coldkey(PASSWORD) == PAIR
    assert theirs(tmp_path).get_coldkey(password=PASSWORD).ss58_address == PAIR.ss58
