"""The compose file: what it names is there, and its commands are ones that the program takes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from engram.children import PROGRAM_FILE
from shipping import gateway_image, root_files
from tests.cli.conftest import Run, here, run

__all__ = ["here", "run"]
COMPOSE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
GIVEN = {
    "X402_RECIPIENT_ADDRESS": "0x52908400098527886E0F7030069857D2E4169EE7",
    "X402_FACILITATOR_URL": "https://facilitator.example",
    "AKASH_OWNER_ADDRESS": "akash1" + "q" * 38,
}
SETTINGS = "/etc/engram/engram.toml"


@pytest.fixture
def gateway(here: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The service, with the variables that it asks the operator for, in its environment."""
    service: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["gateway"]
    for name, value in service["environment"].items():
        asked = re.fullmatch(r"\$\{(\w+):\?.+\}", value)
        monkeypatch.setenv(name, GIVEN[asked[1]] if asked else value)
    return service


def test_every_file_that_the_compose_file_mounts_is_there(gateway: dict[str, Any]) -> None:
    mounted = [volume.split(":") for volume in gateway["volumes"]]
    files = [(COMPOSE.parent / source, target) for source, target, *_ in mounted if source.startswith(".")]
    assert [(source.is_file(), target) for source, target in files] == [(True, SETTINGS)]


def test_it_is_of_the_image_that_is_built_with_its_data_where_that_one_keeps_it(gateway: dict[str, Any]) -> None:
    recipe = gateway_image.recipe("0")
    assert gateway["image"] == recipe.name
    assert f"data:/{root_files.DATA}" in gateway["volumes"]
    assert gateway["ports"] == [f"127.0.0.1:{recipe.port}:{recipe.port}"]


def at_home(words: list[str]) -> list[str]:
    return [word.replace(SETTINGS, str(COMPOSE.parent / "compose.toml")) for word in words]


def test_its_gateway_would_start_with_these_settings(gateway: dict[str, Any], run: Run, here: Path) -> None:
    ran = run(*at_home(gateway["command"]), "--ready-fd", "77")
    assert (ran.code, "--ready-fd 77 is not an open file descriptor" in ran.err) == (2, True), ran.err


def test_its_health_command_asks_the_gateway_of_these_settings(gateway: dict[str, Any], run: Run) -> None:
    kind, program, *words = gateway["healthcheck"]["test"]
    assert (kind, program) == ("CMD", f"{gateway_image.HOME}/{PROGRAM_FILE}")
    ran = run(*at_home(words), "--set", "ops.port=1")
    assert (ran.code, "http://127.0.0.1:1/ready does not answer" in ran.err) == (1, True), ran.err
