"""The one file itself: built, and run where there is nothing else."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Self

import pytest

from engram.demo import ANSWER
from engram.sdk import NodeClient, SdkError
from shipping import loading
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.sampling import NIGHTLY
from tests.shipping import confined, empty_root
from tests.shipping.asking import Asking
from tests.shipping.conftest import build

pytestmark = [pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("binary")]
RESTARTS = 20 if NIGHTLY else 5
UNLIMITED = ("--set", "http.requests_per_minute_per_ip=0")


def run(binary: Path, unpacked: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"ENGRAM_UNPACK_DIR": str(unpacked), "HOME": "/nonexistent"}
    return subprocess.run([str(binary), *arguments], env=environ, capture_output=True, text=True, check=False)


def home(unpacked: Path) -> Path:
    (found,) = [entry for entry in unpacked.iterdir() if entry.name != ".lock"]
    return found


@pytest.mark.skipif(not empty_root.POSSIBLE, reason="needs root for an empty root")
def test_the_demo_runs_in_an_empty_root_and_leaves_nothing(binary: Path, tmp_path: Path) -> None:
    done = empty_root.run(empty_root.make(tmp_path / "root", binary), "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["demo"], result["query_top_text"], result["stopped"]) == ("ok", ANSWER, True)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not confined.HEADER.exists(),
    reason="needs systemd-analyze and the headers of the kernel (Debian: systemd, linux-libc-dev)",
)
def test_the_first_start_and_the_demo_run_in_the_sandbox_of_the_unit(binary: Path, tmp_path: Path) -> None:
    unit = Path(__file__).parents[2] / "deploy/systemd/engram-gateway.service"
    command = [sys.executable, confined.__file__, str(unit), str(binary)]
    environ = {"ENGRAM_UNPACK_DIR": str(tmp_path / "cold"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([*command, "demo"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["demo"] == "ok"
    itself = subprocess.run([*command, "doctor", "--self"], env=environ, capture_output=True, text=True, check=False)
    (sandbox,) = [line for line in itself.stdout.splitlines() if "\tsandbox\t" in line]
    assert "a system call filter" not in sandbox


def test_it_checks_itself_against_its_bill_of_materials(binary: Path, unpacked: Path) -> None:
    done = run(binary, unpacked, "doctor", "--self", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    good = ("form", "files", "list of files", "glibc", "binary", "sqlite")
    assert {what: found[what]["verdict"] for what in good} == dict.fromkeys(good, "good")
    changed = home(unpacked) / "app/config/profiles/local.toml"
    before = changed.read_bytes()
    changed.write_bytes(before.swapcase())  # of the same size, or the next start would unpack it again
    bad = run(binary, unpacked, "doctor", "--self")
    changed.write_bytes(before)
    assert (bad.returncode, "app/config/profiles/local.toml" in bad.stdout) == (1, True)


def test_what_is_in_it_is_named_licensed_and_allowed(binary: Path, unpacked: Path) -> None:
    assert run(binary, unpacked, "--version").stdout.strip() == version("engram")
    bill = json.loads(binary.with_name(f"{binary.name}.cdx.json").read_bytes())
    names = {component["name"] for component in bill["components"]}
    assert {"cpython", "trio", "onnxruntime", "substrate-interface", "libc.so.6", "libssl.so.3"} <= names
    assert not [name for name in names if "readline" in name or "smoldot" in name]
    there = home(unpacked)
    files = {str(file.relative_to(there)) for file in there.rglob("*") if file.is_file()}
    assert {"share/licenses/libc6/copyright", "lib/python3.11/LICENSE.txt", "share/ca-certificates.crt"} <= files
    assert not [name for name in files if re.search(r"(readline|gdbm|smoldot)[^/]*\.so", name)]


def test_it_needs_no_library_of_the_machine(binary: Path, unpacked: Path) -> None:
    run(binary, unpacked, "--version")
    there = home(unpacked)
    own = max(loading.newest_glibc(path) for path in there.rglob("*.so*") if path.is_file())
    provided = loading.newest_glibc(there / "lib/libc.so.6")
    assert (2, 17) <= own <= provided
    process = subprocess.run(
        [str(binary), "--engram-script", str(write_probe(unpacked))],
        env={"ENGRAM_UNPACK_DIR": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    mapped = {line.split()[-1] for line in process.stdout.splitlines() if " r-xp " in line and "/" in line}
    assert [path for path in mapped if not path.startswith(str(there))] == []


def test_a_program_that_runs_holds_its_folder(binary: Path, unpacked: Path) -> None:
    script = unpacked.with_name("wait.py")
    script.write_text("import sys\nprint('up', flush=True)\nsys.stdin.read()\n")
    command = [str(binary), "--engram-script", str(script)]
    with subprocess.Popen(
        command, env={"ENGRAM_UNPACK_DIR": str(unpacked)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert is_held(home(unpacked))
        process.communicate()
    assert not is_held(home(unpacked))


def is_held(folder: Path) -> bool:
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def write_probe(folder: Path) -> Path:
    """A script that loads what nodes and chains load, and shows what the process has mapped."""
    probe = folder.with_name("probe.py")
    probe.write_text(
        "import onnxruntime, qdrant_edge, tokenizers, numpy, coincurve, sr25519, ssl, substrateinterface, ctypes\n"
        "import engram.durable.driver, nacl.bindings\n"
        "print(open('/proc/self/maps').read())\n"
    )
    return probe


@pytest.mark.nightly
def test_two_builds_have_one_hash(tmp_path: Path) -> None:
    first, second = (build(tmp_path / name, "--gateway") for name in ("a", "b"))
    assert first == second == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()


def test_nodes_outlive_a_gateway_that_is_killed_and_are_found_again(
    binary: Path, unpacked: Path, tmp_path: Path
) -> None:
    buyer = Buyer()
    environ = {"ENGRAM_UNPACK_DIR": str(unpacked)}
    settings = FAST + '[shutdown]\nnodes = "keep"\n'
    with GatewayProcess(tmp_path / "data", settings=settings, environ=environ, binary=binary) as gateway:
        gateway.start()
        buyer.quote(gateway.url)
        session = buyer.pay(gateway.url).body["session_id"]
        buyer.wait(gateway.url, session, "active")
        nodes = gateway.nodes()
        assert len(nodes) == 1
        gateway.kill()
        assert gateway.nodes() == nodes
        gateway.start()
        found = buyer.wait(gateway.url, session, "active")
        assert gateway.nodes() == nodes
        assert restarts_its_worker(nodes[0], found["node_endpoint"], buyer)
        buyer.stop(gateway.url, session)
        buyer.wait(gateway.url, session, "stopped")
        assert gateway.nodes() == []
        assert gateway.terminate() == 0


def restarts_its_worker(node: int, url: str, buyer: Buyer) -> bool:
    """Whether a node whose index worker is killed answers from what it holds, by a worker of the same folder."""
    with NodeClient(url, buyer.keypair) as client:
        client.ingest_text("kept")
        before = worker_of(node)
        os.kill(before, signal.SIGKILL)
        for _ in range(600):
            try:
                hits = client.query("kept", top_k=1)
            except SdkError:
                continue
            return hits[0].text == "kept" and worker_of(node) != before
    return False


def worker_of(node: int) -> int:
    """The process of a node's index."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                status, command = (entry / "status").read_text(), (entry / "cmdline").read_bytes()
                if f"\nPPid:\t{node}\n" in status and b"\0engram.memory.index.edge_worker\0" in command:
                    return int(entry.name)
    raise AssertionError(f"the node {node} has no index worker")


