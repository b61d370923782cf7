"""`engram wallet`: files as btcli lays them out, and no secret without --reveal."""

import base64
import binascii
import hashlib
import hmac
import json
from pathlib import Path

import pytest

from engram.hotkeys import Keypair
from tests.cli.conftest import Run

NAMED = ["--wallet.path", "wallets", "--wallet.name", "w", "--wallet.hotkey", "h"]


def test_a_wallet_is_made_with_its_files_and_modes(run: Run, here: Path) -> None:
    ran = run("wallet", "new", "--plain", "--json", *NAMED)
    assert ran.code == 0
    made = json.loads(ran.out)
    folder = here / "wallets" / "w"
    hotkey = json.loads((folder / "hotkeys" / "h").read_bytes())
    assert hotkey["ss58Address"] == made["hotkey"]
    assert json.loads((folder / "coldkeypub.txt").read_bytes())["ss58Address"] == made["coldkey"]
    assert json.loads((folder / "hotkeys" / "hpub.txt").read_bytes())["ss58Address"] == made["hotkey"]
    for path in (folder / "coldkey", folder / "hotkeys" / "h"):
        assert path.stat().st_mode & 0o777 == 0o600
    words = set(hotkey["secretPhrase"].split())
    assert len(words) > 6
    assert not any(hotkey[name] in ran.out for name in ("secretPhrase", "secretSeed", "privateKey"))
    assert Keypair.from_uri(hotkey["secretPhrase"]).ss58 == made["hotkey"]


def test_secrets_are_shown_when_they_are_asked_for(run: Run) -> None:
    made = json.loads(run("wallet", "new", "--plain", "--reveal", "--json", *NAMED).out)
    assert Keypair.from_uri(made["hotkey_mnemonic"]).ss58 == made["hotkey"]
    assert Keypair.from_uri(made["coldkey_mnemonic"]).ss58 == made["coldkey"]
    hidden = run("wallet", "show", *NAMED)
    assert "private" not in hidden.out
    shown = json.loads(run("wallet", "show", "--reveal", "--json", *NAMED).out)
    assert Keypair(bytes.fromhex(shown["hotkey_private_key"][2:])).ss58 == made["hotkey"]


def test_nothing_that_is_there_is_replaced(run: Run, here: Path) -> None:
    assert run("wallet", "new", "--plain", *NAMED).code == 0
    before = (here / "wallets" / "w" / "hotkeys" / "h").read_bytes()
    ran = run("wallet", "new", "--plain", *NAMED)
    assert (ran.code, "exists already" in ran.err) == (1, True)
    assert (here / "wallets" / "w" / "hotkeys" / "h").read_bytes() == before
    coldkey = (here / "wallets" / "w" / "coldkey").read_bytes()
    assert run("wallet", "new", "--plain", *NAMED[:-1], "second").code == 0
    assert (here / "wallets" / "w" / "coldkey").read_bytes() == coldkey


def test_a_signature_is_made_and_judged(run: Run) -> None:
    made = json.loads(run("wallet", "new", "--plain", "--json", *NAMED).out)
    signed = json.loads(run("wallet", "sign", "a message", "--json", *NAMED).out)
    judged = ["--hotkey", made["hotkey"], "--signature", "0x" + signed["signature"]]
    assert run("wallet", "verify", "a message", *judged).out == "valid\n"
    ran = run("wallet", "verify", "another message", *judged)
    assert (ran.code, ran.out) == (1, "not valid\n")
    assert run("wallet", "verify", "x", "--hotkey", "5X", "--signature", "00").code == 2


@pytest.mark.parametrize("signature", ["", "zz", "0x" + "ab" * 63, "ab" * 64 + "c", "g" * 128])
def test_a_signature_that_is_none_is_told_as_such_and_not_as_wrong(run: Run, signature: str) -> None:
    ran = run("wallet", "verify", "x", "--hotkey", Keypair.from_uri("//Alice").ss58, "--signature", signature)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"engram: --signature: not 128 hex digits, but {len(signature)} characters\n"


def test_whose_words_were_not_shown_is_told_where_they_are(run: Run) -> None:
    assert "--reveal" in run("wallet", "new", "--plain", *NAMED).err
    assert run("wallet", "new", "--plain", "--reveal", *NAMED[:-1], "second").err == ""


