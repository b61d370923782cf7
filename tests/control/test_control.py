"""The control socket: who may use it, what it answers, and what an operator can do with it."""

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trio

from actors import ChildSpec, Job, SupervisorSpec, open_system
from engram.control import (
    SOCKET_FILE,
    Command,
    CommandRefused,
    ControlClient,
    NotRunning,
    OutcomeUnknown,
    ProtocolError,
)
from engram.control import commands as cmd
from engram.control.protocol import MAX_COMMAND_BYTES, decode_answer, encode_command, reply_type
from engram.control.server import MAX_CONNECTIONS, control_job

R = TypeVar("R")


class Echo(Command[list[int]], frozen=True, tag="echo"):
    numbers: list[int]


class EchoOperations:
    """Answers with what it was asked, or as its name says."""

    def __init__(self) -> None:
        self.taken = trio.Event()
        self.hang = False

    async def carry_out(self, line: bytes) -> object:
        command = msgspec.json.decode(line, type=Echo)
        self.taken.set()
        if self.hang:
            await trio.sleep_forever()
        match command.numbers:
            case [0]:
                raise CommandRefused("zero", "nothing is not taken")
            case [1]:
                raise ZeroDivisionError("an error of ours")
            case _:
                return command.numbers


@asynccontextmanager
async def serving(folder: Path, operations: EchoOperations) -> AsyncIterator[Path]:
    root = SupervisorSpec("root", (ChildSpec("control", start=lambda: Job(control_job(folder, operations))),))
    async with open_system(root):
        yield folder / SOCKET_FILE


async def call(folder: Path, command: Command[R], timeout_s: float = 5.0) -> R:
    client = ControlClient(folder, timeout_s=timeout_s)
    return await trio.to_thread.run_sync(client.call, command, abandon_on_cancel=True)


async def test_a_command_gets_its_answer_and_the_socket_is_the_owners_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, EchoOperations()) as path:
        assert await call(tmp_path, Echo(numbers=[3, 4])) == [3, 4]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_the_folder_may_have_a_name_longer_than_a_socket_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    async with serving(deep, EchoOperations()):
        assert await call(deep, Echo(numbers=[5])) == [5]


async def test_a_dead_processs_socket_is_in_nobodys_way(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET_FILE))
    with pytest.raises(NotRunning):
        await call(tmp_path, Echo(numbers=[2]))
    async with serving(tmp_path, EchoOperations()):
        assert await call(tmp_path, Echo(numbers=[2])) == [2]


async def test_without_a_process_it_is_said_that_none_runs(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing", tmp_path / ("d" * 120)):
        with pytest.raises(NotRunning, match="start it first"):
            await call(folder, Echo(numbers=[2]))


async def test_refusals_and_crashes_are_told_and_the_socket_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path, EchoOperations()):
        with pytest.raises(CommandRefused, match="nothing is not taken") as refused:
            await call(tmp_path, Echo(numbers=[0]))
        assert refused.value.code == "zero"
        with pytest.raises(CommandRefused, match="ZeroDivisionError") as crashed:
            await call(tmp_path, Echo(numbers=[1]))
        assert crashed.value.code == "internal"
        assert await call(tmp_path, Echo(numbers=[7])) == [7]


async def test_no_answer_in_time_is_an_unknown_outcome(tmp_path: Path) -> None:
    operations = EchoOperations()
    operations.hang = True
    async with serving(tmp_path, operations):
        with pytest.raises(OutcomeUnknown):
            await call(tmp_path, Echo(numbers=[2]), timeout_s=0.2)


async def test_a_process_that_dies_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    operations = EchoOperations()
    operations.hang = True
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(OutcomeUnknown):
                await call(tmp_path, Echo(numbers=[2]))

        async with serving(tmp_path, operations):
            nursery.start_soon(ask)
            await operations.taken.wait()