def test_restarts_behind_a_held_socket_refuse_and_lose_nothing(binary: Path, unpacked: Path, tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen(1_024)
        askers = [Asking(held.getsockname()[1]) for _ in range(4)]
        for round_ in range(RESTARTS):
            with Service(binary, unpacked, tmp_path / "data", held) as service:
                if round_ == 0:
                    for asker in askers:
                        asker.start()
                before = [asker.answers for asker in askers]
                while any(asker.answers == count for asker, count in zip(askers, before, strict=True)):
                    service.wait_for_beat()
        with Service(binary, unpacked, tmp_path / "data", held):
            for asker in askers:
                asker.stopped.set()
            for asker in askers:
                asker.join()
    assert [asker.failures for asker in askers] == [[], [], [], []]


class Service:
    """A gateway that is started as systemd starts it: the listening socket is descriptor 3."""

    def __init__(self, binary: Path, unpacked: Path, data: Path, held: socket.socket) -> None:
        self._command: Sequence[str] = (str(binary), "gateway", "--data-dir", str(data), "--ops-port", "0", *UNLIMITED)
        self._unpacked, self._held = unpacked, held
        self._log = data.with_suffix(".log")
        self._notify = data.with_name("notify")

    def __enter__(self) -> Self:
        self._notify.unlink(missing_ok=True)
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(self._notify))
        self._manager.settimeout(120)
        script = 'exec 3<&"$1"; shift; export LISTEN_PID=$$; exec "$@"'
        descriptor = self._held.fileno()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script, "bash", str(descriptor), *self._command],
                env={
                    "PATH": os.environ["PATH"],
                    "ENGRAM_UNPACK_DIR": str(self._unpacked),
                    "LISTEN_FDS": "1",
                    "LISTEN_FDNAMES": "gateway",
                    "NOTIFY_SOCKET": str(self._notify),
                    "WATCHDOG_USEC": "600000",
                },
                pass_fds=(descriptor,),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._until("READY=1")
        return self

    def _until(self, wanted: str) -> None:
        while wanted not in self._manager.recv(4_096).decode().splitlines():
            pass

    def wait_for_beat(self) -> None:
        """Wait until the loop has fed the watchdog again."""
        self._until("WATCHDOG=1")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self._until("STOPPING=1")
        assert self.process.wait(60) == 0
        self._manager.close()


def test_sessions_live_on_through_an_upgrade_and_the_way_back(binary: Path, unpacked: Path, tmp_path: Path) -> None:
    """From the checkout to the binary and back: each finds the nodes of the other, which are not restarted."""
    buyer = Buyer()
    settings = FAST + '[shutdown]\nnodes = "keep"\n'
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway:
        newer = GatewayProcess(
            tmp_path / "data", settings=settings, binary=binary, environ={"ENGRAM_UNPACK_DIR": str(unpacked)}
        )
        sessions: dict[str, list[int]] = {}
        for running in (gateway, newer, gateway):
            running.start()
            for session, nodes in sessions.items():
                assert buyer.wait(running.url, session, "active")["status"] == "active"
                assert set(nodes) <= set(running.nodes())
            before = set(running.nodes())
            buyer.quote(running.url)
            bought = buyer.pay(running.url).body["session_id"]
            buyer.wait(running.url, bought, "active")
            sessions[bought] = sorted(set(running.nodes()) - before)
            assert len(sessions[bought]) == 1
            if len(sessions) < 3:
                assert running.terminate() == 0
        for session in sessions:
            buyer.stop(gateway.url, session)
        for session in sessions:
            buyer.wait(gateway.url, session, "stopped")
        assert gateway.nodes() == []
        assert gateway.terminate() == 0
