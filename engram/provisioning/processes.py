"""Processes of this machine, identified by pid and start time, since a pid alone is reused.

Linux only: /proc and pidfds. A zombie counts as dead. Functions that scan all of /proc say so; call them in a thread.
"""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import trio

PROC = Path("/proc")
_LISTEN = "0A"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessId(msgspec.Struct, frozen=True):
    """One process, for ever: its pid, its start in clock ticks since boot, and the boot."""

    pid: int
    start_ticks: int
    boot: str


class Status(msgspec.Struct, frozen=True):
    """A line of /proc/<pid>/stat, as far as it is needed here."""

    pid: int
    state: str
    session: int
    """Pid of the leader of its session (what `setsid` made)."""
    start_ticks: int
    rss_bytes: int


async def listening_ports() -> frozenset[int]:
    """TCP ports that anybody listens on in this network namespace; empty where the kernel does not tell."""
    return await trio.to_thread.run_sync(_listening_ports)


def _listening_ports() -> frozenset[int]:
    found = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return frozenset(found)


def boot_id() -> str:
    """Return the id of the current boot of the kernel."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def status(pid: int) -> Status | None:
    """Read `pid` in /proc; None when there is no such process."""
    try:
        line = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = line[line.rindex(")") + 2 :].split()
    return Status(pid, fields[0], int(fields[3]), int(fields[19]), int(fields[21]) * _PAGE_BYTES)


def identify(pid: int, boot: str) -> ProcessId | None:
    """Return the identity of the process that has `pid` now; None when there is none, or only its zombie."""
    found = status(pid)
    return None if found is None or _is_zombie(found) else ProcessId(pid, found.start_ticks, boot)


def is_alive(process: ProcessId, boot: str) -> bool:
    """Return whether this very process runs."""
    found = status(process.pid)
    return (
        process.boot == boot
        and found is not None
        and found.start_ticks == process.start_ticks
        and not _is_zombie(found)
    )


def spawn(argv: Sequence[str], environment: Mapping[str, str], output: Path) -> int:
    """Start a process in a session of its own, its output appended to `output`; returns its pid. Blocks.

    Nothing but the three standard descriptors is passed on, and signals are as a new program expects them.
    Raises OSError.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        argv[0],
        list(argv),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2],
    )


async def wait_exit(process: ProcessId, boot: str) -> None:
    """Return when the process has ended; works for children and for others. Does not reap."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        await trio.lowlevel.checkpoint()
        return
    try:
        if not is_alive(process, boot):  # the pid is another's by now
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def reap(pid: int) -> None:
    """Take the exit status of `pid` if it is a dead child of this process."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def signal_leader(process: ProcessId, number: signal.Signals) -> None:
    """Send a signal to this very process, if it is still there."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        found = status(process.pid)
        if found is not None and found.start_ticks == process.start_ticks:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def signal_session(process: ProcessId, number: signal.Signals) -> int:
    """Send a signal to every living process of the session that `process` leads (or led); returns how many.

    Scans /proc. When the leader's pid has become another process's, its session is not ours and nothing is sent.
    """
    leader = status(process.pid)
    if leader is not None and leader.start_ticks != process.start_ticks:
        return 0
    sent = 0
    for member in all_processes():
        is_ours = member.session == process.pid and member.start_ticks >= process.start_ticks
        if is_ours and not _is_zombie(member):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, number)
                sent += 1
    return sent


def all_processes() -> Iterator[Status]:
    """Return every process. Scans /proc."""
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            found = status(int(entry.name))
            if found is not None:
                yield found


def rss_by_session() -> dict[int, int]:
    """Return the resident bytes of each session, by its leader's pid. Scans /proc."""
    summed: dict[int, int] = {}
    for found in all_processes():
        summed[found.session] = summed.get(found.session, 0) + found.rss_bytes
    return summed


def members_of_session(leader: int) -> list[int]:
    """Return the pids of the session that `leader` leads. Scans /proc."""
    return [found.pid for found in all_processes() if found.session == leader]


def session_leaders_naming(text: str) -> list[tuple[int, list[str]]]:
    """Pid and arguments of the session leaders with `text` in their command line. Scans /proc."""
    wanted = text.encode()
    found = []
    for entry in os.scandir(PROC):
        if not entry.name.isdigit():
            continue
        try:
            line = (PROC / entry.name / "cmdline").read_bytes()
        except OSError:
            continue
        if wanted in line:
            pid = int(entry.name)
            known = status(pid)
            if known is not None and known.session == pid:
                found.append((pid, os.fsdecode(line).rstrip("\0").split("\0")))
    return found


def signal_named(argument: str, number: signal.Signals) -> int:
    """Send a signal to every living session whose leader has exactly this argument; returns how many processes.

    Scans /proc.
    """
    sent = 0
    for pid, arguments in session_leaders_naming(argument):
        leader = status(pid)
        if argument in arguments and leader is not None and not _is_zombie(leader):
            sent += signal_session(ProcessId(pid, leader.start_ticks, ""), number)
    return sent


def _is_zombie(found: Status) -> bool:
    return found.state in "ZX"
