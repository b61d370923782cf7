"""`engram wallet import`, `check` and `export`: keys come back from what their owners wrote down, and are in order."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engram.hotkeys import Keypair, WrongPassword, key_content, polkadot_keystore, wallet, wallet_folder
from tests.cli.conftest import Ran, Run
from tests.terminal import OnTerminal

DATA = Path(__file__).parents[1] / "hotkeys" / "data"
RECORDED: Any = json.loads((DATA / "polkadot_js.json").read_bytes())
WORDS: str = RECORDED["uris"][0]["secret"]
PAIR, OTHER = Keypair.from_uri(WORDS), Keypair.from_uri("//Alice")
DERIVED = Keypair.from_uri(WORDS + "//hard/soft")
SEED = "11" * 32
NAMED = ["--wallet.path", "wallets", "--wallet.name", "w", "--wallet.hotkey", "h"]
COMMAND = (sys.executable, "-c", "import sys; from engram.cli import main; sys.exit(main(sys.argv[1:]))")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cipher that takes no time, with the password before what is encrypted."""

    def decipher(content: bytes, password: str) -> bytes:
        head = b"$NACL" + password.encode() + b":"
        if not content.startswith(head):
            raise WrongPassword("wrong password for the key file")
        return content.removeprefix(head)

    monkeypatch.setattr(key_content, "decipher", decipher)
    monkeypatch.setattr(
        wallet_folder, "encipher", lambda content, password: b"$NACL" + password.encode() + b":" + content
    )


@pytest.fixture
def secret(here: Path) -> Callable[..., Path]:
    """Writes a secret into a file of mode 0600."""

    def write(text: str, name: str = "secret") -> Path:
        path = here / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def path_of(here: Path, role: str) -> Path:
    return here / "wallets" / "w" / ("coldkey" if role == "coldkey" else "hotkeys/h")


