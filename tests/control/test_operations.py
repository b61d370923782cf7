"""What each command does to a ledger."""

from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trio
from sqlalchemy import Connection

from config.model import ChainSettings
from engram.chain.sync.subnets import Subnets
from engram.clock import ManualClock
from engram.control import Command, CommandRefused
from engram.control import commands as cmd
from engram.control.operations import GatewayOperations
from engram.control.protocol import decode_answer, encode_command, encode_success, reply_type
from engram.control.status import status_of
from engram.hotkeys import Keypair, wallet
from engram.hotkeys.passwords import password_for
from engram.ledger import LEDGER_FILE, backup, open_inline
from engram.payments import records as payment_records
from engram.payments import reservations
from engram.payments.model import HoldLimits
from engram.payments.rules import PaymentEvent
from engram.relay import MemoryPayload
from engram.relay import records as relay_records
from engram.sessions import ClockInstants, Session, SessionEvent, SessionState, TierName
from engram.sessions import records as session_records
from tests.fakes.hints import RecordedHints
from tests.hotkeys.test_passwords import ENCRYPTED, PASSWORD, SEED, password_file
from tests.payments import builders

R = TypeVar("R")


class Switch:
    def __init__(self) -> None:
        self.on = True

    async def switch(self, *, on: bool) -> None:
        self.on = on

    async def is_on(self) -> bool:
        return self.on


