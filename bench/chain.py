"""Following the chain: what one sync costs, what it does to the loop, and whether it grows.

The node is the recorded chain in a process of its own, behind HTTP on loopback, with a block each second. The yardstick
makes the same requests over a bare socket and reads the same values from JSON (bench/support/bare_chain.py).
`python -m bench.chain [--quick]`.
"""

import contextlib
import gzip
import http.server
import io
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import msgspec
import trio

from actors import ChildSpec, Registry, SupervisorSpec, open_system
from bench.support import bare_chain
from bench.support.environments import environment
from bench.support.report import print_line
from config.model import ChainSettings
from engram.chain import Subnets
from engram.chain.errors import CallRefused
from engram.chain.model import FinalizedBlock
from engram.chain.read.codec import Codec
from engram.chain.read.commitments import read_commitments
from engram.chain.read.endpoints import open_endpoints
from engram.chain.read.node import RpcCall
from engram.chain.read.recorded import RecordedEndpoint
from engram.chain.read.recorded.node import EPOCH_S, Recording, read_recording
from engram.chain.read.rpc import JsonRpcEndpoint
from engram.chain.read.runtime import RuntimeTypes
from engram.chain.read.view import open_view
from engram.chain.registry.registrations import registry_entry
from engram.chain.sync.actor import MetagraphSyncer
from engram.chain.sync.protocol import Poll
from engram.cli.chain import upstream
from engram.clock import ManualClock, SystemClock
from engram.http.client import HttpClient

QUICK = "--quick" in sys.argv
SYNCS = 200 if QUICK else 1_000
LAG_S = 5 if QUICK else 30
NETUID = 450
CHECKS = 20 if QUICK else 100
WANTED = {
    "decode_vs_yardstick": "<= 3.5",
    "sync_vs_yardstick": "<= 3",
    "loop_lag_p99_vs_yardstick": "<= 3",
    "rss_growth_mb_1000_syncs": "<= 1",
    "check_256_vs_yardstick": "<= 5",
}
ASYNC_NAME, ASYNC_PEER = "async-substrate-interface", "async-substrate-interface==2.2.1"
METADATA_V14 = Path(__file__).parents[1] / "tests" / "data" / "chain" / "metadata-v14.json.gz"


# --- the node, in a process of its own -------------------------------------------------------------------------------


class Steps:
    """A clock on which a block passes at each step: every finalized head that is asked for is a new one."""

    def __init__(self) -> None:
        self.blocks = 1

    def now(self) -> float:
        return EPOCH_S + 12.0 * self.blocks

    def monotonic(self) -> float:
        return self.now()


STEPS = Steps()


def with_commitments(recording: Recording) -> Recording:
    """The recording with a commitment of each of the 256 hotkeys, one in eight of them of an older format."""
    types = RuntimeTypes(bytes.fromhex(recording.metadata[2:]), 293, 1)
    storage = dict(recording.storage)
    prefix = "0x" + types.storage_key("SubtensorModule", "Keys", NETUID).hex()
    hotkeys = [bytes.fromhex(value[2:]) for key, value in storage.items() if key.startswith(prefix)]
    for number, hotkey in enumerate(hotkeys):
        text = b"myorg:my-model:abc123" if number % 8 == 0 else b"13.89.%d.129:9999" % number
        field = {f"Raw{len(text)}": "0x" + text.hex()}
        value = {"deposit": 0, "block": 1_000 + number, "info": {"fields": [field]}}
        key = types.storage_key("Commitments", "CommitmentOf", NETUID, hotkey)
        storage["0x" + key.hex()] = "0x" + types.encode_storage("Commitments", "CommitmentOf", value).hex()
    return msgspec.structs.replace(recording, storage=storage)


