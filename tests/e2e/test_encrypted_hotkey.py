"""A gateway whose own hotkey is an encrypted wallet file."""

import json
import urllib.request
from pathlib import Path

import pytest

from engram.hotkeys import Keypair
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.hotkeys.test_passwords import ENCRYPTED, PASSWORD, SEED, password_file

pytestmark = pytest.mark.serial


def gateway(folder: Path, content: bytes, **told: str) -> GatewayProcess:
    key = folder / "hot"
    key.write_bytes(content)
    key.chmod(0o600)
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in ({"hotkey_file": str(key)} | told).items())
    return GatewayProcess(folder / "data", settings=f"{FAST}[gateway]\n{lines}")


def refusal(made: GatewayProcess, **environ: str) -> str:
    with made:
        made.spawn(**environ)
        assert not made.wait_ready()
        assert made.wait() == 2
        return made.log().splitlines()[-1]


@pytest.mark.nightly
def test_a_gateway_opens_its_encrypted_hotkey(tmp_path: Path) -> None:
    file = str(password_file(tmp_path, PASSWORD.encode()))
    with gateway(tmp_path, ENCRYPTED.read_bytes(), hotkey_password_file=file) as made:
        made.start()
        with urllib.request.urlopen(f"{made.url}/identity", timeout=10) as answer:
            assert Keypair.from_seed(SEED).ss58 in answer.read().decode()
        assert PASSWORD not in made.log()
        assert not (tmp_path / "data" / "gateway-hotkey").exists()
        assert made.terminate() == 0


def test_an_encrypted_hotkey_without_a_password_is_told_in_a_line(tmp_path: Path) -> None:
    told = refusal(gateway(tmp_path, ENCRYPTED.read_bytes()))
    assert told.startswith(f"engram cannot start: the key file {tmp_path}/hot is encrypted")
    assert "gateway.hotkey_password_file, or set ENGRAM_WALLET_PASSWORD" in told


@pytest.mark.nightly
def test_a_hotkey_file_that_is_missing_or_of_an_old_encryption_is_told_in_a_line(tmp_path: Path) -> None:
    told = refusal(gateway(tmp_path, ENCRYPTED.read_bytes(), hotkey_file=str(tmp_path / "none")))
    assert told == f"engram cannot start: gateway.hotkey_file: there is no {tmp_path}/none"
    told = refusal(gateway(tmp_path, b"gAAAAABh0123"), ENGRAM_WALLET_PASSWORD="any")
    assert told.endswith(f"encrypted in an old form: engram wallet convert {tmp_path}/hot")


@pytest.mark.nightly
def test_a_wrong_password_of_the_environment_is_told_as_that(tmp_path: Path) -> None:
    told = refusal(gateway(tmp_path, ENCRYPTED.read_bytes()), ENGRAM_WALLET_PASSWORD="not the one")
    assert told == f"engram cannot start: wrong password for the key file {tmp_path}/hot"
