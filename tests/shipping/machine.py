"""A Debian machine on which systemd is the first process: this machine's files under an overlay, in namespaces.

Real dpkg, real units, real users, and nothing to download. It shares the network with the tests, which reach what runs
on it by loopback.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).with_name("machine.sh")
SYSTEMD = Path("/lib/systemd/systemd")
GROUPS = Path("/sys/fs/cgroup")
POSSIBLE = (
    os.geteuid() == 0
    and SYSTEMD.exists()
    and shutil.which("dpkg") is not None
    and "\toverlay\n" in Path("/proc/filesystems").read_text()
)


class Machine:
    """The machine, while it runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        """Of its systemd, as this machine counts."""
        self.root = Path(f"/proc/{pid}/root")

    def run(self, *command: str, check: bool = True, timeout_s: float = 600.0) -> str:
        """Run a command on it as root and return what it printed, or fail with that."""
        inside = ["nsenter", "--target", str(self.pid), "--all", "--root", "env", "-i", "--chdir=/"]
        inside += ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", *command]
        done = subprocess.run(
            inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=timeout_s
        )
        assert done.returncode == 0 or not check, f"{command} ended with {done.returncode}: {done.stdout}"
        return done.stdout.strip()

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit)

    def outer(self, pid: int) -> int:
        """How this machine counts a process of that one."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                counted = (entry / "status").read_text().partition("\nNSpid:")[2].split("\n")[0].split()
                if counted[-1:] == [str(pid)] and os.path.samefile(entry / "ns/pid", f"/proc/{self.pid}/ns/pid"):
                    return int(entry.name)
            except OSError:
                continue
        raise AssertionError(f"there is no process {pid} on it")


@contextmanager
def started(folder: Path) -> Iterator[Machine]:
    """Start a machine that keeps what it writes in `folder`, and end it with all that runs on it."""
    folder.mkdir()
    groups = _groups(f"engram-machine-{os.getpid()}")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    command = ["unshare", "-m", "-p", "-f", "-i", "-u", "-C", "--kill-child", "bash", str(SCRIPT), str(folder)]
    joined = [f"echo $$ >{group}/cgroup.procs" for group in groups]
    console = folder.with_name("console")
    with console.open("wb") as said:
        process = subprocess.Popen(
            ["bash", "-ec", "\n".join([*joined, 'exec "$@"']), "bash", *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        machine = _booted(process)
        yield machine
    finally:
        process.kill()
        process.wait()
        print(console.read_text(errors="replace"))
        subprocess.run(["umount", "-R", "-l", str(folder)], check=True)
        for group in groups:
            _removed(group)


def _booted(process: subprocess.Popen[bytes]) -> Machine:
    for _ in range(1_200):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in map(int, children):
            machine = Machine(child)
            if (
                Path(f"/proc/{child}/comm").read_text() == "systemd\n"
                and (machine.root / "run/systemd/private").exists()
            ):
                state = machine.run("systemctl", "is-system-running", "--wait", check=False)
                assert state in ("running", "degraded"), state
                return machine
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError("the machine did not start")


def _groups(name: str) -> list[Path]:
    """Make a group of that name in every hierarchy; the machine sees it as the root."""
    made = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, _, _, _ = line.split()
        if kind in ("cgroup", "cgroup2"):
            group = Path(place, name)
            group.mkdir(exist_ok=True)
            if place.endswith("/cpuset"):
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (group / file).write_text(Path(place, file).read_text())
            made.append(group)
    return made


def _removed(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        for _ in range(100):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                break
            except OSError:  # the last processes are still ending
                subprocess.run(["sleep", "0.05"], check=True)
            else:
                break
