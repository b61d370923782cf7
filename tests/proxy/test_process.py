"""The proxy as an operator runs it: its files and variables, its signals, and what survives a kill -9."""

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from engram import cli
from tests.proxy.plain_backend import plain_backend
from tests.proxy.process import ROOT, ProxyProcess, document
from tests.proxy.signing import ALICE, headers_of
from tests.sampling import sample

OF_MAKE = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")

AHEAD_S = 1.8
"""How far ahead of the clock requests are stamped, as they may be: the first seconds of a proxy refuse less."""
Called = tuple[int, bytes, dict[str, str]]


def call(proxy: ProxyProcess, method: str, path: str, body: bytes = b"", **more: str) -> Called:
    """One signed request; what is stamped before the proxy's start is refused for a moment, and signed again."""
    return sent(proxy, method, path, body, lambda: headers_of(body, method=method, ago_s=-AHEAD_S) | more)


def sent(proxy: ProxyProcess, method: str, path: str, body: bytes, sign: Callable[[], dict[str, str]]) -> Called:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        connection.request(method, path, body or None, sign())
        answer = connection.getresponse()
        found = answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        if b'"before_start"' not in found[1]:
            return found
        time.sleep(0.1)


def status(proxy: ProxyProcess) -> dict[str, Any]:
    with urlopen(f"{proxy.ops_url}/status") as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def until(true: Any, seconds: float = 10.0) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def engram(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process: its exit status, and what it printed on standard output and standard error."""
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        status = cli.main(arguments)
    return status, said.getvalue(), complained.getvalue()


def test_an_operators_day(tmp_path: Path) -> None:
    """Started with the original's file, reloaded well and badly, asked why, and stopped."""
    with plain_backend() as port, ProxyProcess(tmp_path, document(port)).start(LOG_FORMAT="json") as proxy:
        assert call(proxy, "POST", "/inference", b"hi")[:2] == (200, b"hi")
        code, _, headers = call(proxy, "POST", "/elsewhere", b"hi")
        assert code == 404

        ops_port = proxy.ops_url.rpartition(":")[2]
        exit_status, why, _ = engram(tmp_path, "proxy", "why", headers["x-request-id"], "--ops-port", ops_port)
        assert exit_status == 0
        assert "No route takes this path. (code no_route: ended by the proxy, phase admission)" in why

        changed = document(port, auth={"denied_senders": [ALICE.ss58], "allowed_senders": []})
        proxy.write(changed)
        proxy.send_signal(signal.SIGHUP)
        until(lambda: status(proxy)["settings"]["number"] >= 2)  # the signal and the look at the file may both find it
        assert call(proxy, "POST", "/inference", b"hi")[0] == 403

        proxy.config.write_text('{"auth": {"miner_hotkey": "nonsense"}}')
        until(lambda: not status(proxy)["settings"]["current"])
        assert "nonsense" in status(proxy)["settings"]["error"]
        number = status(proxy)["settings"]["number"]
        with urlopen(f"{proxy.url}/status") as answer:
            assert json.load(answer)["settings"] == {"number": number, "current": False}
        with urlopen(f"{proxy.ops_url}/metrics") as answer:
            metrics = answer.read().decode()
        assert 'engram_proxy_settings_total{outcome="refused"} 1.0' in metrics
        assert 'engram_proxy_ends_total{end="refused",route="/inference"} 1.0' in metrics
        assert call(proxy, "POST", "/inference", b"hi")[0] == 403

        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait() == 0
        said = proxy.lines()
        assert [line["where"] for line in said if line.get("key") == "server.log_format"] == ["environment LOG_FORMAT"]
        kept = [line for line in said if line["event"] == "settings_kept"]
        assert "nonsense" in kept[0]["problems"][0]
        ended = [line for line in said if line["event"] == "request_ended"]
        assert {line["end"] for line in ended} >= {"done", "no_route", "refused"}
        assert all(line["module"] == "engram.proxy" for line in ended)
        assert not any("0x" in line or "signature" in line.lower() for line in map(str, ended))


BEFORE_A_JOB = 2
"""Commits of a start: what ran is noted as unknown, what has expired is deleted."""


KILLED = [
    (f"begin:{BEFORE_A_JOB + 1}", 0, "done"),
    (f"commit:{BEFORE_A_JOB + 1}", 0, "unknown"),
    ("proxy_job:begun", 0, "unknown"),
    ("proxy_job:answered", 1, "unknown"),
    (f"begin:{BEFORE_A_JOB + 2}", 1, "unknown"),
    (f"commit:{BEFORE_A_JOB + 2}", 1, "done"),
]
"""Where it is killed, how often the backend was called by then, and what becomes of the job."""


@pytest.mark.heavy
@pytest.mark.parametrize(("point", "calls_before", "then"), sample("kill points of a job", KILLED, 2))
def test_a_job_of_a_proxy_that_was_killed_is_never_run_twice(
    tmp_path: Path, point: str, calls_before: int, then: str
) -> None:
    calls: list[bytes] = []

    def reply(_: object, body: bytes) -> bytes:
        calls.append(body)
        return b"done"

    with plain_backend(reply) as port:
        settings = document(port)
        settings["routes"] = [{"path": "/inference", "backend": "inference", "answer_after_s": 5}]
        with ProxyProcess(tmp_path, settings) as proxy:
            proxy.start(ENGRAM_TEST_KILL="1", ENGRAM_KILL_AT=point)
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                call(proxy, "POST", "/inference", b"{}", **{"Idempotency-Key": "one"})
            assert proxy.wait() == -signal.SIGKILL
            assert len(calls) == calls_before
            proxy.start()
            code, body, headers = call(proxy, "POST", "/inference", b"{}", **{"Idempotency-Key": "one"})
            assert (code, headers["x-job-status"]) == (200, then), body
            assert len(calls) <= 1


def test_a_request_in_progress_is_answered_before_the_proxy_stops(tmp_path: Path) -> None:
    def slow(_: object, body: bytes) -> bytes:
        proxy.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        return body

    with plain_backend(slow) as port, ProxyProcess(tmp_path, document(port)) as proxy:
        proxy.start()
        assert call(proxy, "POST", "/train", b"x")[:2] == (200, b"x")
        assert proxy.wait() == 0


FORMS = {
    "console command": [str(Path(sys.executable).with_name("reverse-proxy"))],
    "module": [sys.executable, "-m", "reverse_proxy.server"],
    "package": [sys.executable, "-m", "reverse_proxy"],
    "file": [sys.executable, str(ROOT / "reverse_proxy" / "server.py")],
    "role": [sys.executable, str(ROOT / "run.py"), "proxy"],
}


@pytest.mark.parametrize("form", sample("forms of the command", list(FORMS), 1))
def test_a_file_that_cannot_be_used_keeps_the_proxy_from_starting_and_is_named(form: str, tmp_path: Path) -> None:
    ProxyProcess(tmp_path, document(server={"prot": 80}))
    command = [*FORMS[form], "--data-dir", "data"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "config.json: server.prot: there is no such setting; did you mean 'port'?" in found.stderr
    status, _, complained = engram(tmp_path, "proxy", "check-config")
    assert (status, complained) == (2, found.stderr)


def test_the_example_is_made_once_and_its_placeholder_is_refused_by_name(tmp_path: Path) -> None:
    status, _, complained = engram(tmp_path, "proxy", "check-config")
    assert status == 2
    assert "no file of settings (engram proxy config makes one): auth.miner_hotkey" in complained
    assert engram(tmp_path, "proxy", "config")[0] == 0
    made = (tmp_path / "reverse_proxy" / "config.json").read_bytes()
    assert engram(tmp_path, "proxy", "config")[0] == 0
    assert (tmp_path / "reverse_proxy" / "config.json").read_bytes() == made
    status, _, complained = engram(tmp_path, "proxy", "check-config")
    assert status == 2
    assert "'<your-hotkey>' is the example's placeholder" in complained
    (tmp_path / ".env").write_text(f"MINER_HOTKEY={ALICE.ss58}\n")
    status, explained, _ = engram(tmp_path, "proxy", "check-config")
    assert status == 0
    assert "Hotkeys with a validator permit on subnet 11 and more than 1000 of stake" in explained
    assert "validators demand https" in explained


@pytest.mark.external
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("config", "/engram proxy config"),
        ("setup", "scripts/setup run"),
        ("run", "/python -m reverse_proxy.server"),
        ("dev", "/python -m reverse_proxy.server"),
    ],
)
def test_a_target_of_make_runs_the_command_that_the_other_tests_run(target: str, command: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in OF_MAKE}  # `make test` runs this too
    shown = subprocess.run(
        ["make", "--dry-run", f"reverse-proxy-{target}"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip().endswith(command)
    assert "scripts/setup run" in shown.stdout
