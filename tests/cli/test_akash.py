"""`engram akash`: definitions that others' tools take, and keys that nobody else reads."""

import json
import os
from pathlib import Path

import pytest
import yaml

from engram.provisioning.akash import account, sdl
from engram.provisioning.akash.compiler import compile_sdl
from tests.cli.conftest import Run
from tests.provisioning.akash.vectors import public_mnemonic, vectors

IMAGE = f"ghcr.io/example/engram@sha256:{'ab' * 32}"
ADDRESS: str = vectors("peer-tx-vectors")["owner"]


@pytest.fixture
def secret(here: Path) -> Path:
    path = here / "words"
    path.write_text(f"{public_mnemonic()}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("tier", "cpu", "price"), [("lite", 1000, "30"), ("standard", 2000, "60"), ("pro", 4000, "120")]
)
def test_a_tier_s_definition_is_printed_as_yaml_that_compiles(run: Run, tier: str, cpu: int, price: str) -> None:
    printed = run("akash", "sdl", "--tier", tier, "--image", IMAGE)
    assert printed.code == 0
    document = yaml.safe_load(printed.out)
    (group,) = compile_sdl(sdl.parse(document)).groups
    assert int(group.resources[0].resource.cpu.units.val) == cpu
    assert document["profiles"]["placement"]["akash"]["pricing"]["miner"] == {"denom": "uact", "amount": price}
    assert document["services"]["miner"]["image"] == IMAGE
    assert "ENGRAM_NODE_LAUNCH_TOKEN=example" in document["services"]["miner"]["env"]


def test_the_settings_say_where_and_for_how_much(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_MINER_IMAGE", IMAGE)
    changed = (
        "--set",
        "akash.max_price_lite=12.5",
        "--set",
        "akash.region=eu-west",
        "--set",
        "akash.storage_class=beta2",
    )
    placement = yaml.safe_load(run("akash", "sdl", "--tier", "lite", *changed).out)["profiles"]["placement"]["akash"]
    assert placement["pricing"]["miner"]["amount"] == "12.5"
    assert placement["attributes"] == {"region": "eu-west"}


def test_a_setting_that_no_node_could_start_with_is_refused(run: Run) -> None:
    refused = run("akash", "sdl", "--tier", "lite", "--image", IMAGE, "--set", "miner.embedder=openai")
    assert refused.code != 0
    assert "embedd" in refused.err


def test_an_image_without_its_digest_is_refused_with_the_way_out(run: Run) -> None:
    refused = run("akash", "sdl", "--tier", "lite", "--image", "ghcr.io/example/engram:latest")
    assert refused.code == 2
    assert "'ghcr.io/example/engram:latest'; it must be name@sha256:" in refused.err
    assert "ENGRAM_MINER_IMAGE" in refused.err
    assert refused.out == ""


def test_a_new_account_is_in_a_file_that_nobody_else_reads_and_its_words_are_not_shown(run: Run, here: Path) -> None:
    made = run("akash", "wallet", "new", "akash.key", "--json")
    path = here / "akash.key"
    words = path.read_text().strip()
    assert made.code == 0
    assert len(words.split()) == 24
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(made.out)["address"] == account.read_key_file(path).address
    assert words not in made.out + made.err
    assert "back it up" in made.err


def test_the_words_of_a_new_account_are_shown_when_that_is_asked_for(run: Run, here: Path) -> None:
    made = run("akash", "wallet", "new", "akash.key", "--reveal", "--json")
    assert json.loads(made.out)["mnemonic"] == (here / "akash.key").read_text().strip()


def test_a_key_file_that_is_there_is_never_replaced(run: Run, secret: Path, here: Path) -> None:
    run("akash", "wallet", "new", "akash.key")
    before = (here / "akash.key").read_bytes()
    for command in (("new", "akash.key"), ("import", "akash.key", "--secret-file", str(secret))):
        refused = run("akash", "wallet", *command)
        assert refused.code == 1
        assert "exists already" in refused.err
    assert (here / "akash.key").read_bytes() == before


@pytest.mark.parametrize("text", [public_mnemonic(), account.secret_of(public_mnemonic()).hex()])
def test_an_account_is_imported_from_its_words_or_its_key(run: Run, here: Path, secret: Path, text: str) -> None:
    secret.write_text(text)
    done = run("akash", "wallet", "import", "akash.key", "--secret-file", str(secret), "--address", ADDRESS, "--json")
    assert done.code == 0
    assert json.loads(done.out)["address"] == ADDRESS
    assert json.loads(run("akash", "wallet", "address", "akash.key", "--json").out)["address"] == ADDRESS
    assert text not in done.out + done.err


def test_a_secret_is_read_from_a_descriptor(run: Run) -> None:
    reading, writing = os.pipe()
    os.write(writing, public_mnemonic().encode())
    os.close(writing)
    done = run("akash", "wallet", "import", "akash.key", "--secret-fd", str(reading), "--json")
    assert json.loads(done.out)["address"] == ADDRESS


def test_another_account_than_the_one_that_is_meant_is_not_imported(run: Run, here: Path, secret: Path) -> None:
    refused = run("akash", "wallet", "import", "akash.key", "--secret-file", str(secret), "--address", "akash1other")
    assert refused.code == 1
    assert f"the key of {ADDRESS}, not of akash1other" in refused.err
    assert not (here / "akash.key").exists()


def test_words_that_are_no_mnemonic_are_refused_and_not_repeated(run: Run, secret: Path) -> None:
    secret.write_text("zoo " * 12)
    refused = run("akash", "wallet", "import", "akash.key", "--secret-file", str(secret))
    assert refused.code == 1
    assert "12 words" in refused.err
    assert "zoo" not in refused.err


def test_a_secret_that_others_may_read_is_refused(run: Run, secret: Path) -> None:
    secret.chmod(0o644)
    assert run("akash", "wallet", "import", "akash.key", "--secret-file", str(secret)).code == 1


def test_the_key_file_of_the_settings_is_the_one_that_is_meant(run: Run, here: Path) -> None:
    assert run("akash", "wallet", "new", "--set", "akash.key_file=keys/akash").code == 0
    shown = run("akash", "wallet", "address", "--set", "akash.key_file=keys/akash", "--json")
    assert json.loads(shown.out)["address"] == account.read_key_file(here / "keys" / "akash").address


def test_without_a_key_file_the_command_says_how_to_name_one(run: Run) -> None:
    for command in ("new", "import", "address"):
        refused = run("akash", "wallet", command)
        assert refused.code == 2
        assert "akash.key_file" in refused.err


def test_a_key_file_that_others_may_read_is_refused(run: Run, here: Path) -> None:
    run("akash", "wallet", "new", "akash.key")
    (here / "akash.key").chmod(0o644)
    refused = run("akash", "wallet", "address", "akash.key")
    assert refused.code == 1
    assert "chmod 600" in refused.err


@pytest.mark.parametrize("command", [("list",), ("orphans",), ("balance",)])
def test_without_an_account_the_commands_say_which_settings_name_one(run: Run, command: tuple[str, ...]) -> None:
    refused = run("akash", *command)
    assert refused.code == 2
    assert "akash.owner_address is not set, and akash.key_file is missing" in refused.err


def test_a_key_file_that_is_not_there_is_told_in_words(run: Run) -> None:
    refused = run("akash", "wallet", "address", "none.key")
    assert refused.code == 1
    assert "none.key cannot be read: No such file or directory" in refused.err
