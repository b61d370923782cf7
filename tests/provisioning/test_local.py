"""The local backend with real processes."""

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from engram.nodes import launch
from engram.provisioning import NoCapacity, NodeSpec, Offers, Rejected, Unavailable, local, node_folder, processes
from engram.provisioning.cgroups import NodeGroups
from engram.provisioning.local import LocalBackend, LocalSettings
from engram.provisioning.node_folder import NodeSettings
from tests.fakes import fake_node
from tests.provisioning import contract


def a_backend(
    tmp_path: Path,
    *behaviours: str,
    ledger_id: str = contract.LEDGER_ID,
    grace_s: float = 2.0,
    groups: NodeGroups | None = None,
) -> LocalBackend:
    return LocalBackend(
        LocalSettings(
            nodes_dir=tmp_path / "nodes",
            ledger_id=ledger_id,
            command=(sys.executable, "-S", "-E", fake_node.__file__, *behaviours),
            common=NodeSettings(
                host="127.0.0.1", netuid=450, environment="local", embedder=launch.EmbedderLaunch(kind="hash")
            ),
            offers=Offers(backend="local", places=4, first_port=18_100, port_count=1_000, not_enforced=("cpu",)),
            grace_s=grace_s,
            watch_interval_s=0.1,
            environment=local.scrubbed(os.environ),
        ),
        groups,
    )


def a_spec(session_id: str = "s1", word: str = "t1", ledger_id: str = contract.LEDGER_ID) -> NodeSpec:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return NodeSpec(
        token=contract.token(word, ledger_id),
        session_id=session_id,
        tier=contract.tier(),
        controller=b"\1" * 32,
        hotkey=b"\2" * 32,
        hotkey_file="key",
        port=port,
        ends_at=4e9,
    )


async def test_gateways_with_one_folder_find_and_end_each_others_nodes(tmp_path: Path) -> None:
    here, there = a_backend(tmp_path), a_backend(tmp_path)
    assert await there.list() == []
    first, second = a_spec(word="t1"), a_spec(word="t2")
    started = await here.launch(first)
    found = await there.inspect(first.token)
    assert found is not None
    assert (found.alive, found.reference) == (True, started.reference)
    await there.destroy(first.token)
    assert await here.inspect(first.token) is None or not (await here.list())[0].alive
    # The session's next node lies in the same folder: what is left of the first is no reason to touch it.
    again = await here.launch(second)
    await here.destroy(first.token)
    await there.destroy(first.token)
    held = await here.inspect(second.token)
    assert held is not None
    assert (held.alive, held.reference) == (True, again.reference)
    await there.destroy(second.token)
    assert not (tmp_path / "nodes" / "s1").exists()


async def test_the_next_gateway_holds_the_nodes_it_finds_to_their_limits(tmp_path: Path) -> None:
    spec = a_spec()
    started = await a_backend(tmp_path).launch(spec)
    groups = tmp_path / "groups"
    groups.mkdir()
    next_ = a_backend(tmp_path, groups=NodeGroups(groups))
    found = await next_.inspect(spec.token)
    assert (found and found.alive, found and found.reference) == (True, started.reference)
    group = groups / f"engram-{spec.token}"
    assert (group / "memory.max").read_text() == str(spec.tier.memory_bytes)
    assert (group / "cpu.max").read_text() == f"{spec.tier.cpu_vcpu * 100_000} 100000"
    assert json.loads(started.reference)["pid"] == int((group / "cgroup.procs").read_text())
    await next_.destroy(spec.token)


async def test_a_node_that_cannot_be_held_to_its_limits_is_found_all_the_same(tmp_path: Path) -> None:
    spec = a_spec()
    await a_backend(tmp_path).launch(spec)
    next_ = a_backend(tmp_path, groups=NodeGroups(tmp_path / "missing"))
    with capture_logs() as logged:
        found = await next_.inspect(spec.token)
    assert found is not None
    assert found.alive
    assert [line["node"] for line in logged if line["event"] == "node_not_confined"] == [spec.token]
    await next_.destroy(spec.token)


