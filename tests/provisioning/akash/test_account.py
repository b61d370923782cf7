import copy
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram import files
from engram.provisioning.akash import account, bech32
from engram.provisioning.akash.errors import MalformedAddress, UnusableKey
from tests.provisioning.akash.vectors import public_mnemonic, vectors

_PEER = vectors("peer-tx-vectors")
_SECRET = account.secret_of(public_mnemonic())
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def test_key_and_address_of_a_mnemonic_are_those_of_cosmjs() -> None:
    signer = account.Signer(_SECRET)
    assert signer.public_key.hex() == _PEER["pubkey"]
    assert signer.address == _PEER["owner"]


def test_a_mnemonic_may_be_written_with_other_spaces_and_capitals() -> None:
    assert account.secret_of(f"\n {public_mnemonic().upper().replace(' ', '  ')}\n") == _SECRET


@pytest.mark.parametrize("words", ["", "akash", "abandon " * 12, public_mnemonic() + " alien", "zoo " * 24])
def test_words_that_are_no_mnemonic_are_refused_and_not_repeated(words: str) -> None:
    with pytest.raises(UnusableKey) as refused:
        account.secret_of(words)
    assert f"{len(words.split())} words" in str(refused.value)
    assert "abandon" not in str(refused.value)


def test_a_signer_shows_its_address_and_nothing_of_its_key() -> None:
    signer = account.Signer(_SECRET)
    assert repr(signer) == str(signer) == f"Signer({signer.address})"
    shown = [repr(getattr(signer, name)) for name in dir(signer) if not name.startswith("__")]
    assert not any(_SECRET.hex() in text or repr(_SECRET) in text for text in shown)
    for taking in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            taking(signer)


@pytest.mark.parametrize("secret", [bytes(32), _ORDER.to_bytes(32), b"short", bytes(33)])
def test_what_is_no_key_is_refused(secret: bytes) -> None:
    with pytest.raises(UnusableKey, match="no secp256k1 key"):
        account.Signer(secret)


@given(st.binary(max_size=100))
def test_signatures_are_deterministic_low_and_verify(message: bytes) -> None:
    signer = account.Signer(_SECRET)
    signature = signer.sign(message)
    assert signature == signer.sign(message)
    assert account.verify(signature, message, signer.public_key)
    assert not account.verify(signature, message + b"!", signer.public_key)
    high = signature[:32] + (_ORDER - int.from_bytes(signature[32:])).to_bytes(32)
    assert not account.verify(high, message, signer.public_key)
    assert not account.verify(signature[:-1], message, signer.public_key)
    assert not account.verify(signature, message, b"\2" + bytes(32))


# ------------------------------------------------------------------------------------------------------ addresses


@given(st.binary(min_size=20, max_size=20) | st.binary(min_size=32, max_size=32))
def test_an_address_is_read_back(content: bytes) -> None:
    address = bech32.encode(content)
    assert bech32.decode(address) == content
    assert len(address) == (44 if len(content) == 20 else 64)


@given(st.binary(min_size=20, max_size=20), st.data())
def test_one_wrong_character_is_noticed(content: bytes, data: st.DataObject) -> None:
    address = bech32.encode(content)
    at = data.draw(st.integers(0, len(address) - 1))
    other = data.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l1bAß").filter(lambda one: one != address[at]))
    with pytest.raises(MalformedAddress):
        bech32.decode(address[:at] + other + address[at + 1 :])


@pytest.mark.parametrize(
    "address",
    [
        "",
        "akash1",
        "cosmos1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh",
        _PEER["owner"].upper(),
        bech32.encode(b"short"),
        bech32.encode(bytes(20), "cosmos"),
        bech32.encode(bytes(21)),
    ],
)
def test_text_that_is_no_address_here_is_refused(address: str) -> None:
    with pytest.raises(MalformedAddress, match=r"address|mistyped"):
        bech32.decode(address)


def test_the_address_of_an_auditor_of_the_chain_is_read() -> None:
    assert len(bech32.decode("akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63")) == 20


# ------------------------------------------------------------------------------------------------------ key files


@pytest.mark.parametrize("text", [public_mnemonic(), _SECRET.hex(), f"0x{_SECRET.hex().upper()}\n"])
def test_a_key_file_holds_words_or_the_key_itself(tmp_path: Path, text: str) -> None:
    path = tmp_path / "new folder" / "akash.key"
    assert account.write_key_file(path, text).address == _PEER["owner"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert account.read_key_file(path).address == _PEER["owner"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "akash.key"
    account.write_key_file(path, public_mnemonic())
    path.chmod(mode)
    with pytest.raises(UnusableKey, match=f"{path} can be read by others: chmod 600 it"):
        account.read_key_file(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"ab" * 31, b"words " * 1000, bytes(64).hex().encode()])
def test_a_damaged_key_file_is_named_and_its_content_is_not(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "akash.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UnusableKey, match=r"akash.key") as refused:
        account.read_key_file(path)
    assert not content or content.decode(errors="replace") not in str(refused.value)


def test_a_key_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "akash.key"
    account.write_key_file(path, public_mnemonic())
    with pytest.raises(UnusableKey, match="exists already"):
        account.write_key_file(path, hashlib.sha256(b"other").hexdigest())
    assert account.read_key_file(path).address == _PEER["owner"]
    assert [one.name for one in tmp_path.iterdir()] == ["akash.key"]


def test_nothing_is_written_for_what_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(UnusableKey):
        account.write_key_file(tmp_path / "akash.key", "not a mnemonic")
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableKey, match=r"cannot write .*akash\.key"):
        account.write_key_file(tmp_path / "file" / "akash.key", public_mnemonic())


def test_a_key_that_is_not_on_disk_as_it_was_written_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(path: Path, content: bytes, placing: object, check: Callable[[bytes], None]) -> None:
        check(hashlib.sha256(content).hexdigest().encode())

    monkeypatch.setattr(files, "put", put)
    with pytest.raises(UnusableKey, match="could not be read back"):
        account.write_key_file(tmp_path / "akash.key", public_mnemonic())


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableKey, match=r"none.key cannot be read: No such file or directory"):
        account.read_key_file(tmp_path / "none.key")


def test_new_words_make_a_new_account_each_time() -> None:
    first, second = account.generate_mnemonic(), account.generate_mnemonic()
    assert len(first.split()) == 24
    assert account.Signer(account.secret_of(first)).address != account.Signer(account.secret_of(second)).address


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(UnusableKey, match=name):
            account.read_key_file(tmp_path / name)
