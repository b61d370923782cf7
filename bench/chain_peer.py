"""What reading 256 commitments costs substrate-interface; a process of its own, as its scalecodec clashes with others.

`python -m bench.chain_peer URL NETUID TIMES` prints one JSON object. Metadata is read before the clock starts.
"""

import json
import statistics
import sys
import time
from typing import Any


def main(url: str, netuid: int, times: int) -> None:
    from substrateinterface import SubstrateInterface

    started = time.process_time()
    substrate: Any = SubstrateInterface(url=url, ss58_format=42, auto_discover=False)
    substrate.init_runtime()
    metadata_ms = (time.process_time() - started) * 1_000
    took: list[float] = []
    for _ in range(times):
        started = time.process_time()
        found = substrate.query_map("Commitments", "CommitmentOf", [netuid], page_size=1_000)
        entries = [(key.value, value.value) for key, value in found]
        took.append((time.process_time() - started) * 1_000)
        assert len(entries) == 256, len(entries)
    print(json.dumps({"metadata_cpu_ms": round(metadata_ms, 1), "read_256_cpu_ms": round(statistics.median(took), 3)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