async def ask(endpoint: str, path: str = "/health") -> dict[str, object]:
    host, port = endpoint.removeprefix("http://").split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        await stream.send_all(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        answer = b"".join([chunk async for chunk in stream])
    told: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return told


async def until_up(endpoint: str, node_token: str) -> dict[str, object]:
    with trio.fail_after(10):
        while True:
            try:
                answer = await ask(endpoint)
            except (OSError, ValueError):
                await trio.sleep(0.02)
                continue
            assert answer["launch_token"] == node_token
            return answer


def pid_of(backend_dir: Path, session_id: str = "s1") -> int:
    node = node_folder.read_node(backend_dir / "nodes" / session_id)
    assert node is not None
    assert node.process is not None
    return node.process.pid


def pid_or_none(backend_dir: Path) -> int | None:
    node = node_folder.read_node(backend_dir / "nodes" / "s1")
    return node.process.pid if node is not None and node.process is not None else None


@contextmanager
def no_processes_left(folder: Path) -> Iterator[None]:
    """Whatever a test leaves running is killed, session by session."""
    try:
        yield
    finally:
        for pid, _ in processes.session_leaders_naming(str(folder)):
            os.killpg(pid, signal.SIGKILL)
            processes.reap(pid)


class LocalBench(contract.Bench):
    def __init__(self, backend: LocalBackend, folder: Path) -> None:
        super().__init__(backend)
        self.folder = folder

    async def spec(self, session_id: str = "s1", word: str = "t1") -> NodeSpec:
        return a_spec(session_id, word)

    async def until_healthy(self, endpoint: str, node_token: str) -> None:
        await until_up(endpoint, node_token)

    async def kill(self, node_token: str) -> None:
        os.kill(pid_of(self.folder), signal.SIGKILL)

    async def starts(self, endpoint: str, node_token: str) -> int:
        return int(str((await ask(endpoint))["starts"]))


class TestLocal(contract.ProvisionerContract):
    @pytest.fixture
    def clock(self) -> None:
        return None

    @pytest.fixture
    async def bench(self, tmp_path: Path) -> AsyncIterator[LocalBench]:
        with no_processes_left(tmp_path):
            yield LocalBench(a_backend(tmp_path), tmp_path)


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path) -> Iterator[None]:
    with no_processes_left(tmp_path):
        yield


async def test_a_node_is_found_again_by_the_next_gateway(tmp_path: Path) -> None:
    spec = a_spec()
    node = await a_backend(tmp_path).launch(spec)
    await until_up(node.endpoint, spec.token)
    later = a_backend(tmp_path)
    assert list(await later.list()) == [node]
    assert (await later.launch(spec)) == node
    async with contract.watched(later) as exits:
        os.kill(pid_of(tmp_path), signal.SIGKILL)
        with trio.fail_after(2):
            assert await exits.receive() == spec.token
    await later.destroy(spec.token)
    assert not (tmp_path / "nodes" / "s1").exists()


async def test_a_node_started_right_before_a_kill_is_found_by_its_command_line(tmp_path: Path) -> None:
    spec = a_spec()
    node = await a_backend(tmp_path).launch(spec)
    await until_up(node.endpoint, spec.token)
    pid = pid_of(tmp_path)
    folder = tmp_path / "nodes" / "s1"
    file = node_folder.read_node(folder)
    assert file is not None
    node_folder.write_node(folder, msgspec.structs.replace(file, process=None))  # the kill came before this was known
    later = a_backend(tmp_path)
    assert (await later.launch(spec)).alive
    assert pid_of(tmp_path) == pid
    await later.destroy(spec.token)
    assert processes.identify(pid, processes.boot_id()) is None


async def test_a_pid_with_another_start_time_is_not_our_node(tmp_path: Path) -> None:
    spec = a_spec()
    backend = a_backend(tmp_path)
    await backend.launch(spec)
    await backend.stop(spec.token)
    folder = tmp_path / "nodes" / "s1"
    file = node_folder.read_node(folder)
    assert file is not None
    assert file.process is not None
    stranger = processes.ProcessId(os.getpid(), 1, file.process.boot)
    node_folder.write_node(folder, msgspec.structs.replace(file, process=stranger))
    later = a_backend(tmp_path)
    found = await later.inspect(spec.token)
    assert found is not None
    assert not found.alive
    await later.destroy(spec.token)  # and we are still here


async def test_nodes_of_another_ledger_are_left_alone(tmp_path: Path) -> None:
    theirs = a_backend(tmp_path, ledger_id="ffffffff")
    spec = a_spec(ledger_id="ffffffff")
    node = await theirs.launch(spec)
    await until_up(node.endpoint, spec.token)
    ours = a_backend(tmp_path)
    assert list(await ours.list()) == []
    await ours.destroy(spec.token)
    await until_up(node.endpoint, spec.token)
    with pytest.raises(Rejected):
        await ours.launch(spec)


async def test_destroying_kills_the_whole_session_even_when_it_is_deaf(tmp_path: Path) -> None:
    backend = a_backend(tmp_path, "child", "deaf", grace_s=0.2)
    spec = a_spec()
    node = await backend.launch(spec)
    await until_up(node.endpoint, spec.token)
    leader = pid_of(tmp_path)
    assert len([p for p in processes.all_processes() if p.session == leader]) == 2
    await backend.destroy(spec.token)
    assert not [p for p in processes.all_processes() if p.session == leader and p.state != "Z"]


async def test_what_a_dead_node_had_started_dies_with_it(tmp_path: Path) -> None:
    backend = a_backend(tmp_path, "child")
    spec = a_spec()
    node = await backend.launch(spec)
    await until_up(node.endpoint, spec.token)
    leader = pid_of(tmp_path)
    async with contract.watched(backend) as exits:
        os.kill(leader, signal.SIGKILL)
        with trio.fail_after(2):
            assert await exits.receive() == spec.token
    assert not [p for p in processes.all_processes() if p.session == leader and p.state != "Z"]


