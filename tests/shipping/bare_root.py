"""A node in nothing but the files of its image: a chroot on a root that cannot be written, in namespaces of its own."""

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from engram.hotkeys import Keypair
from shipping import image, interpreter

RUN = """
ip link set lo up 2>/dev/null
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"
mount -t tmpfs none "$1/dev" && mknod -m 666 "$1/dev/null" c 1 3 && mknod -m 666 "$1/dev/urandom" c 1 9
mount -t proc none "$1/proc" && mount -t tmpfs none "$1/data" && chown 65532:65532 "$1/data"
set -- "$(command -v chroot)" --userspec=65532:65532 "$1" "$2" -P -m
began=$(date +%s%N)
"$@" engram.miner &
node=$!
for _ in $(seq 300); do
    "$@" engram.miner.container_health && healthy=yes && break
    sleep 0.05
done
echo "healthy=$healthy ms=$((($(date +%s%N) - began) / 1000000))"
kill -TERM "$node"; wait "$node"; echo "status=$?"
"""


def document(built: Path, digest: str) -> Any:
    """A JSON blob of the layout."""
    return json.loads((built / image.LAYOUT / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes())


def manifest(built: Path) -> Any:
    index = json.loads((built / image.LAYOUT / "index.json").read_bytes())
    return document(built, index["manifests"][0]["digest"])


def unpack(built: Path, root: Path) -> None:
    """What an engine does with the layers."""
    root.mkdir()
    root.chmod(0o755)
    for layer in manifest(built)["layers"]:
        blob = built / image.LAYOUT / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")
        with tarfile.open(blob) as tar:
            tar.extractall(root, filter="fully_trusted")


def run(built: Path, root: Path) -> tuple[float, int]:
    """Start a node, wait until its health command succeeds, end it: seconds to healthy, exit status. Needs root."""
    config = document(built, manifest(built)["config"]["digest"])["config"]
    told = dict(variable.split("=", 1) for variable in config["Env"]) | {
        "ENGRAM_NODE_SESSION_ID": "s1",
        "ENGRAM_NODE_LAUNCH_TOKEN": "t1",
        "ENGRAM_NODE_HOTKEY": Keypair.from_uri("//Charlie").ss58,
        "ENGRAM_NODE_CONTROLLER_PUBLIC_KEY": Keypair.from_uri("//Dave").ss58,
        "PATH": f"{os.environ['PATH']}:/opt/engram/bin",
    }
    command = ["unshare", "-nm", "bash", "-c", RUN, "bash", str(root), f"/{interpreter.PROGRAM}"]
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r"healthy=yes ms=(\d+)\nstatus=(\d+)", done.stdout)
    if found is None:
        raise RuntimeError(f"the node did not become healthy: {done.stdout} {done.stderr[-2_000:]}")
    return int(found[1]) / 1_000, int(found[2])
