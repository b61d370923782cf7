"""A secret is opened only by what signs with it: everything else works with the public files alone."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from engram.cli.app import app
from engram.cli.chain.common import WalletOptions, coldkey_of, hotkey_of
from engram.cli.failures import CommandFailed
from engram.hotkeys import Keypair, WrongPassword, key_content, wallet_folder
from tests.cli.chains import served, write_wallet
from tests.cli.conftest import Run
from tests.cli.test_help import commands
from tests.fakes.chain import ChainServer
from tests.fakes.hashing_chain import HashingChain
from tests.fakes.living_chain import LivingChain, funded

MINER, COLDKEY = Keypair.from_uri("//sn450//hot//7"), Keypair.from_uri("//sn450//cold//7")
STRANGER = Keypair.from_uri("//nobody")

SHUT = {
    "registry register": ["--address", "13.89.38.129", "--port", "9999"],
    "registry check": [],
    "registry read": [],
    "subnet register": ["--yes"],
    "subnet status": ["--no-probe"],
    "subnet serve": ["--ip", "13.89.38.129", "--port", "8091"],
    "subnet set-weights": ["3=1"],
    "wallet import public": [MINER.ss58, "--as", "hotkey"],
    "wallet show": [],
}
"""Each command that takes a wallet and needs no secret of its hotkey, with the rest of its command line."""
OPENED = {
    "wallet check": "it looks at the secrets too",
    "wallet export": "it writes the secret in another form",
    "wallet import keystore": "it brings the secret",
    "wallet import seed": "it brings the secret",
    "wallet import words": "it brings the secret",
    "subnet link": "its statement is signed by the hotkey, in a dry run too",
    "subnet reveal-weights": "tried where weights are committed by hash, below",
    "miner-check": "a commit that was asked for is signed by the hotkey (test_miner_check)",
    "wallet new": "it makes the secret",
    "wallet sign": "it signs",
}
UNREADABLE = {"absent": None, "encrypted": b"$NACL, and what has no password here", "damaged": b"no key"}


def with_a_wallet(node: App) -> set[str]:
    """The commands that take a wallet."""
    found = set()
    for path in commands(node):
        command = node
        for name in path:
            command = command[name]
        function = command.default_command
        if function is None:
            continue
        parameters = inspect.signature(function, eval_str=True).parameters.values()
        if any(isinstance(parameter.default, WalletOptions) for parameter in parameters):
            found.add(" ".join(path))
    return found


def test_every_command_that_takes_a_wallet_says_whether_it_opens_the_hotkey() -> None:
    assert with_a_wallet(app) - {"registry"} == SHUT.keys() | OPENED.keys()


@pytest.fixture
def chain() -> LivingChain:
    chain = LivingChain()
    funded(chain, COLDKEY.public_key, 5_000_000_000_000)
    return chain


@pytest.fixture
def server(chain: LivingChain) -> Iterator[ChainServer]:
    with served(chain) as server:
        yield server


def shut(root: Path, name: str, hotkey: Keypair, content: bytes | None) -> Path:
    """A wallet of whose hotkey only the public file can be read."""
    write_wallet(root, name, hotkey=hotkey, coldkey=COLDKEY)
    wallet_folder.write_public(root / name / "hotkeys" / "hotpub.txt", hotkey)
    secret = root / name / "hotkeys" / "hot"
    if content is None:
        secret.unlink()
    else:
        secret.write_bytes(content)
    return root


def options(root: Path, name: str, server: ChainServer, command: str) -> list[str]:
    chain = ["--netuid", "450", "--endpoint", server.url] if not command.startswith("wallet") else []
    return [*chain, "--wallet.path", str(root), "--wallet.name", name, "--wallet.hotkey", "hot"]


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("command", SHUT)
def test_what_signs_nothing_with_the_hotkey_leaves_its_secret_shut(
    command: str, content: bytes | None, run: Run, server: ChainServer, here: Path
) -> None:
    hotkey = STRANGER if command == "subnet register" else MINER
    root = shut(here / "wallets", "w", hotkey, content)
    ran = run(*command.split(), *options(root, "w", server, command), *SHUT[command])
    assert "key file" not in ran.err
    assert (ran.code, command, ran.err) == (int(command == "subnet set-weights"), command, ran.err)


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_hotkey_is_registered_by_its_public_file_and_the_coldkey_alone(
    content: bytes | None, run: Run, server: ChainServer, chain: LivingChain, here: Path
) -> None:
    root = shut(here / "wallets", "w", STRANGER, content)
    ran = run("subnet", "register", "--yes", "--format", "json", *options(root, "w", server, "subnet"))
    assert ran.code == 0, ran.err
    assert chain.burned == [(COLDKEY.public_key, STRANGER.public_key)]


def test_what_is_kept_of_commits_is_shown_by_the_public_file_alone(run: Run, here: Path) -> None:
    with served(chain := HashingChain()) as server:
        validator = Keypair.from_uri("//Alice")
        root = write_wallet(here / "wallets", "w", hotkey=validator, coldkey=COLDKEY)
        line = [*options(root, "w", server, "subnet"), "--format", "json"]
        assert run("subnet", "set-weights", "3=1", "--online", "--patience", "5", *line).code == 0
        assert "author_submitExtrinsic" in chain.asked
        wallet_folder.write_public(root / "w" / "hotkeys" / "hotpub.txt", validator)
        (root / "w" / "hotkeys" / "hot").unlink()
        ran = run("subnet", "reveal-weights", *line)
        assert ran.code == 0, ran.err
        assert len(json.loads(ran.out)["commits"]) == 1


def test_a_secret_that_is_not_of_its_public_file_signs_nothing(run: Run, here: Path) -> None:
    root = write_wallet(here / "wallets", "w", hotkey=MINER, coldkey=COLDKEY)
    wallet_folder.write_public(root / "w" / "hotkeys" / "hotpub.txt", STRANGER)
    ran = run("wallet", "sign", "text", "--wallet.path", str(root), "--wallet.name", "w", "--wallet.hotkey", "hot")
    assert (ran.code, "hotpub.txt does not match the key in" in ran.err) == (1, True)


def test_a_damaged_public_file_without_a_secret_is_named(run: Run, here: Path) -> None:
    root = shut(here / "wallets", "w", MINER, None)
    (root / "w" / "hotkeys" / "hotpub.txt").write_text("no key")
    ran = run("wallet", "show", "--wallet.path", str(root), "--wallet.name", "w", "--wallet.hotkey", "hot")
    assert (ran.code, "hotpub.txt names no public key" in ran.err) == (1, True)


def test_each_key_has_a_password_of_its_own(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two files are stand-ins that say by which password they were tried to open."""
    root = write_wallet(here / "wallets", "w", hotkey=MINER, coldkey=COLDKEY)
    folder = root / "w"
    tried: dict[bytes, str] = {}

    def decipher(content: bytes, password: str) -> bytes:
        tried[content] = password
        raise WrongPassword("wrong")

    monkeypatch.setattr(key_content, "decipher", decipher)
    for path, content in ((folder / "coldkey", b"$NACL cold"), (folder / "hotkeys" / "hot", b"$NACL hot")):
        path.write_bytes(content)
    password = here / "password"
    password.write_text("of the hotkey\n")
    password.chmod(0o600)
    monkeypatch.setenv("ENGRAM_COLDKEY_PASSWORD", "of the coldkey")
    keys = WalletOptions(name="w", hotkey="hot", path=root, hotkey_password_file=password)
    for opened in (hotkey_of, coldkey_of):
        with pytest.raises(CommandFailed, match="wrong password for the key file"):
            opened(keys)
    assert tried == {b"$NACL cold": "of the coldkey", b"$NACL hot": "of the hotkey"}