async def test_a_node_gets_no_secret_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AKASH_MNEMONIC", "twelve words")
    backend = a_backend(tmp_path)
    spec = a_spec()
    node = await backend.launch(spec)
    answer = await until_up(node.endpoint, spec.token)
    assert set(answer["environment"]) <= {*local._PASSED_ON, "OMP_NUM_THREADS"}  # type: ignore[call-overload]  # JSON


async def test_the_launch_file_is_for_the_node_alone_and_is_one_a_miner_takes(tmp_path: Path) -> None:
    backend = a_backend(tmp_path)
    spec = a_spec()
    await backend.launch(spec)
    path = tmp_path / "nodes" / "s1" / "launch.json"
    assert path.stat().st_mode & 0o777 == 0o600
    told = launch.read(path)
    assert (told.launch_token, told.port, told.ends_at) == (spec.token, spec.port, 4e9)
    assert told.controller() == spec.controller
    assert (told.storage_bytes, told.memory_bytes) == (10 * 1024**3, 2 * 1024**3)
    await backend.extend(spec.token, 5e9)
    assert launch.read(path).ends_at == 5e9
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_node_that_dies_at_once_is_reported_and_reaped(tmp_path: Path) -> None:
    backend = a_backend(tmp_path, "dying")
    spec = a_spec()
    async with contract.watched(backend) as exits:
        await backend.launch(spec)
        with trio.fail_after(2):
            assert await exits.receive() == spec.token
    found = await backend.inspect(spec.token)
    assert found is not None
    assert not found.alive
    assert not [p for p in processes.all_processes() if p.state == "Z" and p.session == pid_or_none(tmp_path)]


async def test_a_node_above_its_memory_is_killed(tmp_path: Path) -> None:
    backend = a_backend(tmp_path, "hungry")
    small = msgspec.structs.replace(contract.tier(), memory_gb=0.05)
    spec = msgspec.structs.replace(a_spec(), tier=small)
    async with contract.watched(backend) as exits:
        await backend.launch(spec)
        with trio.fail_after(5):
            assert await exits.receive() == spec.token


def test_output_is_bounded_and_sizes_are_measured(tmp_path: Path) -> None:
    node_folder.bound_output(tmp_path, 10)
    (tmp_path / "output.log").write_bytes(b"x" * 100_000)
    assert node_folder.size_bytes(tmp_path) >= 100_000
    node_folder.bound_output(tmp_path, 10)
    assert (tmp_path / "output.log").stat().st_size == 0


async def test_a_port_that_another_program_has_is_refused_at_once(tmp_path: Path) -> None:
    backend = a_backend(tmp_path)
    spec = a_spec()
    with socket.create_server(("127.0.0.1", spec.port or 0)), pytest.raises(NoCapacity):
        await backend.launch(spec)
    assert await backend.inspect(spec.token) is None
    assert (await backend.launch(spec)).alive


async def test_a_node_nobody_wrote_down_dies_before_another_gets_its_folder(tmp_path: Path) -> None:
    spec = a_spec()
    node = await a_backend(tmp_path).launch(spec)
    await until_up(node.endpoint, spec.token)
    pid = pid_of(tmp_path)
    (tmp_path / "nodes" / "s1" / "node.json").unlink()
    later = a_backend(tmp_path)
    assert not await later.list()  # it looked a moment too early
    await later.launch(a_spec(word="t2"))
    assert processes.identify(pid, processes.boot_id()) is None
    assert pid_of(tmp_path) != pid


async def test_a_removal_that_was_interrupted_is_found_and_finished(tmp_path: Path) -> None:
    backend = a_backend(tmp_path)
    spec = a_spec()
    await backend.launch(spec)
    await backend.stop(spec.token)
    folder = tmp_path / "nodes" / "s1"
    node_file = folder / "node.json"
    for path in folder.iterdir():
        if path.is_file() and path != node_file:
            path.unlink()
    later = a_backend(tmp_path)
    assert [node.alive for node in await later.list()] == [False]
    await later.extend(spec.token, 5e9)
    await later.destroy(spec.token)
    assert not folder.exists()


async def test_a_folder_that_cannot_be_written_is_told_as_nothing_done(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "s1").write_text("a file in the way")
    backend = a_backend(tmp_path)
    with pytest.raises(Unavailable):
        await backend.launch(a_spec())
    assert not await backend.list()


async def test_a_launch_without_a_port_of_the_ledger_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected):
        await a_backend(tmp_path).launch(msgspec.structs.replace(a_spec(), port=None))


async def test_a_later_launch_of_a_session_takes_the_place_of_the_former(tmp_path: Path) -> None:
    backend = a_backend(tmp_path)
    first, second = a_spec(word="t1"), a_spec(word="t2")
    node = await backend.launch(first)
    await until_up(node.endpoint, first.token)
    pid = pid_of(tmp_path)
    node = await backend.launch(second)
    await until_up(node.endpoint, second.token)
    assert processes.identify(pid, processes.boot_id()) is None
    assert [one.token for one in await backend.list()] == [second.token]
    await backend.destroy(first.token)
    assert (await ask(node.endpoint))["launch_token"] == second.token