async def test_several_commands_may_share_a_connection_and_garbage_ends_none(tmp_path: Path) -> None:
    async with serving(tmp_path, EchoOperations()) as path, await trio.open_unix_socket(str(path)) as stream:
        sent = b'{"command":"echo","numbers":[1,2]}\n{"command":"nothing"}\n\xff\xfe\n' + b"[" * 50_000 + b"\n"
        await stream.send_all(sent + encode_command(Echo(numbers=[9])))
        received = b""
        with trio.fail_after(5):
            while received.count(b"\n") < 5:
                received += await stream.receive_some(65_536)
        answers = [msgspec.json.decode(line) for line in received.splitlines()]
        assert [answer.get("code", "") for answer in answers] == ["", "bad_command", "bad_command", "bad_command", ""]


async def test_a_command_that_is_too_long_is_refused_on_both_sides(tmp_path: Path) -> None:
    too_long = Echo(numbers=list(range(20_000)))
    with pytest.raises(ProtocolError):
        await call(tmp_path, too_long)
    async with serving(tmp_path, EchoOperations()) as path, await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b"x" * MAX_COMMAND_BYTES)
        with trio.fail_after(5):
            assert b"too_large" in await stream.receive_some(1_000)
            assert await stream.receive_some(1_000) == b""


async def test_operators_beyond_the_bound_are_told_to_come_back_while_all_are_at_work(tmp_path: Path) -> None:
    operations = EchoOperations()
    operations.hang = True
    async with serving(tmp_path, operations) as path:
        held = [await trio.open_unix_socket(str(path)) for _ in range(MAX_CONNECTIONS)]
        for stream in held:
            operations.taken = trio.Event()
            await stream.send_all(encode_command(Echo(numbers=[2])))
            await operations.taken.wait()
        with pytest.raises((CommandRefused, OutcomeUnknown)):
            await call(tmp_path, Echo(numbers=[2]))
        for stream in held:
            await stream.aclose()


async def test_connections_that_say_nothing_lock_no_operator_out(tmp_path: Path) -> None:
    async with serving(tmp_path, EchoOperations()) as path:
        held = [await trio.open_unix_socket(str(path)) for _ in range(MAX_CONNECTIONS)]
        for stream in held:
            await stream.send_all(encode_command(Echo(numbers=[2])))
            assert await stream.receive_some(100)
        assert await call(tmp_path, Echo(numbers=[3])) == [3]
        assert await held[0].receive_some(100) == b""
        await held[-1].send_all(encode_command(Echo(numbers=[4])))
        assert b"4" in await held[-1].receive_some(100)
        for stream in held:
            await stream.aclose()


def test_an_answer_of_another_version_is_a_protocol_error() -> None:
    for line in (b"", b"nothing\n", b'{"ok":{"a":1}}\n', b'{"ok":["x"]}\n', b"\xff\n"):
        with pytest.raises(ProtocolError):
            decode_answer(line, list[int])


def test_every_command_survives_the_wire_and_names_its_answer() -> None:
    samples: list[Command[Any]] = [
        cmd.GetStatus(),
        cmd.ListSessions(state="active", after="x", limit=3),
        cmd.ShowSession(session_id="s"),
        cmd.StopSession(session_id="s"),
        cmd.ReleaseSession(session_id="s"),
        cmd.ListPayments(state="settled", before=1.5),
        cmd.ShowPayment(payment_id="p"),
        cmd.ReleasePayment(payment_id="p"),
        cmd.NoteRefund(payment_id="p", number=1, transaction="0x" + "ab" * 32),
        cmd.SetSelling(on=False),
        cmd.BackupLedger(path="/somewhere"),
        cmd.ListDeadLetters(after=3),
        cmd.ShowDeadLetter(id=3),
        cmd.RetryDeadLetter(id=None),
        cmd.DiscardDeadLetter(id=3),
        cmd.ListNodeKeys(),
        cmd.AddNodeKey(path="/key"),
        cmd.RetireNodeKey(hotkey="5x"),
    ]
    for sample in samples:
        assert cmd.decoder.decode(encode_command(sample)) == sample
        assert reply_type(type(sample)) is not None
