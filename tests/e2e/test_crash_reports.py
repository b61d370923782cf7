"""A process that a native library ends leaves the stack of its threads, whichever process of the product it is."""

import ast
import signal
import time
import tomllib
from pathlib import Path

from engram.provisioning import processes
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import GatewayProcess

ROOT = Path(__file__).parents[2]
FATAL = (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)
MAKE_PAGES_OF_THE_DOCS = ["config/reference.py", "engram/api/tables.py", "engram/telemetry/reference.py"]


def handled(pid: int) -> list[signal.Signals]:
    """Which of FATAL the process handles, from the process table."""
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("SigCgt:")]
    mask = int(line.split()[1], 16)
    return [number for number in FATAL if mask >> (number - 1) & 1]


def children(pid: int) -> list[int]:
    return [one.pid for one in processes.all_processes() if one.session == pid and one.pid != pid]


def test_gateway_node_and_index_worker_report_what_ends_them(tmp_path: Path) -> None:
    buyer = Buyer()
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.start()
        buyer.quote(gateway.url)
        session = str(buyer.pay(gateway.url).body["session_id"])
        buyer.wait(gateway.url, session, "active")
        (node,) = gateway.nodes()
        deadline = time.monotonic() + 20
        while not (workers := children(node)) or handled(workers[0]) != list(FATAL):
            assert time.monotonic() < deadline, workers
            time.sleep(0.05)
        assert handled(node) == list(FATAL)
        assert handled(gateway.pid) == list(FATAL)

        gateway.send_signal(signal.SIGSEGV)
        assert gateway.wait() == -signal.SIGSEGV
        assert "Fatal Python error: Segmentation fault" in gateway.log()
        assert "most recent call first" in gateway.log()


def test_every_program_asks_for_the_report_before_anything_else() -> None:
    files = [ROOT / "run.py", *(file for name in ("config", "engram") for file in (ROOT / name).rglob("*.py"))]
    missing, programs = [], 0
    for file in files:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
                programs += 1
                first = ast.unparse(node.body[0])
                if first != "crash_reports.enable()":
                    missing.append(str(file.relative_to(ROOT)))
    assert sorted(missing) == MAKE_PAGES_OF_THE_DOCS
    assert programs >= 7
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"engram": "engram.cli:main", "reverse-proxy": "reverse_proxy.server:main"}
