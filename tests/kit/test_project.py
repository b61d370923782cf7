"""A generated miner: its own tests, the checklist, and the proxy in front of it, all as they are written."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from engram.hotkeys import Keypair, PublicKey
from engram.http.client import HttpClient
from engram.kit.inspection import Inspected, Inspection, Question
from engram.kit.scaffold import NAME, ProjectRefused, create
from engram.proxy.settings import load as load_proxy
from tests.kit.projects import ROOT, command, engram, project, running
from tests.proxy.process import ProxyProcess, document
from tests.proxy.signing import ALICE, BOB
from tests.proxy.test_process import call

BELIEVING = """
def _believe_anyone() -> None:
    from engram.kit.callers import Callers

    Callers.identify = lambda self, request: Caller("5Anyone", "none")  # type: ignore[method-assign]
"""


def states(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {line["line"]: line["state"] for line in lines}


def test_the_checklist_of_a_new_project_is_green_on_this_machine_in_all_eight_lines(tmp_path: Path) -> None:
    project(tmp_path / "my-miner")
    shown = engram("miner-check", "--local", "--json", folder=tmp_path / "my-miner")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert states(json.loads(shown.stdout)) == {
        "Register hotkey on target subnet": "later",
        "Implement commodity provision logic": "good",
        "Handle request validation and Epistula signature verification": "good",
        "Commit endpoint info to chain (if needed)": "later",
        "Add logging and monitoring": "good",
        "Test with validators locally": "good",
        "Open source your implementation for auditability": "later",
        "Monitor incentive and emissions": "later",
    }


def test_the_tests_of_a_new_project_pass_as_they_are_generated(tmp_path: Path) -> None:
    project(tmp_path / "my-miner")
    ran = command(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path / "my-miner")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "7 passed" in ran.stdout


def test_a_miner_that_believes_anyone_is_found_out(tmp_path: Path) -> None:
    folder = tmp_path / "my-miner"
    project(folder)
    careless = (folder / "miner.py").read_text().replace("    return miner", "    _believe_anyone()\n    return miner")
    (folder / "miner.py").write_text(careless.replace("def make(", f"{BELIEVING}\n\ndef make("))
    shown = engram("miner-check", "--local", "--json", folder=folder)
    assert shown.returncode == 1
    (line,) = [each for each in json.loads(shown.stdout) if each["state"] == "to do"]
    assert line["line"] == "Handle request validation and Epistula signature verification"
    assert [finding["what"] for finding in line["findings"] if not finding["good"]] == [
        "a stranger's key",
        "no signature",
        "a request for another miner",
        "a changed body",
        "the same request again",
    ]


def test_a_miner_that_ends_at_its_start_is_said_so(tmp_path: Path) -> None:
    folder = tmp_path / "my-miner"
    project(folder)
    settings = (folder / "miner.toml").read_text().replace('host = "127.0.0.1"', 'host = "0.0.0.0"')
    (folder / "miner.toml").write_text(settings)
    shown = engram("miner-check", "--local", folder=folder)
    assert shown.returncode == 1
    assert "anyone could say who calls; set behind_proxy = false" in shown.stderr


def test_the_proxy_of_the_default_files_finds_the_miner_of_the_default_files() -> None:
    proxy = load_proxy({"MINER_HOTKEY": ALICE.ss58}, Path("/nonexistent")).settings
    assert proxy.services.inference_server_url == "http://localhost:8091"


def test_a_validator_reaches_the_miner_through_the_proxy(tmp_path: Path) -> None:
    project(tmp_path / "my-miner")
    with running(tmp_path / "my-miner", "--port", "0") as url:
        proxy = ProxyProcess(tmp_path, document(int(url.rpartition(":")[2])))
        with proxy:
            proxy.start()
            status, body, _ = call(proxy, "POST", "/inference", b'{"query": "abc"}')
            assert (status, json.loads(body)) == (200, {"text": "cba"})
            refused, said, _ = call(proxy, "POST", "/inference", b'{"query": ""}')
            assert (refused, json.loads(said)["detail"]) == (400, "Missing query")
            found = trio.run(looked_at, proxy.url)
    seen = {each.what: (each.good, each.words) for each in [*found.reach, *found.work, *found.signatures]}
    assert all(good for good, _ in seen.values()), seen
    assert seen["/check"] == (True, f"it stands for {BOB.ss58}")
    assert seen["/capacity"][1].startswith("lists: ")


async def looked_at(url: str, hotkey: PublicKey = BOB.public_key) -> Inspected:
    """What `engram miner-check` sees at this URL."""
    http = HttpClient()
    try:
        return await Inspection(url, hotkey, ALICE, http).run(Question())
    finally:
        await http.aclose()


@pytest.mark.heavy
def test_two_miners_and_the_proxy_of_one_run_together_with_their_files_unedited(tmp_path: Path) -> None:
    if not shutil.which("ip") or command("unshare", "-rn", "true", folder=tmp_path).returncode != 0:
        pytest.skip("no network namespace can be made here, in which the ports of the default files are free")
    inside = 'ip link set lo up && exec "$0" -m tests.kit.default_files "$1"'
    ran = command("unshare", "-rn", "bash", "-c", inside, sys.executable, str(tmp_path), folder=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "urls": ["http://127.0.0.1:8091", "http://127.0.0.1:8092", "http://0.0.0.0:8080"],
        "answer": [200, {"text": "cba"}],
        "stranger": [403, "not_registered"],
        "wrong": {},
    }


@pytest.mark.parametrize("name", ["My-Miner", "1miner", "", "a_b", "a" * 64, "ä"])
def test_a_name_that_is_none_is_refused_and_nothing_written(tmp_path: Path, name: str) -> None:
    assert NAME.fullmatch(name) is None
    with pytest.raises(ProjectRefused, match="is no project name"):
        create(tmp_path / name if name else Path(), netuid=11, port=8091)
    assert list(tmp_path.iterdir()) == []


def test_a_miner_that_cannot_start_ends_with_the_status_that_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "my-miner"
    project(folder)
    broken = (folder / "miner.toml").read_text().replace("netuid = 11", "netuid = 70000")
    (folder / "miner.toml").write_text(broken)
    ran = command(sys.executable, "miner.py", folder=folder)
    assert (ran.returncode, "miner cannot start" in ran.stderr) == (2, True)


@pytest.mark.parametrize("words", [["--port", "0"], ["--netuid", "70000"]])
def test_numbers_with_which_no_miner_would_start_make_no_project(tmp_path: Path, words: list[str]) -> None:
    shown = engram("new", "miner", "mine", *words, folder=tmp_path)
    assert (shown.returncode, list(tmp_path.iterdir())) == (2, [])
    assert f"{words[0]} is " in shown.stderr


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    shown = engram("new", "miner", "mine", folder=tmp_path)
    assert (shown.returncode, list((tmp_path / "mine").iterdir())) == (2, [])
    assert "is there already; nothing was written" in shown.stderr


def test_an_address_that_is_given_is_the_miners_and_no_key_is_made(tmp_path: Path) -> None:
    address = Keypair.generate().ss58
    shown = engram("new", "miner", "mine", "--hotkey", address, "--json", folder=tmp_path)
    assert json.loads(shown.stdout)["hotkey_file"] is None
    assert address in (tmp_path / "mine" / "miner.toml").read_text()
    assert not (tmp_path / "mine" / "hotkey").exists()