def imported(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    return document


def files(here: Path) -> list[str]:
    root = here / "wallets"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("role", ["coldkey", "hotkey"])
@pytest.mark.parametrize(
    ("kind", "text", "derive", "pair"),
    [
        ("words", WORDS, "", PAIR),
        ("words", WORDS, "//hard/soft", DERIVED),
        ("words", WORDS + "//hard/soft\n", "", DERIVED),
        ("seed", SEED, "", Keypair.from_seed(bytes.fromhex(SEED))),
        ("seed", "0x" + SEED + "//0", "", Keypair.from_uri(f"0x{SEED}//0")),
    ],
)
def test_a_key_comes_back_from_words_or_a_seed(
    role: str, kind: str, text: str, derive: str, pair: Keypair, run: Run, here: Path, secret: Callable[..., Path]
) -> None:
    more = ["--as", role, "--no-encrypt", "--secret-file", str(secret(text)), "--derive", derive, "--json"]
    told = imported(run("wallet", "import", kind, *more, *NAMED))
    path = path_of(here, role)
    assert told == {
        "key": role,
        "address": pair.ss58,
        "public_key": pair.public_key.hex(),
        "file": str(path.relative_to(here)),
        "encrypted": False,
    }
    assert wallet.read_private_hotkey_file(path) == pair
    assert wallet_folder.read_public_file(path.with_name(f"{path.name}pub.txt")) == pair.public_key


def test_a_secret_is_the_next_line_of_a_descriptor_and_not_a_byte_more(run: Run, here: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, f"{WORDS}\nthe rest".encode())
    os.close(writing)
    told = run("wallet", "import", "words", "--as", "hotkey", "--secret-fd", str(reading), "--json", *NAMED)
    assert imported(told)["address"] == PAIR.ss58
    assert os.read(reading, 100) == b"the rest"
    os.close(reading)


@pytest.mark.usefixtures("cipher")
def test_a_coldkey_is_encrypted_and_a_hotkey_is_not_unless_one_says_so(
    run: Run, here: Path, secret: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGRAM_COLDKEY_PASSWORD", "of the coldkey")
    words, password = secret(WORDS), secret("of the hotkey", "password")
    for role, more in (("coldkey", []), ("hotkey", ["--encrypt", "--hotkey-password-file", str(password)])):
        told = run("wallet", "import", "words", "--as", role, "--secret-file", str(words), "--json", *more, *NAMED)
        assert imported(told)["encrypted"]
        assert wallet.read_private_hotkey_file(path_of(here, role), f"of the {role}") == PAIR
    assert {name: key["opened"] for name, key in checked(run)[1].items()} == {"coldkey": True, "hotkey h": False}
    monkeypatch.setenv("ENGRAM_HOTKEY_PASSWORD", "of the hotkey")
    assert {name: key["opened"] for name, key in checked(run)[1].items()} == {"coldkey": True, "hotkey h": True}


@pytest.mark.parametrize("name", ["words", "derived", "polkadot", "plain"])
def test_a_keystore_of_polkadot_js_is_imported(name: str, run: Run, here: Path, secret: Callable[..., Path]) -> None:
    (here / "key.json").write_text(json.dumps(RECORDED["keystores"][name]))
    more = ["--as", "hotkey", "--keystore-password-file", str(secret(RECORDED["password"] + "\n")), "--json"]
    told = imported(run("wallet", "import", "keystore", "key.json", *more, *NAMED))
    assert told["address"] == (DERIVED if name == "derived" else PAIR).ss58
    assert wallet.read_private_hotkey_file(path_of(here, "hotkey")).ss58 == told["address"]


def test_a_keystore_that_does_not_open_makes_no_file(run: Run, here: Path, secret: Callable[..., Path]) -> None:
    (here / "key.json").write_text(json.dumps(RECORDED["keystores"]["words"]))
    more = ["--as", "hotkey", "--keystore-password-file", str(secret("no such password"))]
    ran = run("wallet", "import", "keystore", "key.json", *more, *NAMED)
    assert (ran.code, ran.err) == (1, "engram: key.json: wrong password for the keystore\n")
    assert files(here) == []


@pytest.mark.parametrize("role", ["coldkey", "hotkey"])
@pytest.mark.parametrize("form", ["address", "hex", "file"])
def test_a_public_key_alone_makes_the_public_file_alone(role: str, form: str, run: Run, here: Path) -> None:
    wallet_folder.write_public(here / "pub.txt", PAIR)
    key = {"address": PAIR.ss58, "hex": "0x" + PAIR.public_key.hex(), "file": "pub.txt"}[form]
    for _ in range(2):
        told = imported(run("wallet", "import", "public", key, "--as", role, "--json", *NAMED))
    public = path_of(here, role).with_name("coldkeypub.txt" if role == "coldkey" else "hpub.txt")
    assert told["file"] == str(public.relative_to(here))
    assert wallet_folder.read_public_file(public) == PAIR.public_key
    assert len(files(here)) == 1
    ran = run("wallet", "import", "public", OTHER.ss58, "--as", role, *NAMED)
    assert (ran.code, f"is of {PAIR.ss58}, not of {OTHER.ss58}" in ran.err) == (1, True)


def test_nothing_that_is_there_is_replaced(run: Run, here: Path, secret: Callable[..., Path]) -> None:
    line = ["--as", "hotkey", "--secret-file", str(secret(WORDS)), *NAMED]
    assert run("wallet", "import", "words", *line).code == 0
    before = path_of(here, "hotkey").read_bytes()
    for kind in ("words", "seed"):
        ran = run("wallet", "import", kind, *line)
        assert (ran.code, "exists already" in ran.err) == (1, True)
    assert path_of(here, "hotkey").read_bytes() == before


def test_a_key_of_another_address_than_is_expected_is_not_written(
    run: Run, here: Path, secret: Callable[..., Path]
) -> None:
    line = ["--as", "hotkey", "--secret-file", str(secret(WORDS)), *NAMED]
    ran = run("wallet", "import", "words", "--address", OTHER.ss58, *line)
    assert (ran.code, f"the key is {PAIR.ss58}, and --address is {OTHER.ss58}" in ran.err) == (1, True)
    assert files(here) == []
    assert run("wallet", "import", "public", OTHER.ss58, "--as", "hotkey", *NAMED).code == 0
    ran = run("wallet", "import", "words", *line)
    assert (ran.code, f"hpub.txt names {OTHER.ss58}; nothing was written" in ran.err) == (1, True)
    assert files(here) == ["w/hotkeys/hpub.txt"]


SPOILED = WORDS.replace("walk", "walking")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["words", *WORDS.split(), "--as", "hotkey"], 2),
        (["words", WORDS, "--as", "hotkey"], 2),
        (["seed", SEED, "--as", "hotkey"], 2),
        (["words", "--as", "hotkey", "--secret-file", "spoiled"], 1),
        (["seed", "--as", "hotkey", "--secret-file", "spoiled"], 1),
        (["seed", "--as", "hotkey", "--secret-file", "words"], 1),
        (["words", "--as", "hotkey", "--secret-file", "seed"], 1),
        (["words", "--as", "hotkey", "--secret-file", "words", "--derive", "bottom"], 1),
        (["words", "--as", "hotkey", "--secret-file", "words", "--address", "bottom"], 2),
        (["keystore", "words", "--as", "hotkey"], 1),
        (["public", WORDS, "--as", "hotkey"], 2),
        (["public", "words", "--as", "hotkey"], 1),
    ],
)
def test_what_goes_wrong_repeats_no_secret(
    command: list[str], code: int, run: Run, here: Path, secret: Callable[..., Path]
) -> None:
    secret(WORDS, "words")
    secret(SPOILED, "spoiled")
    secret(SEED, "seed")
    ran = run("wallet", "import", *command, *NAMED)
    assert ran.code == code, ran.err
    for word in (*WORDS.split()[:5], "walking", SEED):
        assert word not in ran.out + ran.err
    assert files(here) == []


