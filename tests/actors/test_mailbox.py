"""Mailboxes: bounds, policies, fairness, what can be observed; events and timers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import (
    Actor,
    ActorDown,
    ActorRef,
    ActorsError,
    ChildSpec,
    Context,
    Counters,
    DeadLetter,
    EventStream,
    HintLost,
    Intensity,
    Job,
    MailboxFull,
    MailboxHighWater,
    MailboxPolicy,
    Message,
    Registry,
    Started,
    SupervisorSpec,
    WrongMessage,
    open_system,
)
from actors.testing import Journal, Probe, recording, run_deterministic, settle
from tests.actors.messages import Add, Boom, Counter, Crash, Leave, Ping, Sleep
from tests.crashes import may_crash

pytestmark = may_crash(Boom)


class Ten(Counter):
    """Room for ten."""

    mailbox = MailboxPolicy(bound=10)


def one(start: Any, **options: Any) -> SupervisorSpec:
    return SupervisorSpec("root", [ChildSpec("a", start, name="a", **options)], intensity=Intensity(1000, 1))


async def test_references_are_made_by_registries_only() -> None:
    with pytest.raises(TypeError):
        ActorRef()
    registry = Registry()
    assert registry.ref(Counter, "a") == registry.ref(Counter, "a") != registry.ref(Counter, "b")
    assert len({registry.ref(Counter, "a"), registry.ref(Counter, "a")}) == 1
    assert repr(registry.ref(Counter, "a")) == "<ActorRef a>"
    with pytest.raises(TypeError):
        raise ActorsError


async def test_a_full_mailbox_refuses_a_tell(autojump_clock: MockClock) -> None:
    async with open_system(one(Ten)) as system:
        ref = system.registry.ref(Ten, "a")
        for _ in range(10):
            ref.tell(Add(1))
        with pytest.raises(MailboxFull) as caught:
            ref.tell(Add(1))
        assert (caught.value.name, caught.value.bound) == ("a", 10)
        assert await ref.call(Add(1)) == 11
        assert system.events.counters.refused_messages == 1


async def test_a_hint_is_delivered_like_a_tell(autojump_clock: MockClock) -> None:
    async with open_system(one(Ten)) as system:
        ref = system.registry.ref(Ten, "a")
        assert all(ref.hint(Add(1)) for _ in range(5))
        assert await ref.call(Add(1)) == 6
        assert system.events.counters.hints_lost == 0


async def test_a_hint_to_a_full_mailbox_is_counted_instead_of_raised(autojump_clock: MockClock) -> None:
    async with open_system(one(Ten)) as system:
        ref = system.registry.ref(Ten, "a")
        with recording(system.events) as recorder:
            assert [ref.hint(Add(1)) for _ in range(12)] == [True] * 10 + [False] * 2
            assert [(lost.name, lost.message, lost.cause) for lost in recorder.of(HintLost)] == [
                ("a", Add(1), "full")
            ] * 2
        assert system.events.counters.hints_lost == 2


async def test_a_hint_before_the_first_start_and_after_the_end_is_counted(autojump_clock: MockClock) -> None:
    registry, events = Registry(), EventStream()
    early, answers = registry.ref(Counter, "later"), list[bool]()

    def first() -> Job:
        answers.extend([early.hint(Add(1)), registry.ref(Counter, "never").hint(Add(1))])

        async def run(context: Context) -> None:
            context.ready()
            await trio.sleep_forever()

        return Job(run)

    tree = SupervisorSpec("root", [ChildSpec("first", first), ChildSpec("later", Counter, name="later")])
    with recording(events) as recorder:
        async with open_system(tree, registry=registry, events=events):
            assert early.hint(Add(1))
        assert early.hint(Add(1)) is False
        assert [(lost.name, lost.cause) for lost in recorder.of(HintLost)] == [
            ("later", "down"),
            ("never", "down"),
            ("later", "down"),
        ]
    assert answers == [False, False]
    assert events.counters.hints_lost == 3


async def test_a_hint_that_the_policy_drops_is_a_dead_letter_and_false(autojump_clock: MockClock) -> None:
    class One(Probe[Any]):
        mailbox = MailboxPolicy(bound=1, when_full="drop_newest")

    async with open_system(one(lambda: One(Journal()))) as system:
        ref = system.registry.ref(One, "a")
        with recording(system.events) as recorder:
            assert (ref.hint(Ping()), ref.hint(Ping())) == (True, False)
            assert [letter.cause for letter in recorder.dead_letters] == ["dropped_newest"]
            assert recorder.of(HintLost) == []


async def test_a_hint_before_any_system_is_only_false() -> None:
    assert Registry().ref(Counter, "a").hint(Add(1)) is False


async def test_a_wrong_hint_is_refused_like_any_message(autojump_clock: MockClock) -> None:
    async with open_system(one(Ten)) as system:
        with pytest.raises(WrongMessage):
            system.registry.ref(Counter, "a").hint("no message")  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", [2, 3]), ("drop_newest", [1, 2])])
async def test_a_full_mailbox_drops_by_its_policy(autojump_clock: MockClock, policy: Any, kept: list[int]) -> None:
    journal: Journal[Any] = Journal()

    class Two(Probe[Any]):
        mailbox = MailboxPolicy(bound=2, when_full=policy)

    async with open_system(one(lambda: Two(journal))) as system:
        with recording(system.events) as recorder:
            ref: ActorRef[Any] = system.registry.ref(Two, "a")
            for n in (1, 2, 3):
                ref.tell(Add(n))
            await settle()
            assert [message.amount for message in journal.messages] == kept
            assert [letter.cause for letter in recorder.dead_letters] == [policy.replace("drop", "dropped")]


async def test_the_policy_drops_what_was_told_and_no_call(autojump_clock: MockClock) -> None:
    class Two(Counter):
        mailbox = MailboxPolicy(bound=2, when_full="drop_oldest")

    async with open_system(one(Two)) as system:
        ref = system.registry.ref(Two, "a")
        ref.tell(Sleep(1))
        await settle()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await ref.call(Ping()) == "pong"

            with recording(system.events) as recorder:
                nursery.start_soon(ask)
                await settle()
                for amount in (1, 2, 3):
                    ref.tell(Add(amount))
                nursery.start_soon(ask)  # waits for room
                await settle()
                assert [letter.message for letter in recorder.dead_letters] == [Add(1), Add(2)]
                assert {letter.cause for letter in recorder.dead_letters} == {"dropped_oldest"}
        assert await ref.call(Add(0)) == 3


async def test_a_mailbox_full_of_calls_drops_what_is_told(autojump_clock: MockClock) -> None:
    class Two(Counter):
        mailbox = MailboxPolicy(bound=2, when_full="drop_oldest")

    async def ask() -> None:
        assert await ref.call(Ping()) == "pong"

    async with open_system(one(Two)) as system, trio.open_nursery() as nursery:
        ref = system.registry.ref(Two, "a")
        ref.tell(Sleep(1))
        await settle()
        for _ in range(2):
            nursery.start_soon(ask)
        await settle()
        with recording(system.events) as recorder:
            ref.tell(Add(1))
            assert [letter.cause for letter in recorder.dead_letters] == ["dropped_newest"]


async def test_senders_wait_for_room_in_their_order(autojump_clock: MockClock) -> None:
    journal: Journal[Any] = Journal()

    class Small(Probe[Any]):
        mailbox = MailboxPolicy(bound=4)

    async def slow(_: object) -> None:
        await trio.sleep(1)

    async with open_system(one(lambda: Small(journal, {Add: slow}))) as system:
        ref: ActorRef[Any] = system.registry.ref(Small, "a")
        async with trio.open_nursery() as nursery:
            for n in range(30):
                nursery.start_soon(ref.send, Add(n))
                await settle()
        await journal.wait_until(lambda j: len(j.messages) == 30, 60)
        assert [message.amount for message in journal.messages] == list(range(30))


async def test_many_senders_share_a_small_mailbox_fairly(autojump_clock: MockClock) -> None:
    journal: Journal[Any] = Journal()

    class Small(Probe[Any]):
        mailbox = MailboxPolicy(bound=8)

    async with open_system(one(lambda: Small(journal))) as system:
        ref: ActorRef[Any] = system.registry.ref(Small, "a")

        async def produce(me: int) -> None:
            for _ in range(50):
                await ref.send(Add(me))

        async with trio.open_nursery() as nursery:
            for me in range(20):
                nursery.start_soon(produce, me)
        await journal.wait_until(lambda j: len(j.messages) == 1000, 60)
        first_half = [message.amount for message in journal.messages[:500]]
        assert all(first_half.count(me) >= 10 for me in range(20))


async def test_a_cancelled_sender_sent_nothing(autojump_clock: MockClock) -> None:
    async with open_system(one(Ten)) as system:
        ref = system.registry.ref(Ten, "a")
        ref.tell(Sleep(5))
        await settle()
        for _ in range(10):
            ref.tell(Add(1))
        with trio.move_on_after(1) as scope:
            await ref.send(Add(1000))
        assert scope.cancelled_caught
        assert await ref.call(Add(1), timeout=20) == 11


async def test_abandoned_calls_make_room(autojump_clock: MockClock) -> None:
    async with open_system(one(Ten)) as system:
        ref = system.registry.ref(Ten, "a")
        ref.tell(Sleep(5))
        await settle()
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(12):
                    nursery.start_soon(ref.call, Add(1000))
        for _ in range(10):
            ref.tell(Add(1))
        with pytest.raises(MailboxFull):
            ref.tell(Add(1))
        assert await ref.call(Add(1), timeout=20) == 11


async def test_a_wrong_message_is_refused_and_subclasses_are_fine(autojump_clock: MockClock) -> None:
    class Extra(Add, frozen=True):
        note: str = ""

    async with open_system(one(Counter)) as system:
        ref: ActorRef[Any] = system.registry.ref(Counter, "a")
        assert await ref.call(Extra(3)) == 3
        for bad in ("text", None, 42):
            with pytest.raises(WrongMessage):
                ref.tell(bad)


async def test_a_job_takes_no_messages(autojump_clock: MockClock) -> None:
    async def run(context: Context) -> None:
        context.ready()
        await trio.sleep_forever()

    async with open_system(one(lambda: Job(run))) as system:
        ref: ActorRef[Any] = system.registry.ref(Counter, "a")
        with pytest.raises(WrongMessage):
            ref.tell(Ping())


async def test_depth_and_age_are_shown(autojump_clock: MockClock) -> None:
    async with open_system(one(Ten)) as system:
        ref = system.registry.ref(Ten, "a")
        node = system.tree()[1]
        assert (node.mailbox_depth, node.mailbox_bound, node.oldest_age_s) == (0, 10, None)
        ref.tell(Sleep(3))
        await settle()
        await trio.sleep(1)
        ref.tell(Sleep(3))
        await trio.sleep(1)
        ref.tell(Add(1))
        node = system.tree()[1]
        assert node.mailbox_depth == 2
        assert node.oldest_age_s == pytest.approx(1.0)
        await trio.sleep(2)
        node = system.tree()[1]
        assert node.mailbox_depth == 1
        assert node.oldest_age_s is not None
        assert 2.0 - 1e-9 <= node.oldest_age_s <= 3.0 + 1e-9
        await trio.sleep(10)
        assert system.tree()[1].oldest_age_s is None


async def test_the_high_water_mark_is_told_once_until_it_fell(autojump_clock: MockClock) -> None:
    async with open_system(one(Ten)) as system:
        with recording(system.events) as recorder:
            ref = system.registry.ref(Ten, "a")
            for _ in range(2):
                ref.tell(Sleep(1))
                await settle()
                for _ in range(10):
                    ref.tell(Add(1))
                await trio.sleep(5)
            marks = recorder.of(MailboxHighWater)
            assert [(mark.name, mark.depth, mark.bound) for mark in marks] == [("a", 7, 10)] * 2


async def test_the_loop_is_shared_by_a_busy_mailbox() -> None:
    """Others run at least every 64 messages."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    class Big(Counter):
        mailbox = MailboxPolicy(bound=100_000)

    async with open_system(one(Big)) as system:
        ref = system.registry.ref(Big, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(6400):
                ref.tell(Add(1))
            turns = 0
            assert await ref.call(Add(1)) == 6401
            assert turns >= 100
            nursery.cancel_scope.cancel()


async def test_messages_to_the_closed_are_dead_letters_or_refused(autojump_clock: MockClock) -> None:
    async with open_system(one(Counter, restart="transient")) as system:
        with recording(system.events) as recorder:
            ref = system.registry.ref(Counter, "a")
            ref.tell(Leave())
            ref.tell(Add(1))
            await settle()
            assert [(letter.message, letter.cause) for letter in recorder.dead_letters] == [(Add(1), "down")]
            with pytest.raises(ActorDown):
                ref.tell(Add(1))
            with pytest.raises(ActorDown):
                await ref.send(Add(1))


class Tick(Message[None], frozen=True):
    """From a timer."""

    n: int = 0


class Clockwork(Actor[Tick | Crash | Sleep]):
    """Notes when it is ticked."""

    def __init__(self, seen: list[float], period_s: float | None, jitter: float = 0.0) -> None:
        self.seen, self.period_s, self.jitter = seen, period_s, jitter

    async def on_start(self, context: Context) -> None:
        if self.period_s is None:
            self.timer = context.after(2.0, Tick())
            context.after(1.0, Tick(1)).cancel()
        else:
            self.timer = context.every(self.period_s, Tick(), self.jitter)

    async def handle(self, message: Tick | Crash | Sleep) -> object:
        if isinstance(message, Tick):
            self.seen.append(trio.current_time())
            if len(self.seen) == 5:
                self.timer.cancel()
            return None
        if isinstance(message, Sleep):
            await trio.sleep(message.seconds)
            return "slept"
        raise ValueError(message.text)


async def test_timers_fire_once_or_again_and_again(autojump_clock: MockClock) -> None:
    once: list[float] = []
    often: list[float] = []
    children = [
        ChildSpec("once", lambda: Clockwork(once, None)),
        ChildSpec("often", lambda: Clockwork(often, 3.0)),
    ]
    async with open_system(SupervisorSpec("root", children)):
        began = trio.current_time()
        await trio.sleep(100)
    assert [at - began for at in once] == pytest.approx([2.0])
    assert [at - began for at in often] == pytest.approx([3.0, 6.0, 9.0, 12.0, 15.0])


@may_crash(ValueError)
async def test_timers_are_spread_by_jitter_and_end_with_their_life(autojump_clock: MockClock) -> None:
    seen: list[float] = []
    async with open_system(one(lambda: Clockwork(seen, 10.0, 0.5))) as system:
        await trio.sleep(41)
        gaps = [after - before for before, after in pairwise(seen)]
        assert all(5 <= gap <= 15 for gap in gaps)
        assert len({round(gap, 6) for gap in gaps}) == len(gaps) > 0
        system.registry.ref(Clockwork, "a").tell(Crash())
        await settle()
        seen.clear()
        await trio.sleep(16)
        assert 1 <= len(seen) <= 3


async def test_a_timer_that_finds_no_room_is_a_dead_letter(autojump_clock: MockClock) -> None:
    class One(Clockwork):
        mailbox = MailboxPolicy(bound=1)

    seen: list[float] = []
    async with open_system(one(lambda: One(seen, 1.0))) as system:
        with recording(system.events) as recorder:
            system.registry.ref(One, "a").tell(Sleep(3.5))
            await trio.sleep(3.2)
            assert [letter.cause for letter in recorder.dead_letters] == ["timer", "timer"]


@may_crash(ValueError)
async def test_every_wants_a_period(autojump_clock: MockClock) -> None:
    from actors import StartFailed

    with pytest.raises(StartFailed):
        async with open_system(one(lambda: Clockwork([], 0.0))):
            raise AssertionError("the block must not run")  # pragma: no cover


async def test_a_subscription_is_bounded_and_counts_what_it_lost(autojump_clock: MockClock) -> None:
    events = EventStream()
    with events.subscribe(bound=2) as subscription:
        for n in range(4):
            events.publish(Started(f"p{n}", "worker", 0.0))
        assert subscription.dropped == events.counters.dropped_events == 2
        taken = [event async for event in _first(subscription, 2)]
        assert [event.path for event in taken] == ["p2", "p3"]
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                await trio.sleep(1)
                events.publish(Started("late", "worker", 1.0))

            nursery.start_soon(publish)
            late = await subscription.__anext__()
        assert isinstance(late, Started)
    assert not events.listening


async def _first(subscription: Any, count: int) -> Any:
    for _ in range(count):
        yield await subscription.__anext__()


async def test_a_listener_that_raises_harms_nobody() -> None:
    events = EventStream()
    seen: list[object] = []

    def bad(_: object) -> None:
        raise ValueError("listener")

    with events.listen(bad), events.listen(seen.append):
        events.publish(Started("p", "worker", 0.0))
    assert len(seen) == 1
    assert events.counters == Counters(listener_errors=1)
    with pytest.raises(ValueError, match="list"):
        events.remove_listener(bad)


def test_the_table_of_events_is_the_contract() -> None:
    import actors._events as module
    from actors import ActorEvent

    rows: dict[str, list[str]] = {}
    for line in (module.__doc__ or "").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0] not in ("event", "") and not cells[0].startswith("-"):
            rows[cells[0]] = cells[2].split(", ")
    classes = {kind.__name__: kind for kind in ActorEvent.__args__}
    assert set(rows) == set(classes)
    for name, fields in rows.items():
        assert list(classes[name].__struct_fields__) == [*fields, "at"]


