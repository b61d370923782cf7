"""A gateway that cannot deliver does not take money: real processes, and interpreters that lack what nodes need."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import ROOT, GatewayProcess
from tests.e2e.test_demo import demo, left_running
from tests.fakes.without_packages import without


def get(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_without_the_node_extra_nothing_is_quoted_and_everything_names_the_extra(tmp_path: Path) -> None:
    path = without(tmp_path / "blocked", "onnxruntime", "qdrant_edge")
    with GatewayProcess(tmp_path / "data", settings='[log]\nformat = "json"\n') as gateway:
        gateway.start(PYTHONPATH=path)
        quote = Buyer().post(gateway.url, "/sessions")
        assert (quote.status, quote.body["code"]) == (503, "node_parts_missing")
        assert "onnxruntime" in quote.body["error"]
        status, ready = get(gateway.url + "/ready")
        assert (status, ready["ready"]) == (503, False)
        assert "pip install 'engram[node]'" in ready["checks"]["sales"]
        assert get(gateway.url + "/nodes")[1]["available"] is False
        deadline = time.monotonic() + 20
        while "cannot_sell" not in gateway.log():
            assert time.monotonic() < deadline, gateway.log()
            time.sleep(0.05)
        assert gateway.terminate() == 0


def test_a_demo_without_the_node_extra_says_what_to_install_before_it_pays(tmp_path: Path) -> None:
    path = f"{without(tmp_path / 'blocked', 'onnxruntime')}:{ROOT}"
    process = demo(tmp_path, PYTHONPATH=path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    assert "onnxruntime" in json.loads(out.splitlines()[-1])["error"]
    assert "engram[node]" in out
    assert "  paid " not in out
    assert left_running(tmp_path) == []


def test_the_originals_three_exports_name_the_profile_that_is_meant(tmp_path: Path) -> None:
    exports = {
        "X402_RECIPIENT_ADDRESS": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "X402_FACILITATOR_URL": "https://x402.dexter.cash",
        "AKASH_OWNER_ADDRESS": "akash1" + "q" * 38,
    }
    ran = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "gateway", "--data-dir", str(tmp_path / "data")],
        cwd=tmp_path,
        env={"PATH": "/bin", **exports},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 2
    assert "--profile mainnet" in ran.stderr
    assert not (tmp_path / "data").exists()
