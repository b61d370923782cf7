"""The image of a node: how large it is, how long a build takes, and how long a node of it takes to be healthy.

Beside it the same node from the checkout, whose modules are compiled as well. The image is started in a bare root (a
chroot in namespaces of its own), which takes root; where that is missing, `start_s` is null. `python -m bench.image`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.support.report import print_line
from engram.hotkeys import Keypair
from shipping import image
from tests.shipping import bare_root

ROUNDS = 1 if "--quick" in sys.argv else 3
WANTED = {"image_mb": "<= 250", "start_vs_checkout": "<= 1.5"}


def from_checkout(folder: Path) -> float:
    """Seconds until the health command succeeds for a node started from the checkout."""
    environ = {
        "PATH": os.environ["PATH"],
        "ENGRAM_NODE_SESSION_ID": "s1",
        "ENGRAM_NODE_LAUNCH_TOKEN": "t1",
        "ENGRAM_NODE_HOTKEY": Keypair.from_uri("//Charlie").ss58,
        "ENGRAM_NODE_CONTROLLER_PUBLIC_KEY": Keypair.from_uri("//Dave").ss58,
        "ENGRAM_NODE_DATA_DIR": str(folder),
        "ENGRAM_NODE_HOST": "127.0.0.1",
        "ENGRAM_NODE_PORT": "18090",
    }
    command, began = [sys.executable, "-P", "-m"], time.monotonic()
    node = subprocess.Popen(
        [*command, "engram.miner"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while subprocess.run([*command, "engram.miner.container_health"], env=environ, check=False).returncode:
            if time.monotonic() - began > 60:
                raise RuntimeError("the node from the checkout did not become healthy")
            time.sleep(0.05)
        return time.monotonic() - began
    finally:
        node.terminate()
        node.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        built = image.build(folder / "image")
        figures: dict[str, float | None] = {
            "image_mb": round(built.size / 1e6, 1),
            "build_s": round(time.monotonic() - began, 1),
            "unpacked_mb": None,
            "start_s": None,
        }
        root = folder / "root"
        bare_root.unpack(folder / "image", root)
        figures["unpacked_mb"] = round(sum(path.lstat().st_size for path in root.rglob("*")) / 1e6, 1)
        starts, yardstick = [], []
        for number in range(ROUNDS):
            if os.geteuid() == 0 and shutil.which("unshare"):
                starts.append(bare_root.run(folder / "image", root)[0])
            yardstick.append(from_checkout(folder / f"data-{number}"))
        checkout_s = min(yardstick)
        if starts:
            figures["start_s"] = round(min(starts), 2)
        ratios = {"start_vs_checkout": round(min(starts) / checkout_s, 2)} if starts else {}
        print_line("image", figures, {"checkout": {"start_s": round(checkout_s, 2)}}, ratios, WANTED)


if __name__ == "__main__":
    main()
