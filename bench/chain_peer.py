"""What reading a subnet costs other clients; each runs in an environment of its own, as their scalecodecs clash.

`python bench/chain_peer.py substrate-interface|async-substrate-interface URL NETUID TIMES` prints one JSON object.
Metadata is read before the clocks start. Imports nothing of ours: the environment does not have it.
"""

import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any


def ask(url: str, method: str, params: list[Any]) -> dict[str, Any]:
    """One JSON-RPC call by HTTP."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def cpu_ms(times: int, work: Callable[[], object]) -> float:
    """Median CPU milliseconds."""
    took: list[float] = []
    for _ in range(times):
        started = time.process_time()
        work()
        took.append((time.process_time() - started) * 1_000)
    return round(statistics.median(took), 3)


def commitments(substrate: Any, netuid: int) -> None:
    found = [value for _, value in substrate.query_map("Commitments", "CommitmentOf", [netuid], page_size=1_000)]
    assert len(found) == 256, len(found)


def substrate_interface(url: str, netuid: int, times: int) -> dict[str, Any]:
    from substrateinterface import SubstrateInterface

    started = time.process_time()
    substrate = SubstrateInterface(url=url, ss58_format=42, auto_discover=False)
    substrate.init_runtime()
    return {
        "metadata_cpu_ms": round((time.process_time() - started) * 1_000, 1),
        "read_256_cpu_ms": cpu_ms(times, lambda: commitments(substrate, netuid)),
        "decode_ms": None,
        "reason": "decode_ms: it has no metadata V15, so it knows no runtime call",
    }


class Exchange:
    """What a websocket client uses of its connection, by HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._answers: list[bytes] = []

    def send(self, text: str) -> None:
        asked = json.loads(text)
        params = list(asked["params"] or [])
        if asked["method"] == "state_call" and not params[1].startswith("0x"):
            params[1] = f"0x{params[1]}"
        answer = ask(self._url, asked["method"], params)
        self._answers.append(json.dumps({**answer, "id": asked["id"]}).encode())

    def recv(self, **_: object) -> bytes:
        return self._answers.pop(0)


def async_substrate_interface(url: str, netuid: int, times: int) -> dict[str, Any]:
    # Not in our environment: its scalecodec clashes with substrate-interface's.
    from async_substrate_interface.sync_substrate import SubstrateInterface  # type: ignore[import-not-found]

    class OverHttp(SubstrateInterface):  # type: ignore[misc] # it comes without types
        """It asks by websocket only; the node speaks HTTP."""

        def connect(self, init: bool = False) -> Any:
            return Exchange(url)

    started = time.process_time()
    substrate = OverHttp("ws://over-http.invalid", auto_discover=False, _mock=True)
    runtime = substrate.init_runtime()
    took_ms = (time.process_time() - started) * 1_000
    described = runtime.runtime_api_map["SubnetInfoRuntimeApi"]["get_metagraph"]
    argument = f"0x{netuid.to_bytes(2, 'little').hex()}"
    scale = bytes.fromhex(ask(url, "state_call", ["SubnetInfoRuntimeApi_get_metagraph", argument])["result"][2:])
    kind = f"scale_info::{described['output']}"
    return {
        "metadata_cpu_ms": round(took_ms, 1),
        "decode_ms": cpu_ms(times, lambda: substrate.decode_scale(kind, scale)),
        "read_256_cpu_ms": cpu_ms(times, lambda: commitments(substrate, netuid)),
    }


PEERS = {"substrate-interface": substrate_interface, "async-substrate-interface": async_substrate_interface}

if __name__ == "__main__":
    name, url, netuid, times = sys.argv[1:]
    print(json.dumps(PEERS[name](url, int(netuid), int(times))))
