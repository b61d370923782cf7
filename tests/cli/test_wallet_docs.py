"""The lines of docs/wallets.md do what the page says, in the order in which they stand there."""

import base64
import json
import re
import shlex
from pathlib import Path

import pytest

from engram.cli.wallet import passwords
from engram.hotkeys import Keypair, key_content, wallet, wallet_folder
from engram.hotkeys.wallet_folder import WalletFolder
from tests.cli.conftest import Run
from tests.cli.test_wallet_import import PAIR, RECORDED, SEED, WORDS

PAGE = Path(__file__).parents[2] / "docs" / "wallets.md"
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
VAULT = b"$ANSIBLE_VAULT;1.1;AES256\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encryption that takes no time, and a terminal at which the words and a password are typed."""
    monkeypatch.setattr(wallet_folder, "encipher", lambda content, password: b"$NACL" + base64.b64encode(content))
    monkeypatch.setattr(
        key_content,
        "decipher",
        lambda content, password: (
            base64.b64decode(content[5:]) if content.startswith(b"$NACL") else content.removeprefix(VAULT)
        ),
    )
    typed = {"the 12 or 24 words (hidden): ": WORDS}
    monkeypatch.setattr(passwords, "at_terminal", lambda: lambda question: typed.get(question, "a password"))


@pytest.mark.usefixtures("quick")
def test_the_lines_of_the_page_work(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    for name, text in (("words", WORDS), ("seed", SEED), ("password", RECORDED["password"])):
        (here / name).write_text(text)
        (here / name).chmod(0o600)
    (here / "key.json").write_text(json.dumps(RECORDED["keystores"]["words"]))
    (here / "old").mkdir()
    (here / "old" / "coldkey").write_bytes(VAULT + key_content.content_of(PAIR))
    assert len(LINES) >= 10
    for line in LINES:
        command = shlex.split(line)
        assert command[0] == "engram"
        ran = run(*command[1:])
        assert ran.code == 0, (line, ran.err)
        assert WORDS.split()[0] not in ran.out
    root = here / ".bittensor" / "wallets"
    expected = {
        ("restored", "coldkey"): PAIR,
        ("derived", "hotkey"): Keypair.from_uri(WORDS + "//hard/soft"),
        ("seeded", "hotkey"): Keypair.from_seed(bytes.fromhex(SEED)),
        ("browser", "hotkey"): PAIR,
    }
    for (name, role), pair in expected.items():
        folder = WalletFolder(name, "default", root)
        assert (folder.coldkey("") if role == "coldkey" else folder.hotkey()) == pair
    assert WalletFolder("watched", "default", root).coldkey_public() == Keypair.from_uri("//Alice").public_key
    assert wallet.read_private_hotkey_file(here / "old" / "coldkey", "") == PAIR
    assert (here / "old" / "coldkey.before-conversion-1").read_bytes().startswith(VAULT)