class Handler(http.server.BaseHTTPRequestHandler):
    """JSON-RPC over HTTP/1.1."""

    protocol_version = "HTTP/1.1"
    node = RecordedEndpoint(STEPS)
    seen: ClassVar[list[str]] = []
    """Bodies of requests that nobody has read yet at /seen."""

    def _reply(self, asked: dict[str, Any]) -> dict[str, Any]:
        older = {"chain_getRuntimeVersion": "state_getRuntimeVersion", "chain_getHead": "chain_getFinalizedHead"}
        method = older.get(asked["method"], asked["method"])
        if method == "state_getMetadata":
            return _reply(asked["id"], json.loads(gzip.decompress(METADATA_V14.read_bytes())))
        (answer,) = trio.run(self.node.ask, [RpcCall(method, tuple(asked["params"]))])
        return _reply(asked["id"], answer)

    def do_GET(self) -> None:
        self._send(json.dumps(self.seen).encode())
        self.seen.clear()

    def do_POST(self) -> None:
        received = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(received.decode())
        asked = json.loads(received)
        many = asked if isinstance(asked, list) else [asked]
        if many[0]["method"] == "chain_getFinalizedHead":
            STEPS.blocks += 1
        replies = [self._reply(one) for one in many]
        self._send(json.dumps(replies if isinstance(asked, list) else replies[0]).encode())

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        pass


def _reply(number: int, answer: object) -> dict[str, Any]:
    if isinstance(answer, CallRefused):
        return {"jsonrpc": "2.0", "id": number, "error": {"code": answer.code, "message": answer.message}}
    return {"jsonrpc": "2.0", "id": number, "result": answer}


