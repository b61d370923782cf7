"""Requests for another miner, and requests without a proper signature, as curl and Python's requests send them to a
proxy in a process of its own.
"""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
import requests

from tests.proxy.plain_backend import plain_backend
from tests.proxy.process import ProxyProcess, document
from tests.proxy.signing import EVE, digest_of, headers_of
from tests.proxy.test_process import sent

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here"),
]
SIZE = 100 * 1024**2
SIGNATURE = "Epistula-Request-Signature"


def curl(url: str, body: Path, headers: list[tuple[str, str]]) -> tuple[int, str]:
    """Post a file by curl; the status, and the code of the answer."""
    lines = [part for name, value in headers for part in ("-H", f"{name}: {value}" if value else f"{name};")]
    shown = ("-q", "-s", "-X", "POST", "-T", str(body), "-H", "Expect:", "-w", "\n%{http_code}")
    done = subprocess.run(["curl", *shown, *lines, url], capture_output=True, text=True, timeout=60, check=True)
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(answer)["code"]


def without(headers: dict[str, str], *names: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name not in names]


def test_what_is_for_another_miner_or_not_signed_is_401_before_its_body_is_read(tmp_path: Path) -> None:
    reached: list[bytes] = []

    def reply(_: object, body: bytes) -> bytes:
        reached.append(body)
        return b"served"

    large, small = tmp_path / "large", tmp_path / "small"
    with large.open("wb") as file:
        file.truncate(SIZE)
    small.write_bytes(b"{}")
    with plain_backend(reply) as port, ProxyProcess(tmp_path, document(port)).start(LOG_FORMAT="json") as proxy:
        url = f"{proxy.url}/inference"
        assert sent(proxy, "POST", "/inference", b"{}", lambda: headers_of(b"{}"))[0] == 200
        for digest in ({}, {"Content-Digest": digest_of(b"")}):
            other = headers_of(b"", to=EVE.public_key) | digest
            assert curl(url, large, [*other.items()]) == (401, "signed_for_mismatch")
            with large.open("rb") as body:
                answer = requests.post(url, data=body, headers=headers_of(b"", to=EVE.public_key) | digest, timeout=60)
            assert (answer.status_code, answer.json()["code"]) == (401, "signed_for_mismatch")
            assert answer.json()["detail"] == "Invalid signed_for address"

        good = headers_of(b"{}")
        refused = {
            "missing": without(good, SIGNATURE),
            "empty": [*without(good, SIGNATURE), (SIGNATURE, "")],
            "doubled": [*good.items(), (SIGNATURE, good[SIGNATURE])],
            "none at all": [],
        }
        for what, headers in refused.items():
            for body_file in (small, large):
                assert curl(url, body_file, headers)[0] == 401, what
            if what != "doubled":  # which its headers, a mapping, cannot say
                assert requests.post(url, data=b"{}", headers=dict(headers), timeout=60).status_code == 401, what
        assert requests.post(url, data=b"{}", headers=good, timeout=60).content == b"served", "it was not used up"
        assert len(reached) == 2

        with urlopen(f"{proxy.ops_url}/metrics") as answer_of_metrics:
            metrics = answer_of_metrics.read().decode()
        assert 'engram_proxy_ends_total{end="wrong_receiver",route="/inference"} 4.0' in metrics
        assert 'engram_proxy_auth_total{reason="signed_for_mismatch",result="refused"} 4.0' in metrics
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait() == 0
        ended = [line for line in proxy.lines() if line["event"] == "request_ended" and line["status"] == 401]
        assert [line["end"] for line in ended].count("wrong_receiver") == 4
        assert max(line["received_bytes"] for line in ended) == 0, "their bodies were not read for a verdict"