def test_words_are_typed_unseen(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [*COMMAND, "wallet", "import", "words", "--as", "hotkey", *NAMED]
    with OnTerminal(command, cwd=tmp_path, environ=environ) as terminal:
        terminal.until("the 12 or 24 words (hidden): ")
        terminal.type(WORDS + "\n")
        code, shown = terminal.end()
    assert (code, PAIR.ss58 in shown) == (0, True), shown
    assert not any(word in shown for word in WORDS.split()[:5])


# check


@pytest.fixture
def made(run: Run, here: Path, secret: Callable[..., Path]) -> Path:
    """A wallet with both keys, plain."""
    for role in ("coldkey", "hotkey"):
        more = ["--as", role, "--no-encrypt", "--secret-file", str(secret(WORDS))]
        assert run("wallet", "import", "words", *more, *NAMED).code == 0
    return here / "wallets" / "w"


def checked(run: Run, *more: str) -> tuple[int, dict[str, Any]]:
    ran = run("wallet", "check", "w", "--wallet.path", "wallets", "--json", *more)
    return ran.code, {key["key"]: key for key in json.loads(ran.out)}


def test_a_wallet_in_order_is_told_with_its_addresses(run: Run, made: Path) -> None:
    code, keys = checked(run)
    assert (code, sorted(keys)) == (0, ["coldkey", "hotkey h"])
    for key in keys.values():
        assert (key["form"], key["opened"], key["address"], "problems" in key) == ("plain", True, PAIR.ss58, False)
        assert key["public_key"] == PAIR.public_key.hex()


def spoil(path: Path, content: bytes) -> None:
    path.write_bytes(content)


OF_OTHER = key_content.content_of(OTHER)


@pytest.mark.parametrize(
    ("change", "form", "problem"),
    [
        (lambda path: path.chmod(0o640), "plain", "open to other users (0640): chmod 600"),
        (lambda path: path.parent.chmod(0o777), "plain", "writable by other users (0777): chmod 700"),
        (lambda path: spoil(path, b"no key"), "damaged", "neither JSON nor a seed"),
        (lambda path: spoil(path, b""), "damaged", "neither JSON nor a seed"),
        (lambda path: spoil(path, OF_OTHER), "plain", f"names {PAIR.ss58}, but h holds {OTHER.ss58}"),
        (lambda path: spoil(path, b"$ANSIBLE_VAULT;1.1"), "old form", "engram wallet convert"),
        (lambda path: spoil(path.with_name("hpub.txt"), b"{}"), "plain", "names no public key"),
    ],
)
def test_what_is_wrong_with_a_key_is_told(
    change: Callable[[Path], None], form: str, problem: str, run: Run, made: Path
) -> None:
    change(made / "hotkeys" / "h")
    code, keys = checked(run)
    assert (code, keys["hotkey h"]["form"]) == (1, form)
    assert any(problem in told for told in keys["hotkey h"]["problems"]), keys
    assert "problems" not in keys["coldkey"]


def test_a_key_without_its_secret_is_public_and_no_problem(run: Run, made: Path) -> None:
    (made / "hotkeys" / "h").unlink()
    code, keys = checked(run)
    assert (code, keys["hotkey h"]["form"], keys["hotkey h"]["address"]) == (0, "public", PAIR.ss58)


def test_a_coldkey_without_its_public_file_is_told_how_to_get_one(run: Run, made: Path) -> None:
    (made / "coldkeypub.txt").unlink()
    code, keys = checked(run)
    assert code == 1
    assert "engram wallet import public" in keys["coldkey"]["problems"][0]


@pytest.mark.usefixtures("cipher")
@pytest.mark.parametrize(("password", "code", "opened"), [(None, 0, False), ("right", 0, True), ("wrong", 1, False)])
def test_an_encrypted_key_is_opened_with_the_password_that_is_given(
    password: str | None, code: int, opened: bool, run: Run, made: Path, secret: Callable[..., Path]
) -> None:
    path = made / "coldkey"
    path.write_bytes(b"$NACLright:" + path.read_bytes())
    more = ["--coldkey-password-file", str(secret(password, "password"))] if password else []
    found, keys = checked(run, *more)
    assert (found, keys["coldkey"]["form"], keys["coldkey"]["opened"]) == (code, "encrypted", opened)
    assert keys["coldkey"]["address"] == PAIR.ss58


def test_a_wallet_that_is_not_there_is_told(run: Run, here: Path) -> None:
    ran = run("wallet", "check", "none", "--wallet.path", "wallets")
    assert (ran.code, ran.err) == (1, f"engram: there is no wallet in {Path('wallets') / 'none'}\n")


# export


def test_an_exported_keystore_is_imported_again(run: Run, here: Path, made: Path, secret: Callable[..., Path]) -> None:
    line = ["--as", "hotkey", "--keystore-password-file", str(secret("a password", "password"))]
    assert run("wallet", "export", "key.json", *line, *NAMED).code == 0
    content = (here / "key.json").read_bytes()
    assert polkadot_keystore.read(content, "a password") == PAIR
    assert (here / "key.json").stat().st_mode & 0o777 == 0o600
    ran = run("wallet", "export", "key.json", *line, *NAMED)
    assert (ran.code, "exists already" in ran.err) == (1, True)
    assert (here / "key.json").read_bytes() == content
    again = ["--wallet.path", "wallets", "--wallet.name", "again"]
    assert run("wallet", "import", "keystore", "key.json", *line, *again).code == 0