def serve() -> None:
    Handler.node = RecordedEndpoint(STEPS, with_commitments(read_recording()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


# --- ours ------------------------------------------------------------------------------------------------------------


def decode() -> tuple[dict[str, float], dict[str, float], bytes]:
    """Returns what decoding the subnet costs, what the yardstick does, and the values of the subnet as JSON."""
    recording = read_recording()
    codec = Codec(bytes.fromhex(recording.metadata[2:]), 293, 1)
    node = RecordedEndpoint(ManualClock(EPOCH_S), recording)
    call = RpcCall("state_call", ("SubnetInfoRuntimeApi_get_metagraph", "0xc201", recording.hash))
    (answer,) = trio.run(node.ask, [call])
    assert isinstance(answer, str)
    scale, head = bytes.fromhex(answer[2:]), FinalizedBlock(recording.block, bytes.fromhex(recording.hash[2:]))
    document = json.dumps(codec.decode_fields(scale), default=str).encode()
    took: list[float] = []
    bare: list[float] = []
    for _ in range(50 if QUICK else 300):
        bare.append(bare_chain.decode_ms(document, 1))
        started = time.process_time()
        codec.metagraph(codec.decode_fields(scale), NETUID, head, read_at_s=0.0, endpoint="", witness=None)
        took.append(time.process_time() - started)
    return {"decode_ms": statistics.median(took) * 1_000}, {"decode_ms": statistics.median(bare)}, document


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def sync(url: str, document: bytes) -> tuple[dict[str, float], dict[str, float]]:
    settings = ChainSettings(endpoints=(url,), netuids=(NETUID,), poll_s=3_600.0)
    clock, registry, client = SystemClock(), Registry(), HttpClient()
    subnets = Subnets(clock, settings.netuids, settings.stall_after_s)

    def start() -> MetagraphSyncer:
        return MetagraphSyncer(open_endpoints(settings, client, clock), subnets, settings, clock, Random(1))

    async with open_system(SupervisorSpec("root", [ChildSpec("chain", start, name="chain")]), registry=registry):
        ref = registry.ref(MetagraphSyncer, "chain")
        for _ in range(SYNCS // 4):  # what is allocated once is no growth
            await ref.call(Poll(), timeout=30)
        bare_chain.requests_since(url)
        await ref.call(Poll(), timeout=30)
        exchanges = bare_chain.requests_since(url)
        rss, cpu, first = rss_mb(), time.process_time(), subnets.block or 0
        for _ in range(SYNCS):
            await ref.call(Poll(), timeout=30)
        sync_cpu_ms = (time.process_time() - cpu) / SYNCS * 1_000
        growth = (rss_mb() - rss) / SYNCS * 1_000
        assert subnets.block is not None
        assert subnets.block - first == SYNCS
        lags: list[float] = []
        with trio.move_on_after(LAG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_lag, lags)
                while True:
                    await ref.call(Poll(), timeout=30)
                    await trio.sleep(1.0)
    await client.aclose()
    lags.sort()
    bare_lags = sorted(await bare_chain.lags_ms(url, exchanges, document, LAG_S))
    bare = {
        "sync_cpu_ms": await bare_chain.cpu_ms(url, exchanges, document, SYNCS),
        "loop_lag_p99_ms": bare_lags[int(len(bare_lags) * 0.99)],
    }
    figures = {
        "sync_cpu_ms": sync_cpu_ms,
        "rss_growth_mb_1000_syncs": growth,
        "loop_lag_p99_ms": lags[int(len(lags) * 0.99)] * 1_000,
        "loop_lag_max_ms": lags[-1] * 1_000,
    }
    return figures, bare


async def check(url: str) -> tuple[dict[str, float], dict[str, float]]:
    """`engram registry check` of 256 commitments, from the first request to the last line."""
    client = HttpClient()
    node = JsonRpcEndpoint(client, url, 15.0)
    whole: list[float] = []
    reading: list[float] = []
    for _ in range(CHECKS):
        bare_chain.requests_since(url)
        started = time.process_time()
        view = await open_view([node])
        opened = time.process_time()
        commitments = await read_commitments(view, NETUID)
        read = time.process_time()
        entries = [registry_entry(commitment) for commitment in commitments]
        with contextlib.redirect_stdout(io.StringIO()):
            print("\n".join(upstream.check(entries, NETUID, "bench", True, None)))
        whole.append(time.process_time() - started)
        reading.append(read - opened)
        assert len(entries) == 256
    await client.aclose()
    exchanges, document = bare_chain.requests_since(url), msgspec.json.encode(entries)
    bare = {"check_256_cpu_ms": await bare_chain.cpu_ms(url, exchanges, document, CHECKS)}
    figures = {
        "check_256_cpu_ms": statistics.median(whole) * 1_000,
        "read_256_cpu_ms": statistics.median(reading) * 1_000,
    }
    return figures, bare


def peer(python: Path | None, name: str, url: str) -> dict[str, Any]:
    """Another client on the same recorded bytes, in a process of its own; None: its environment cannot be made."""
    if python is None:
        return {"decode_ms": None, "read_256_cpu_ms": None, "reason": "could not be installed"}
    script = str(Path(__file__).with_name("chain_peer.py"))
    command = [str(python), "-P", script, name, url, str(NETUID), str(min(CHECKS, 10))]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        return {"decode_ms": None, "read_256_cpu_ms": None, "reason": str(error)[:200]}
    figures: dict[str, Any] = json.loads(ran.stdout)
    return figures


async def watch_lag(lags: list[float]) -> None:
    while True:
        due = trio.current_time() + 0.005
        await trio.sleep_until(due)
        lags.append(trio.current_time() - due)


def main() -> None:
    node = subprocess.Popen(
        [sys.executable, "-m", "bench.chain", "--serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert node.stdout is not None
        url = f"http://127.0.0.1:{int(node.stdout.readline())}"
        figures, yardstick, document = decode()
        for measured, bare in (trio.run(sync, url, document), trio.run(check, url)):
            figures |= measured
            yardstick |= bare
        peers = {
            "substrate_interface": peer(Path(sys.executable), "substrate-interface", url),
            "async_substrate_interface": peer(environment(ASYNC_NAME, ASYNC_PEER), ASYNC_NAME, url),
        }
    finally:
        node.kill()
        node.wait()
    ratios = {
        f"{figure}_vs_{name}": round(figures[figure] / theirs[figure], 4)
        for name, theirs in peers.items()
        for figure in ("decode_ms", "read_256_cpu_ms")
        if theirs.get(figure)
    }
    for name, figure in (
        ("decode", "decode_ms"),
        ("sync", "sync_cpu_ms"),
        ("loop_lag_p99", "loop_lag_p99_ms"),
        ("check_256", "check_256_cpu_ms"),
    ):
        ratios[f"{name}_vs_yardstick"] = figures[figure] / yardstick[figure]
    print_line("chain", figures, {**peers, "yardstick": yardstick}, ratios, WANTED)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve()
    else:
        main()
