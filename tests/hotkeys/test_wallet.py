import json
import os
import stat
from pathlib import Path

import bittensor_core
import pytest
from substrateinterface import Keypair as SubstrateKeypair

from engram.hotkeys import Keypair, WalletEncrypted, WalletFileError, WrongPassword, wallet, wallet_folder

SEED = bytes(range(32))
PHRASE = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"


def test_a_written_file_is_read_by_us_by_bittensor_and_by_substrate_interface(tmp_path: Path) -> None:
    pair = Keypair.generate()
    path = tmp_path / "wallets" / "node" / "hotkeys" / "default"
    wallet.write_hotkey_file(path, pair)
    assert wallet.read_hotkey_file(path) == pair
    assert bittensor_core.deserialize_keypair_from_keyfile_data(path.read_bytes()).ss58_address == pair.ss58
    fields = json.loads(path.read_bytes())
    theirs = SubstrateKeypair.create_from_private_key(fields["privateKey"], ss58_address=fields["ss58Address"])
    assert theirs.verify(b"message", pair.sign(b"message"))


def test_a_written_file_is_the_owners_alone_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "hot"
    wallet.write_hotkey_file(path, written := Keypair.generate())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert wallet.is_private(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["hot"]
    assert wallet.read_hotkey_file(path) == written
    path.chmod(0o644)
    assert not wallet.is_private(path)


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WalletFileError):
        wallet.write_hotkey_file(tmp_path / "file" / "hot", Keypair.generate())
    folder = tmp_path / "hot"
    folder.mkdir()
    with pytest.raises(WalletFileError):
        wallet.write_hotkey_file(folder, Keypair.generate())
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_files_of_seeds_phrases_and_private_keys_are_read(tmp_path: Path) -> None:
    seeded = bittensor_core.Keypair.create_from_seed(SEED)
    path = tmp_path / "hot"
    path.write_bytes(bittensor_core.serialized_keypair_to_keyfile_data(seeded))
    assert wallet.read_hotkey_file(path).ss58 == seeded.ss58_address
    path.write_text(json.dumps({"secretSeed": "0x" + SEED.hex()}))
    assert wallet.read_hotkey_file(path).ss58 == seeded.ss58_address
    path.write_text("0x" + SEED.hex() + "\n")
    assert wallet.read_hotkey_file(path).ss58 == seeded.ss58_address
    path.write_text(json.dumps({"secretPhrase": PHRASE, "privateKey": None, "cryptoType": 1}))
    assert wallet.read_hotkey_file(path).ss58 == SubstrateKeypair.create_from_mnemonic(PHRASE).ss58_address
    alice = bittensor_core.Keypair.create_from_uri("//Alice")
    path.write_bytes(bittensor_core.serialized_keypair_to_keyfile_data(alice))
    assert wallet.read_hotkey_file(path) == Keypair.from_uri("//Alice")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "hello",
        '{"privateKey": 5}',
        '{"privateKey": "0xzz"}',
        '{"privateKey": "0x00"}',
        json.dumps({"secretPhrase": "these words are nothing"}),
        json.dumps({"publicKey": "0x" + "11" * 32, "ss58Address": "5x"}),
        json.dumps({"secretSeed": "0x" + SEED.hex(), "cryptoType": 0}),
        json.dumps(
            {"secretSeed": "0x" + SEED.hex(), "ss58Address": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"}
        ),
        "x" * 70_000,
    ],
)
def test_a_damaged_file_is_refused_by_name_and_without_its_content(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hot"
    path.write_text(content)
    with pytest.raises(WalletFileError) as refused:
        wallet.read_hotkey_file(path)
    assert str(path) in str(refused.value)
    assert SEED.hex() not in str(refused.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WalletFileError, match="there is no key file"):
        wallet.read_hotkey_file(tmp_path / "hot")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_who_signs_with_a_file_wants_it_to_be_the_owners_alone(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "hot"
    wallet.write_hotkey_file(path, Keypair.from_seed(SEED))
    assert wallet.read_private_hotkey_file(path) == Keypair.from_seed(SEED)
    path.chmod(mode)
    with pytest.raises(WalletFileError, match=f"chmod 600 {path}"):
        wallet.read_private_hotkey_file(path)
    with pytest.raises(WalletFileError, match="there is no key file"):
        wallet.read_private_hotkey_file(tmp_path / "none")


def test_an_encrypted_file_wants_its_password(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_bytes(b"$NACL" + bytes(100))
    with pytest.raises(WalletEncrypted):
        wallet.read_hotkey_file(path)
    path.write_bytes(b"$ANSIBLE_VAULT;1.1")
    with pytest.raises(WrongPassword):
        wallet.read_hotkey_file(path, password="wrong")


def test_an_encrypted_file_opens_with_its_password() -> None:
    """The file was made by bittensor-core 0.1.5; its key derivation takes seconds by design."""
    path = Path(__file__).parent / "data" / "encrypted_hotkey"
    assert wallet.read_hotkey_file(path, password="pw-of-Tests9!") == Keypair.from_seed(SEED)


def test_a_new_file_is_never_written_over_one_made_in_between(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    first = Keypair.generate()
    wallet.write_hotkey_file(path, first)
    for there in (path, tmp_path / "link"):
        if there != path:
            there.symlink_to(tmp_path / "nowhere")
        with pytest.raises(WalletFileError, match="exists already"):
            wallet.write_hotkey_file(there, Keypair.generate())
    assert wallet.read_hotkey_file(path) == first
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["hot", "link"]


def test_two_that_make_one_wallet_at_once_do_not_lose_the_key_of_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "coldkey"
    other = Keypair.generate()

    def while_another_is_quicker(content: bytes, password: str) -> bytes:
        wallet.write_hotkey_file(path, other)
        return content

    monkeypatch.setattr(wallet_folder, "encipher", while_another_is_quicker)
    with pytest.raises(WalletFileError, match="exists already"):
        wallet_folder.write_new(path, PHRASE, "a password")
    assert wallet.read_hotkey_file(path) == other


def test_a_pipe_is_no_key_file_and_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    for each in (path, tmp_path):
        with pytest.raises(WalletFileError):
            wallet.read_private_hotkey_file(each)


def test_the_mode_that_counts_is_that_of_the_file_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, loose = tmp_path / "hot", tmp_path / "loose"
    wallet.write_hotkey_file(path, Keypair.generate())
    wallet.write_hotkey_file(loose, Keypair.generate())
    loose.chmod(0o644)
    opening = os.open

    def after_an_exchange(name: str, flags: int) -> int:
        os.replace(loose, path)
        return opening(name, flags)

    monkeypatch.setattr(os, "open", after_an_exchange)
    with pytest.raises(WalletFileError, match="open to other users"):
        wallet.read_private_hotkey_file(path)


def test_a_key_of_zeros_is_none(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_text(json.dumps({"privateKey": "0x" + "00" * 64}))
    with pytest.raises(WalletFileError, match="no usable private key"):
        wallet.read_hotkey_file(path)


def test_a_file_with_bytes_that_are_no_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_bytes(b'{"privateKey": "\xff", "ss58Address": "\xff"}')
    for read in (wallet.read_hotkey_file, wallet_folder.read_public_file):
        with pytest.raises(WalletFileError, match=str(path)):
            read(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_does_not_damage_a_key_file(tmp_path: Path, mark: bytes) -> None:
    pair = Keypair.from_seed(SEED)
    wallet.write_hotkey_file(tmp_path / "hot", pair)
    wallet_folder.write_public(tmp_path / "hotpub.txt", pair)
    for path in (tmp_path / "hot", tmp_path / "hotpub.txt"):
        path.write_bytes(mark + path.read_bytes())
    assert wallet.read_private_hotkey_file(tmp_path / "hot") == pair
    assert wallet_folder.read_public_file(tmp_path / "hotpub.txt") == pair.public_key
