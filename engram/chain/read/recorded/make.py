"""Make `recording.json.gz` out of the files recorded from a running runtime (development only).

    python -m engram.chain.read.recorded.make FOLDER

FOLDER holds rpc-recordings, storage-sn450, metadata-v15 and metagraph-450, each gzipped JSON.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from engram import crash_reports, wire
from engram.chain.read.codec import Codec
from engram.chain.read.recorded.node import RECORDING, MetagraphRecording, Recording, compact

NETUID = 450


def make(folder: Path) -> Recording:
    """Return the recording. Raises ValueError when the files do not belong together."""
    answers = {
        (call["method"], json.dumps(call["params"])): call.get("result")
        for call in _load(folder / "rpc-recordings.json.gz")
    }
    state = _load(folder / "storage-sn450.json.gz")
    metagraph = _load(folder / "metagraph-450.json.gz")
    metadata = _load(folder / "metadata-v15.json.gz")
    if metagraph["block_hash"] != state["finalized_hash"]:
        raise ValueError("metagraph and storage are of different blocks")
    version = answers["state_getRuntimeVersion", "[]"]
    codec = Codec(bytes.fromhex(metadata[2:]), version["specVersion"], version["transactionVersion"])
    return Recording(
        block=int(state["header"]["number"], 16),
        hash=state["finalized_hash"],
        genesis=answers["chain_getBlockHash", "[0]"],
        header=state["header"],
        runtime_version=version,
        properties=answers["system_properties", "[]"],
        metadata=metadata,
        metagraphs={codec.metagraph_params(NETUID): split_at_block(codec, bytes.fromhex(metagraph["scale"][2:]))},
        storage=state["storage"],
    )


def split_at_block(codec: Codec, scale: bytes) -> MetagraphRecording:
    """Return the bytes around the block number, found by changing it and looking at what the codec then reads."""
    fields = codec.decode_fields(scale)
    if fields is None:
        raise ValueError("no metagraph in the recording")
    block = wire.convert(fields["block"], int)
    old, new = compact(block), compact(block + 1)
    at = scale.find(old)
    while at >= 0:
        before, after = scale[:at], scale[at + len(old) :]
        if codec.decode_fields(before + new + after) == {**fields, "block": block + 1}:
            return MetagraphRecording(before.hex(), after.hex())
        at = scale.find(old, at + 1)
    raise ValueError("the block number was not found in the metagraph")


def _load(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


if __name__ == "__main__":
    crash_reports.enable()
    encoded = msgspec.json.encode(make(Path(sys.argv[1])))
    RECORDING.write_bytes(gzip.compress(encoded, 9, mtime=0))
    print(f"{RECORDING}: {RECORDING.stat().st_size} bytes")