def test_an_encrypted_hotkey_is_shown_by_its_public_file_and_signs_with_its_password_only(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENGRAM_WALLET_PASSWORD", raising=False)
    made = json.loads(run("wallet", "new", "--plain", "--json", *NAMED).out)
    (here / "wallets" / "w" / "hotkeys" / "h").write_bytes(b"$NACL, and what nobody deciphers here")
    shown = run("wallet", "show", "--json", *NAMED)
    assert json.loads(shown.out)["hotkey"] == made["hotkey"]
    for wanting in (("sign", "a message"), ("show", "--reveal")):
        ran = run("wallet", *wanting, *NAMED)
        assert (ran.code, "ENGRAM_WALLET_PASSWORD" in ran.err) == (1, True)
    (here / "wallets" / "w" / "hotkeys" / "hpub.txt").unlink()
    assert "is encrypted" in run("wallet", "show", *NAMED).err


def test_a_hotkey_whose_file_is_elsewhere_is_shown_by_its_public_file(run: Run, here: Path) -> None:
    made = json.loads(run("wallet", "new", "--plain", "--json", *NAMED).out)
    path = here / "wallets" / "w" / "hotkeys" / "h"
    path.unlink()
    assert json.loads(run("wallet", "show", "--json", *NAMED).out)["hotkey"] == made["hotkey"]
    assert f"there is no key file {Path('wallets') / 'w' / 'hotkeys' / 'h'}" in run("wallet", "sign", "x", *NAMED).err


def test_a_plain_hotkey_that_others_may_read_is_not_shown_by_its_public_file(run: Run, here: Path) -> None:
    run("wallet", "new", "--plain", *NAMED)
    (here / "wallets" / "w" / "hotkeys" / "h").chmod(0o640)
    ran = run("wallet", "show", *NAMED)
    assert (ran.code, "chmod 600" in ran.err) == (1, True)


@pytest.mark.nightly
def test_a_hotkey_is_made_encrypted_and_signs_with_its_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_WALLET_PASSWORD", "correct horse")
    made = json.loads(run("wallet", "new", "--plain", "--encrypt-hotkey", "--json", *NAMED).out)
    signed = json.loads(run("wallet", "sign", "a message", "--json", *NAMED).out)
    assert signed["hotkey"] == made["hotkey"]
    monkeypatch.setenv("ENGRAM_WALLET_PASSWORD", "wrong")
    assert "wrong password" in run("wallet", "sign", "a message", *NAMED).err


@pytest.mark.parametrize("start", [b"$ANSIBLE_VAULT;1.1;AES256\n6132", b"gAAAAABkZm9v"])
def test_an_old_encryption_is_refused_with_the_command_that_converts_it(run: Run, here: Path, start: bytes) -> None:
    path = here / "wallets" / "w" / "hotkeys" / "h"
    path.parent.mkdir(parents=True)
    path.write_bytes(start)
    path.chmod(0o600)
    ran = run("wallet", "show", *NAMED)
    assert ran.code == 1
    assert f"engram wallet convert {Path('wallets') / 'w' / 'hotkeys' / 'h'}" in ran.err


def test_a_password_is_asked_for_on_a_terminal_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGRAM_WALLET_PASSWORD", raising=False)
    ran = run("wallet", "new", *NAMED)
    assert (ran.code, "ENGRAM_WALLET_PASSWORD" in ran.err) == (1, True)
    monkeypatch.setenv("ENGRAM_WALLET_PASSWORD", "")
    assert "empty password" in run("wallet", "new", *NAMED).err
    assert "empty password" in run("wallet", "new", "--plain", "--encrypt-hotkey", *NAMED).err


@pytest.mark.nightly
def test_an_encrypted_coldkey_pays_and_a_wrong_password_does_not_open_it(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engram.hotkeys import WrongPassword
    from engram.hotkeys.wallet_folder import WalletFolder

    monkeypatch.setenv("ENGRAM_WALLET_PASSWORD", "correct horse")
    made = json.loads(run("wallet", "new", "--json", *NAMED).out)
    folder = WalletFolder("w", "h", here / "wallets")
    assert folder.coldkey_path.read_bytes().startswith(b"$NACL")
    assert folder.coldkey("correct horse").ss58 == made["coldkey"]
    with pytest.raises(WrongPassword):
        folder.coldkey("wrong")
    assert run("wallet", "convert", str(folder.coldkey_path)).out.strip().endswith("needs no conversion")


def ansible_vault(content: bytes, password: str) -> bytes:
    """As ansible-vault 1.1 encrypts: PBKDF2, AES-256 in counter mode, HMAC, hex of hex."""
    from Crypto.Cipher import AES
    from Crypto.Util import Counter
    from Crypto.Util.Padding import pad

    salt = bytes(range(32))
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 10_000, 80)
    counter = Counter.new(128, initial_value=int.from_bytes(key[64:80], "big"))
    ciphered = AES.new(key[:32], AES.MODE_CTR, counter=counter).encrypt(pad(content, 16))
    digest = hmac.new(key[32:64], ciphered, hashlib.sha256).digest()
    text = binascii.hexlify(b"\n".join(binascii.hexlify(part) for part in (salt, digest, ciphered)))
    lines = [text[start : start + 80] for start in range(0, len(text), 80)]
    return b"\n".join([b"$ANSIBLE_VAULT;1.1;AES256", *lines, b""])


@pytest.mark.nightly
def test_a_vault_file_is_converted_and_then_opens(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engram.hotkeys.wallet_folder import WalletFolder

    made = json.loads(run("wallet", "new", "--plain", "--json", *NAMED).out)
    folder = WalletFolder("w", "h", here / "wallets")
    old = ansible_vault(folder.coldkey_path.read_bytes(), "horse")
    folder.coldkey_path.write_bytes(old)
    monkeypatch.setenv("ENGRAM_WALLET_PASSWORD", "battery")
    assert run("wallet", "convert", str(folder.coldkey_path)).code == 1
    monkeypatch.setenv("ENGRAM_WALLET_PASSWORD", "horse")
    ran = run("wallet", "convert", str(folder.coldkey_path))
    assert (ran.code, "current form" in ran.out) == (0, True), ran.err
    assert folder.coldkey_path.read_bytes().startswith(b"$NACL")
    assert folder.coldkey("horse").ss58 == made["coldkey"]
    kept = folder.coldkey_path.with_name("coldkey.before-conversion-1")
    assert kept.read_bytes() == old
    assert str(kept) in ran.out


@pytest.mark.nightly
def test_a_vault_of_yaml_is_told_as_no_key_and_stays_as_it_is(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = here / "coldkey"
    path.write_bytes(old := ansible_vault(b"secretPhrase: bottom drive obey\n", "horse"))
    monkeypatch.setenv("ENGRAM_WALLET_PASSWORD", "horse")
    ran = run("wallet", "convert", str(path))
    assert (ran.code, "neither JSON nor a seed; nothing was changed" in ran.err) == (1, True), ran.err
    assert path.read_bytes() == old
    assert list(here.iterdir()) == [path]


def fernet(content: bytes, password: str) -> bytes:
    """As the wallets of 2021 encrypted: PBKDF2 with a fixed salt, then Fernet (AES-128-CBC, HMAC-SHA-256)."""
    from Crypto.Cipher import AES
    from Crypto.Util.Padding import pad

    salt = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins"
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 10_000_000, 32)
    iv = bytes(range(16))
    token = b"\x80" + bytes(8) + iv + AES.new(key[16:], AES.MODE_CBC, iv).encrypt(pad(content, 16))
    return base64.urlsafe_b64encode(token + hmac.new(key[:16], token, hashlib.sha256).digest())


@pytest.mark.nightly
def test_a_fernet_file_is_converted_and_then_opens(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engram.hotkeys.wallet_folder import WalletFolder

    made = json.loads(run("wallet", "new", "--plain", "--json", *NAMED).out)
    folder = WalletFolder("w", "h", here / "wallets")
    old = fernet(folder.coldkey_path.read_bytes(), "horse")
    folder.coldkey_path.write_bytes(old)
    monkeypatch.setenv("ENGRAM_WALLET_PASSWORD", "horse")
    ran = run("wallet", "convert", str(folder.coldkey_path))
    assert (ran.code, "current form" in ran.out) == (0, True), ran.err
    assert folder.coldkey_path.read_bytes().startswith(b"$NACL")
    assert folder.coldkey("horse").ss58 == made["coldkey"]
    kept = folder.coldkey_path.with_name("coldkey.before-conversion-1")
    assert kept.read_bytes() == old
    assert str(kept) in ran.out
