"""A root with nothing in it but one file: no Python, no shell, no libc, and no network but loopback."""

import os
import subprocess
from pathlib import Path

RUN = """
ip link set lo up 2>/dev/null
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"
mount -t tmpfs none "$1/dev" && mknod -m 666 "$1/dev/null" c 1 3 && mknod -m 666 "$1/dev/urandom" c 1 9
mount -t proc none "$1/proc" && mount -t tmpfs -o mode=1777 none "$1/tmp"
root=$1; shift
exec chroot --userspec=65532:65532 "$root" /engram "$@"
"""
POSSIBLE = os.geteuid() == 0


def make(folder: Path, binary: Path) -> Path:
    """Make the root; it takes no room, because the file is linked."""
    folder.mkdir()
    folder.chmod(0o755)
    for name in ("dev", "proc", "tmp"):
        (folder / name).mkdir()
    os.link(binary, folder / "engram")
    return folder


def run(root: Path, *arguments: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run the file in the root, which cannot be written but for /tmp, as a user without a name."""
    command = ["unshare", "-nm", "bash", "-c", RUN, "bash", str(root), *arguments]
    environ = {"PATH": os.environ["PATH"], "ENGRAM_UNPACK_DIR": "/tmp/.unpacked"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout_s, check=False)