def test_the_same_seed_gives_the_same_run() -> None:
    async def order(count: int) -> list[int]:
        seen: list[int] = []

        async def work(n: int) -> None:
            await trio.lowlevel.checkpoint()
            seen.append(n)

        async with trio.open_nursery() as nursery:
            for n in range(count):
                nursery.start_soon(work, n)
        return seen

    runs = {seed: run_deterministic(order, 20, seed=seed) for seed in range(20)}
    assert all(run_deterministic(order, 20, seed=seed) == run for seed, run in runs.items())
    assert len({tuple(run) for run in runs.values()}) > 1


async def test_a_dead_letter_tells_what_and_why(autojump_clock: MockClock) -> None:
    async with open_system(one(Counter)) as system:
        with recording(system.events) as recorder:
            system.registry.ref(Counter, "a").tell(Crash("why"))
            letter = await recorder.wait_for(DeadLetter)
            assert (letter.name, letter.message, letter.cause) == ("a", Crash("why"), "crashed")
            with pytest.raises(trio.TooSlowError):
                await recorder.wait_for(DeadLetter, lambda event: event.name == "b", 1)


async def test_a_probe_answers_records_and_can_be_waited_for(autojump_clock: MockClock) -> None:
    journal: Journal[Any] = Journal()
    async with open_system(one(lambda: Probe(journal, {Ping: "pong", Add: lambda add: add.amount}))) as system:
        ref: ActorRef[Any] = system.registry.ref(Probe, "a")
        assert await ref.call(Ping()) == "pong"
        assert await ref.call(Add(4)) == 4
        assert await journal.next() == Ping()
        assert await journal.next() == Add(4)
        with pytest.raises(trio.TooSlowError):
            await journal.next(1)
        assert journal.starts == 1