def test_a_file_and_a_descriptor_for_one_password_are_refused(run: Run, here: Path) -> None:
    root = write_wallet(here / "wallets", "w", hotkey=MINER, coldkey=COLDKEY)
    (root / "w" / "hotkeys" / "hot").write_bytes(b"$NACL")
    more = ["--hotkey-password-file", "file", "--hotkey-password-fd", "0"]
    ran = run("wallet", "sign", "x", "--wallet.path", str(root), "--wallet.name", "w", "--wallet.hotkey", "hot", *more)
    assert (ran.code, "not both" in ran.err) == (2, True)


@pytest.mark.parametrize("name", ["..", ".", "", "a/../../b", "/etc", "../w", "x/y", "nul\0", "hotpub.txt"])
@pytest.mark.parametrize("option", ["--wallet.name", "--wallet.hotkey"])
def test_the_name_of_a_wallet_or_a_hotkey_does_not_leave_its_folder(
    option: str, name: str, run: Run, here: Path
) -> None:
    (here / "w").mkdir()
    ran = run("wallet", "new", "--plain", "--wallet.path", str(here / "w"), option, name)
    assert (ran.code, "is no name of a" in ran.err) == (2, True)
    assert [path.name for path in here.rglob("*")] == ["w"]


def test_the_flags_for_more_of_a_log_may_stand_together(run: Run, server: ChainServer, here: Path) -> None:
    line = ["registry", "check", "--netuid", "450", "--endpoint", server.url]
    flags = ["--logging.debug", "--logging.trace", "--logging.info"]
    for some in ([flags[0]], [flags[1]], flags):
        ran = run(*line, *some)
        assert (ran.code, "debug: " in ran.err) == (0, True), ran.err