class Desk:
    """An operator's desk: commands go over the wire's encoding."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.ledger = open_inline(folder / LEDGER_FILE)
        self.hints, self.switch = RecordedHints(), Switch()
        instants = ClockInstants(self.clock)
        self.now = instants.now
        self.password_file = ""

        async def nothing() -> dict[str, dict[str, object]]:
            return {"relay": {"pending": 0}}

        status = status_of(
            "local",
            self.ledger,
            self.clock,
            Subnets(self.clock, ChainSettings().netuids, 60.0),
            list,
            self.switch.is_on,
            lambda: 0,
            nothing,
        )
        self.operations = GatewayOperations(
            folder, self.ledger, self.clock, instants, self.switch, self.hints, status, self.password_of
        )

    def password_of(self, key_file: Path) -> str | None:
        return password_for(key_file, self.password_file, "miner.hotkey_password_file", environ=None)

    async def ask(self, command: Command[R]) -> R:
        answer = encode_success(await self.operations.carry_out(encode_command(command)))
        return decode_answer(answer, reply_type(type(command)))

    def add_session(self, name: str, **changes: Any) -> None:
        session = Session(
            id=name,
            controller=builders.ALICE,
            state=SessionState.PROVISIONING,
            tier=TierName.LITE,
            paid_s=3_600.0,
            amount_usd_micros=100_000,
            network="engram-play",
            payment_id=f"payment of {name}",
            created_at=self.clock.now(),
        )
        changed = msgspec.structs.replace(session, **changes)
        self.ledger.write_now(lambda connection: session_records.insert_session(connection, changed))


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    desk = Desk(tmp_path)
    yield desk
    desk.ledger.close()


async def test_sessions_are_listed_page_by_page_and_by_state(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        desk.add_session(name)
    desk.add_session("d", state=SessionState.ACTIVE)
    first = await desk.ask(cmd.ListSessions(limit=2))
    second = await desk.ask(cmd.ListSessions(limit=2, after=first.after))
    third = await desk.ask(cmd.ListSessions(limit=2, after=second.after))
    assert [row.session_id for page in (first, second, third) for row in page.rows] == ["a", "b", "c", "d"]
    assert third.after == ""
    assert [row.session_id for row in (await desk.ask(cmd.ListSessions(state="active"))).rows] == ["d"]
    with pytest.raises(CommandRefused, match="payment_pending, provisioning, active"):
        await desk.ask(cmd.ListSessions(state="asleep"))


async def test_a_session_is_shown_with_its_history(desk: Desk) -> None:
    desk.add_session("a")
    shown = await desk.ask(cmd.ShowSession(session_id="a"))
    assert shown.session.status == "provisioning"
    assert [event.event for event in shown.events] == ["provisioning"]
    with pytest.raises(CommandRefused, match="no session b"):
        await desk.ask(cmd.ShowSession(session_id="b"))


async def test_an_operators_stop_is_durable_and_hinted(desk: Desk) -> None:
    desk.add_session("a")
    stopped = await desk.ask(cmd.StopSession(session_id="a"))
    assert (stopped.changed, stopped.message) == (True, "a is stopping")
    assert desk.hints.given == ["session_changed a"]
    shown = await desk.ask(cmd.ShowSession(session_id="a"))
    assert shown.session.end_reason == "stopped_by_operator"
    again = await desk.ask(cmd.StopSession(session_id="a"))
    assert (again.changed, again.message) == (False, "a is stopping")
    with pytest.raises(CommandRefused):
        await desk.ask(cmd.StopSession(session_id="b"))


async def test_a_quarantined_session_is_seen_and_released(desk: Desk) -> None:
    desk.add_session("a")
    for _ in range(5):
        await desk.ledger.write(lambda connection: session_records.count_crash(connection, "a", desk.clock.now()))
    assert (await desk.ask(cmd.ListSessions())).rows[0].quarantined_at is not None
    assert (await desk.ask(cmd.GetStatus())).quarantined == ["a"]
    assert (await desk.ask(cmd.ReleaseSession(session_id="a"))).changed
    assert (await desk.ask(cmd.GetStatus())).quarantined == []
    with pytest.raises(CommandRefused):
        await desk.ask(cmd.ReleaseSession(session_id="b"))


async def test_payments_are_shown_without_what_could_pay(desk: Desk) -> None:
    reservation = builders.reservation("one")
    await desk.ledger.write(lambda connection: reservations.reserve(connection, reservation))
    page = await desk.ask(cmd.ListPayments())
    row = page.rows[0]
    assert (row.state, row.kind, row.amount_atomic, row.hours) == ("reserved", "session", 100_000, 1.0)
    assert row.payer.lower() == "0x" + builders.PAYER.hex()
    assert page.before is None
    shown = await desk.ask(cmd.ShowPayment(payment_id=row.payment_id))
    assert shown.refunds == []
    text = msgspec.json.encode(shown).decode()
    assert reservation.payment.nonce.hex() not in text
    assert (await desk.ask(cmd.ListPayments(state="settled"))).rows == []
    assert (await desk.ask(cmd.ReleasePayment(payment_id=row.payment_id))).changed
    assert desk.hints.given == ["payments_changed"]
    with pytest.raises(CommandRefused):
        await desk.ask(cmd.ShowPayment(payment_id="x"))
    with pytest.raises(CommandRefused):
        await desk.ask(cmd.ReleasePayment(payment_id="x"))


async def test_a_refund_sent_by_hand_is_noted_once(desk: Desk) -> None:
    reservation = builders.reservation("one")

    def owe(connection: Connection) -> None:
        reservations.reserve(connection, reservation)
        for event in (PaymentEvent.VERIFIED, PaymentEvent.SETTLED, PaymentEvent.OWED):
            payment_records.advance(connection, reservation.payment.id, event, builders.instant())

    await desk.ledger.write(owe)
    sent = cmd.NoteRefund(payment_id=reservation.payment.id, number=1, transaction="0x" + "AB" * 32)
    assert (await desk.ask(sent)).changed
    shown = await desk.ask(cmd.ShowPayment(payment_id=reservation.payment.id))
    assert (shown.payment.state, shown.refunds[0].state) == ("refunded", "refunded")
    assert (shown.refunds[0].transaction, shown.refunds[0].answer) == ("0x" + "ab" * 32, "sent_by_hand")
    with pytest.raises(CommandRefused):
        await desk.ask(sent)


async def test_no_payment_is_left_out_between_two_pages(desk: Desk) -> None:
    roomy = HoldLimits(places=100, live_per_hotkey=100, holds_per_payer=100, holds_per_address=100)
    made = [builders.reservation(str(n), limits=roomy, created_at=float(n // 3)) for n in range(10)]
    for reservation in made:
        await desk.ledger.write(partial(reservations.reserve, reservation=reservation))
    seen: list[str] = []
    before = None
    while True:
        page = await desk.ask(cmd.ListPayments(limit=2, before=before))
        seen += [row.payment_id for row in page.rows]
        if page.before is None:
            break
        before = page.before
    assert sorted(seen) == sorted(reservation.payment.id for reservation in made)


async def test_selling_is_switched(desk: Desk) -> None:
    assert "running sessions go on" in (await desk.ask(cmd.SetSelling(on=False))).message
    assert desk.switch.on is False
    assert (await desk.ask(cmd.GetStatus())).selling is False


async def test_a_backup_is_a_whole_ledger(desk: Desk, tmp_path: Path) -> None:
    desk.add_session("a")
    made = await desk.ask(cmd.BackupLedger(path=str(tmp_path / "copy.db")))
    assert made.bytes == (tmp_path / "copy.db").stat().st_size
    report = await trio.to_thread.run_sync(backup.check, tmp_path / "copy.db")
    assert report.problems == []
    assert report.rows["sessions"] == 1
    with pytest.raises(CommandRefused, match="exists already"):
        await desk.ask(cmd.BackupLedger(path=str(tmp_path / "copy.db")))
    with pytest.raises(CommandRefused, match="not absolute"):
        await desk.ask(cmd.BackupLedger(path="copy.db"))


@pytest.mark.parametrize(
    "line",
    [
        b'{"command":"show_dead_letter","id":9223372036854775808}',
        b'{"command":"retry_dead_letter","id":-1}',
        b'{"command":"discard_dead_letter","id":99999999999999999999999}',
        b'{"command":"list_dead_letters","after":9223372036854775808}',
        b'{"command":"show_dead_letter","id":1e300}',
    ],
)
async def test_a_number_that_no_row_can_have_is_no_command(desk: Desk, line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        await desk.operations.carry_out(line)


async def test_a_path_with_nul_is_no_command(desk: Desk) -> None:
    with pytest.raises(CommandRefused, match="NUL") as refused:
        await desk.ask(cmd.BackupLedger(path="/a\0b"))
    assert refused.value.code == "bad_command"
    with pytest.raises(CommandRefused, match="NUL"):
        await desk.ask(cmd.AddNodeKey(path="/a\0b"))


async def test_dead_letters_are_listed_shown_retried_and_discarded(desk: Desk) -> None:
    payload = MemoryPayload(netuid=450, block=1, round_ts=1.0, output_hash="ab", nonce="1:1:1", nodes={})
    await desk.ledger.write(
        lambda connection: relay_records.enqueue(connection, payload, desk.clock.now(), signer="5Grwva")
    )
    assert await desk.ask(cmd.ListDeadLetters()) == []
    with pytest.raises(CommandRefused, match="not abandoned"):
        await desk.ask(cmd.RetryDeadLetter(id=1))
    abandon(desk, 1)
    assert [row.id for row in await desk.ask(cmd.ListDeadLetters())] == [1]
    shown = await desk.ask(cmd.ShowDeadLetter(id=1))
    assert '"netuid":450' in shown.payload
    await desk.ask(cmd.RetryDeadLetter(id=1))
    assert await desk.ask(cmd.ListDeadLetters()) == []
    abandon(desk, 1)
    assert (await desk.ask(cmd.RetryDeadLetter())).message == "1 will be sent again"
    abandon(desk, 1)
    await desk.ask(cmd.DiscardDeadLetter(id=1))
    assert (await desk.ask(cmd.ShowDeadLetter(id=1))).entry.state == "discarded"
    assert set(desk.hints.given) == {"outbox_changed"}
    with pytest.raises(CommandRefused):
        await desk.ask(cmd.ShowDeadLetter(id=2))


def abandon(desk: Desk, entry_id: int) -> None:
    from sqlalchemy import update

    from engram.relay.tables import relay_outbox

    change = update(relay_outbox).where(relay_outbox.c.id == entry_id).values(state="abandoned")
    desk.ledger.write_now(lambda connection: connection.execute(change))


async def test_the_pool_of_node_keys_takes_wallet_files(desk: Desk, tmp_path: Path) -> None:
    keypair = Keypair.generate()
    file = tmp_path / "hotkey"
    wallet.write_hotkey_file(file, keypair)
    assert keypair.ss58 in (await desk.ask(cmd.AddNodeKey(path=str(file)))).message
    row = (await desk.ask(cmd.ListNodeKeys()))[0]
    assert (row.hotkey, row.path, row.retired_at) == (keypair.ss58, str(file), None)
    with pytest.raises(CommandRefused, match="already"):
        await desk.ask(cmd.AddNodeKey(path=str(file)))
    await desk.ask(cmd.RetireNodeKey(hotkey=keypair.ss58))
    assert (await desk.ask(cmd.ListNodeKeys()))[0].retired_at is not None
    file.chmod(0o644)
    with pytest.raises(CommandRefused, match="chmod 600"):
        await desk.ask(cmd.AddNodeKey(path=str(file)))
    for command in (cmd.AddNodeKey(path=str(tmp_path / "none")), cmd.RetireNodeKey(hotkey="5x")):
        with pytest.raises(CommandRefused):
            await desk.ask(command)


async def test_an_encrypted_key_without_the_password_that_its_node_would_need_is_refused(
    desk: Desk, tmp_path: Path
) -> None:
    file = tmp_path / "hotkey"
    file.write_bytes(ENCRYPTED.read_bytes())
    file.chmod(0o600)
    with pytest.raises(CommandRefused, match=r"encrypted: .*miner\.hotkey_password_file$"):
        await desk.ask(cmd.AddNodeKey(path=str(file)))


@pytest.mark.nightly
async def test_an_encrypted_key_is_taken_when_its_password_opens_it(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "hotkey"
    file.write_bytes(ENCRYPTED.read_bytes())
    file.chmod(0o600)
    desk.password_file = str(password_file(tmp_path, b"not the one"))
    with pytest.raises(CommandRefused, match="wrong password"):
        await desk.ask(cmd.AddNodeKey(path=str(file)))
    password_file(tmp_path, PASSWORD.encode())
    assert Keypair.from_seed(SEED).ss58 in (await desk.ask(cmd.AddNodeKey(path=str(file)))).message


async def test_status_counts_what_there_is(desk: Desk) -> None:
    desk.add_session("a")
    desk.add_session("b")
    await desk.ask(cmd.StopSession(session_id="b"))
    desk.clock.advance(5)
    status = await desk.ask(cmd.GetStatus())
    assert status.sessions == {"provisioning": 1, "stopping": 1}
    assert status.uptime_s == 5
    assert status.extra == {"relay": {"pending": 0}}
    assert status.libraries["trio"] != "not installed"


async def test_a_ledger_that_cannot_be_asked_is_a_refusal(desk: Desk) -> None:
    desk.ledger.close()
    with pytest.raises(CommandRefused, match="closed"):
        await desk.ask(cmd.ListSessions())


async def test_an_operators_stop_of_an_active_session_is_kept_as_such(desk: Desk) -> None:
    desk.add_session("a")
    now = desk.now()
    await desk.ledger.write(lambda c: session_records.transition(c, "a", SessionEvent.NODE_READY, now))
    await desk.ask(cmd.StopSession(session_id="a"))
    assert (await desk.ask(cmd.ListSessions(state="stopping"))).rows[0].session_id == "a"
