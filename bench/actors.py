"""Actors against bare queues: asyncio.Queue (also on uvloop), a trio memory channel, a bare trio deque, Pykka, OTP.

Rates are per CPU second of this process. Peers run in the same call, in turn with ours, and a ratio is the median of
the ratios of the rounds. The yardstick of restarting and stopping is bare trio tasks (bench/support/bare_tasks.py).
`python -m bench.actors [--quick]`; OTP's figures need `erl` on the PATH.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import outcome
import pykka
import trio
import uvloop

from actors import (
    Actor,
    ActorRef,
    ChildSpec,
    EventStream,
    Intensity,
    MailboxPolicy,
    Message,
    Registry,
    SupervisorSpec,
    open_system,
)
from bench.support import bare_tasks

QUICK = "--quick" in sys.argv
SCALE = 10 if QUICK else 1
ROUNDS = 3 if QUICK else 7
MESSAGES = 200_000 // SCALE
CALLS = 20_000 // SCALE
SENDERS = 100


# --- ours ------------------------------------------------------------------------------------------------------------


class Tick(Message[None], frozen=True):
    """One-way."""

    n: int


class Echo(Message[int], frozen=True):
    """Replied to with `n`."""

    n: int


class Crash(Message[None], frozen=True):
    """Crashes the actor."""


class Sink(Actor[Tick | Echo | Crash]):
    """Counts, and sets an event at the last message."""

    mailbox = MailboxPolicy(bound=1024)

    def __init__(self, last: int = 0, done: trio.Event | None = None) -> None:
        self.left = last
        self.done = done

    async def handle(self, message: Tick | Echo | Crash) -> object:
        if type(message) is Tick:
            self.left -= 1
            if not self.left and self.done is not None:
                self.done.set()
            return None
        if type(message) is Echo:
            return message.n
        raise RuntimeError("crash")


class Roomy(Sink):
    """For one-way bursts."""

    mailbox = MailboxPolicy(bound=1 << 30)


Body = Callable[[ActorRef[Tick | Echo | Crash]], Awaitable[None]]


async def in_system(make: Callable[[], Sink], body: Body, events: EventStream | None = None) -> None:
    registry = Registry()
    ref = registry.ref(Sink, "sink")
    spec = SupervisorSpec("root", [ChildSpec("sink", make, name="sink")], intensity=Intensity(1 << 40, 1.0))
    async with open_system(spec, registry=registry, events=events, log_crashes=False):
        await body(ref)


def cpu(run: Callable[[], object]) -> float:
    """CPU seconds of `run`."""
    gc.collect()
    began = time.process_time()
    run()
    return time.process_time() - began


def ours_oneway(events: EventStream | None = None) -> float:
    async def main() -> float:
        done = trio.Event()
        spent = 0.0

        async def body(ref: ActorRef[Tick]) -> None:
            nonlocal spent
            message = Tick(1)
            began = time.process_time()
            for burst in range(MESSAGES // 1000):
                for _ in range(1000):
                    ref.tell(message)
                if burst % 8 == 7:
                    await trio.lowlevel.checkpoint()
            await done.wait()
            spent = time.process_time() - began

        await in_system(lambda: Roomy(MESSAGES, done), body, events)
        return spent

    gc.collect()
    return MESSAGES / trio.run(main)


def asyncio_oneway(run: Callable[[Any], Any] = asyncio.run) -> float:
    async def main() -> float:
        queue: asyncio.Queue[Tick] = asyncio.Queue()

        async def consume() -> None:
            for _ in range(MESSAGES):
                await queue.get()

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(0)
        message = Tick(1)
        began = time.process_time()
        for burst in range(MESSAGES // 1000):
            for _ in range(1000):
                queue.put_nowait(message)
            if burst % 8 == 7:
                await asyncio.sleep(0)
        await consumer
        return time.process_time() - began

    gc.collect()
    return float(MESSAGES / run(main()))


def channel_oneway() -> float:
    count = MESSAGES // 4

    async def main() -> float:
        send, receive = trio.open_memory_channel[Tick](math.inf)
        done = trio.Event()

        async def consume() -> None:
            for _ in range(count):
                await receive.receive()
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            message = Tick(1)
            began = time.process_time()
            for _ in range(count):
                send.send_nowait(message)
            await done.wait()
            return time.process_time() - began

    gc.collect()
    return count / trio.run(main)


class PykkaSink(pykka.ThreadingActor):
    """Returns what it is sent."""

    def on_receive(self, message: Any) -> Any:
        return message


def pykka_oneway() -> float:
    count = MESSAGES // 4
    ref = PykkaSink.start()
    message = Tick(1)

    def run() -> None:
        for _ in range(count):
            ref.tell(message)
        ref.ask(message)

    rate = count / cpu(run)
    ref.stop()
    return rate


def pykka_calls() -> float:
    count = CALLS // 4
    ref = PykkaSink.start()

    def run() -> None:
        for n in range(count):
            ref.ask(n, timeout=5)

    rate = count / cpu(run)
    ref.stop()
    return rate


def ours_fanin() -> float:
    each = MESSAGES // SENDERS

    async def main() -> float:
        done = trio.Event()
        spent = 0.0

        async def body(ref: ActorRef[Tick]) -> None:
            nonlocal spent
            message = Tick(1)

            async def produce() -> None:
                for _ in range(each):
                    await ref.send(message)

            began = time.process_time()
            async with trio.open_nursery() as nursery:
                for _ in range(SENDERS):
                    nursery.start_soon(produce)
            await done.wait()
            spent = time.process_time() - began

        await in_system(lambda: Sink(MESSAGES, done), body)
        return spent

    gc.collect()
    return MESSAGES / trio.run(main)


def asyncio_fanin(run: Callable[[Any], Any] = asyncio.run) -> float:
    each = MESSAGES // SENDERS

    async def main() -> float:
        queue: asyncio.Queue[Tick] = asyncio.Queue(1024)

        async def consume() -> None:
            for _ in range(MESSAGES):
                await queue.get()

        message = Tick(1)

        async def produce() -> None:
            for _ in range(each):
                await queue.put(message)

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(0)
        began = time.process_time()
        await asyncio.gather(*(produce() for _ in range(SENDERS)))
        await consumer
        return time.process_time() - began

    gc.collect()
    return float(MESSAGES / run(main()))


def ours_calls(callers: int) -> float:
    each = CALLS // callers

    async def main() -> float:
        spent = 0.0

        async def body(ref: ActorRef[Echo]) -> None:
            nonlocal spent

            async def ask() -> None:
                for n in range(each):
                    await ref.call(Echo(n), timeout=5.0)

            await ref.call(Echo(0))
            began = time.process_time()
            if callers == 1:
                await ask()
            else:
                async with trio.open_nursery() as nursery:
                    for _ in range(callers):
                        nursery.start_soon(ask)
            spent = time.process_time() - began

        await in_system(Sink, body)
        return spent

    gc.collect()
    return each * callers / trio.run(main)


def asyncio_calls(run: Callable[[Any], Any] = asyncio.run) -> float:
    async def main() -> float:
        queue: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue()

        async def consume() -> None:
            while True:
                n, reply = await queue.get()
                if not reply.done():
                    reply.set_result(n)

        loop = asyncio.get_running_loop()
        consumer = asyncio.create_task(consume())
        began = time.process_time()
        for n in range(CALLS):
            async with asyncio.timeout(5.0):
                reply: asyncio.Future[int] = loop.create_future()
                await queue.put((n, reply))
                await reply
        spent = time.process_time() - began
        consumer.cancel()
        return spent

    gc.collect()
    return float(CALLS / run(main()))


class Bare:
    """The least that can be called an actor on trio: a deque, one parked consumer, no supervision, no deadlines."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, list[Any]]] = deque()
        self.consumer: trio.lowlevel.Task | None = None

    async def run(self) -> None:
        queue = self.queue
        while True:
            for _ in range(64):
                if not queue:
                    break
                n, slot = queue.popleft()
                trio.lowlevel.reschedule(slot[0], outcome.Value(await self.handle(n)))
            if queue:
                await trio.lowlevel.checkpoint()
            else:
                self.consumer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self.abort)

    async def handle(self, n: int) -> int:
        return n

    def abort(self, _: object) -> trio.lowlevel.Abort:
        self.consumer = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def call(self, n: int) -> Any:
        self.queue.append((n, [trio.lowlevel.current_task()]))
        if self.consumer is not None:
            trio.lowlevel.reschedule(self.consumer)
            self.consumer = None
        return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)


def bare_calls(callers: int) -> float:
    each = CALLS // callers

    async def main() -> float:
        bare = Bare()

        async def ask() -> None:
            for n in range(each):
                await bare.call(n)

        async with trio.open_nursery() as outer:
            outer.start_soon(bare.run)
            await bare.call(0)
            began = time.process_time()
            async with trio.open_nursery() as nursery:
                for _ in range(callers):
                    nursery.start_soon(ask)
            spent = time.process_time() - began
            outer.cancel_scope.cancel()
        return spent

    gc.collect()
    return each * callers / trio.run(main)


def restart_us() -> list[float]:
    """Microseconds from a crash to the first reply of the restarted actor."""
    times: list[float] = []

    async def body(ref: ActorRef[Echo | Crash]) -> None:
        for n in range(4000 // SCALE):
            began = time.perf_counter()
            ref.tell(Crash())
            await ref.call(Echo(n))
            times.append((time.perf_counter() - began) * 1e6)

    gc.collect()
    trio.run(in_system, Sink, body)
    return times


def ours_spawn(count: int) -> float:
    """CPU seconds to start `count` actors, each start acknowledged."""

    async def main() -> float:
        registry = Registry()
        pool = SupervisorSpec("pool", strategy="dynamic", name="pool")
        async with open_system(SupervisorSpec("root", [pool]), registry=registry):
            ref = registry.supervisor("pool")
            began = time.process_time()
            for n in range(count):
                await ref.start_child(ChildSpec(str(n), Sink))
            return time.process_time() - began

    gc.collect()
    return trio.run(main)


def bare_spawn(count: int) -> float:
    """CPU seconds to start `count` tasks by `nursery.start`."""

    async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            began = time.process_time()
            for _ in range(count):
                await nursery.start(run)
            spent = time.process_time() - began
            nursery.cancel_scope.cancel()
        return spent

    gc.collect()
    return trio.run(main)


def _rss_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def many(count: int) -> None:
    """Prints the memory of one actor and the seconds that the stop of all takes."""
    registry = Registry()
    pool = SupervisorSpec("pool", strategy="dynamic", name="pool")
    async with open_system(SupervisorSpec("root", [pool]), registry=registry) as system:
        ref = registry.supervisor("pool")
        gc.collect()
        before = _rss_kb()
        for n in range(count):
            await ref.start_child(ChildSpec(str(n), Sink))
        gc.collect()
        kb = (_rss_kb() - before) / count
        began = time.perf_counter()
        await system.stop()
        stop_s = time.perf_counter() - began
    print(json.dumps({"kb": kb, "stop_s": stop_s}))


def in_process(count: int) -> dict[str, float]:
    """`many(count)` in a process of its own."""
    command = [sys.executable, "-m", "bench.actors", "--many", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def bare_stop(count: int) -> float:
    """Seconds that bare tasks need to stop, in a process of their own."""
    command = [sys.executable, "-m", "bench.support.bare_tasks", str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)


def event_stream_cost(rounds: int) -> tuple[float, float]:
    """The share of one-way throughput that a stream costs when nobody listens: mean and upper bound of its 95 %
    interval, from rounds of A B B A (A without a stream that was ever listened to, B with one that was)."""
    shares: list[float] = []
    for _ in range(rounds):
        used = EventStream()
        with used.listen(lambda event: None):
            pass
        a1, b1 = ours_oneway(), ours_oneway(used)
        b2, a2 = ours_oneway(used), ours_oneway()
        shares.append(1 - (b1 + b2) / (a1 + a2))
    mean = statistics.fmean(shares)
    return mean, mean + 1.96 * statistics.stdev(shares) / math.sqrt(rounds)


# --- OTP -------------------------------------------------------------------------------------------------------------

ERLANG = r"""
-module(bench_otp).
-export([main/0, init/1, handle_call/3, handle_cast/2, start_link/0]).
-behaviour(gen_server).
start_link() -> gen_server:start_link({local, sink}, ?MODULE, sink, []).
init(sink) -> {ok, 0};
init(sup) -> {ok, {#{strategy => one_for_one, intensity => 100000000, period => 1},
                   [#{id => sink, start => {?MODULE, start_link, []}}]}}.
handle_call(N, _From, S) -> {reply, N, S}.
handle_cast(crash, _S) -> exit(crash);
handle_cast(_, S) -> {noreply, S + 1}.
cpu() -> {T, _} = statistics(runtime), T.
repeat(0, _) -> ok;
repeat(N, F) -> F(), repeat(N - 1, F).
% The crash is seen by a monitor, and the next life by its name, so that the driver costs OTP no caught exits.
restart() ->
    Old = whereis(sink),
    Ref = monitor(process, Old),
    T0 = erlang:monotonic_time(nanosecond),
    gen_server:cast(Old, crash),
    receive {'DOWN', Ref, process, Old, _} -> ok end,
    1 = gen_server:call(next(Old), 1),
    erlang:monotonic_time(nanosecond) - T0.
next(Old) ->
    case whereis(sink) of
        New when is_pid(New), New =/= Old -> New;
        _ -> erlang:yield(), next(Old)
    end.
% A supervisor walks the restarts within its period at each restart: 200 of them, then a pause longer than the period.
restarts(Rounds) ->
    lists:append([begin timer:sleep(2100), [restart() || _ <- lists:seq(1, 200)] end || _ <- lists:seq(1, Rounds)]).
main() ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    {ok, _} = supervisor:start_link(?MODULE, sup),
    A = cpu(), repeat(1000000, fun() -> gen_server:cast(sink, x) end), gen_server:call(sink, 0, infinity),
    B = cpu(), repeat(300000, fun() -> gen_server:call(sink, 1) end),
    C = cpu(),
    S = lists:sort(restarts(8)),
    io:format("~p ~p ~p ~p~n", [1000000 * 1000 / max(1, B - A), 300000 * 1000 / max(1, C - B),
                                lists:nth(800, S) / 1000, lists:nth(1584, S) / 1000]),
    halt().
"""


def otp() -> dict[str, float] | None:
    """OTP's own figures on one scheduler; None where there is no Erlang."""
    if shutil.which("erl") is None or shutil.which("erlc") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bench_otp.erl").write_text(ERLANG)
        subprocess.run(["erlc", "bench_otp.erl"], cwd=folder, check=True, timeout=60)
        run = ["erl", "+S", "1:1", "-noshell", "-pa", folder, "-s", "bench_otp", "main"]
        out = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    names = ("oneway_per_s", "calls_per_s", "restart_p50_us", "restart_p99_us")
    return dict(zip(names, map(float, out), strict=True))


# --- the table -------------------------------------------------------------------------------------------------------

WANTED = {
    "oneway_vs_asyncio_queue": (">=", 0.9),
    "fanin_vs_asyncio_queue": (">=", 0.4),
    "call_deadline_vs_asyncio_queue": (">=", 0.9),
    "calls_100_vs_bare": (">=", 0.85),
    "restart_p50_vs_yardstick": ("<=", 1.8),
    "restart_p99_vs_yardstick": ("<=", 4),
    "spawn_vs_nursery_start": ("<=", 1.2),
    "kb_per_actor": ("<=", 8),
    "stop_100k_vs_yardstick": ("<=", 2),
    "event_stream_cost": ("<=", 0.05),
}


def with_uvloop(main: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def alternate(contenders: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Every contender in each round, in an order that changes."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    rng = random.Random(1)
    for _ in range(ROUNDS):
        rng.shuffle(order)
        for name in order:
            rates[name].append(contenders[name]())
    return rates


def paired(rates: dict[str, list[float]], mine: str, theirs: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[mine], rates[theirs], strict=True))


def main() -> None:
    oneway = alternate(
        {
            "ours": ours_oneway,
            "asyncio": asyncio_oneway,
            "uvloop": lambda: asyncio_oneway(with_uvloop),
            "channel": channel_oneway,
            "pykka": pykka_oneway,
        }
    )
    fanin = alternate({"ours": ours_fanin, "asyncio": asyncio_fanin, "uvloop": lambda: asyncio_fanin(with_uvloop)})
    calls = alternate(
        {
            "ours": lambda: ours_calls(1),
            "asyncio": asyncio_calls,
            "uvloop": lambda: asyncio_calls(with_uvloop),
            "bare": lambda: bare_calls(1),
            "pykka": pykka_calls,
        }
    )
    calls_100 = alternate({"ours": lambda: ours_calls(100), "bare": lambda: bare_calls(100)})
    spawn_count = 10_000 // SCALE
    spawn = alternate({"ours": lambda: ours_spawn(spawn_count), "nursery": lambda: bare_spawn(spawn_count)})
    restarts: list[float] = []
    bare_restarts: list[float] = []
    for _ in range(ROUNDS):
        restarts += restart_us()
        bare_restarts += bare_tasks.restart_us(4000 // SCALE)
    restarts.sort()
    bare_restarts.sort()
    many_10k = in_process(10_000)
    many_100k, bare_stop_s = in_process(100_000), bare_stop(100_000)
    cost, cost_upper = event_stream_cost(30)
    erlang = otp()

    def median(rates: dict[str, list[float]], name: str) -> float:
        return statistics.median(rates[name])

    p50, p99 = statistics.median(restarts), restarts[int(len(restarts) * 0.99)]
    bare_p50, bare_p99 = statistics.median(bare_restarts), bare_restarts[int(len(bare_restarts) * 0.99)]
    figures: dict[str, Any] = {
        "oneway_per_s": median(oneway, "ours"),
        "fanin_per_s": median(fanin, "ours"),
        "call_deadline_per_s": median(calls, "ours"),
        "calls_100_per_s": median(calls_100, "ours"),
        "restart_p50_us": p50,
        "restart_p99_us": p99,
        "spawn_10k_s": median(spawn, "ours"),
        "kb_per_actor": many_10k["kb"],
        "kb_per_actor_100k": many_100k["kb"],
        "stop_100k_s": many_100k["stop_s"],
        "event_stream_cost": cost_upper,
        "event_stream_cost_mean": cost,
    }
    ratios: dict[str, Any] = {
        "oneway_vs_asyncio_queue": paired(oneway, "ours", "asyncio"),
        "oneway_vs_uvloop_queue": paired(oneway, "ours", "uvloop"),
        "oneway_vs_trio_channel": paired(oneway, "ours", "channel"),
        "oneway_vs_pykka": paired(oneway, "ours", "pykka"),
        "fanin_vs_asyncio_queue": paired(fanin, "ours", "asyncio"),
        "fanin_vs_uvloop_queue": paired(fanin, "ours", "uvloop"),
        "call_deadline_vs_asyncio_queue": paired(calls, "ours", "asyncio"),
        "call_deadline_vs_uvloop_queue": paired(calls, "ours", "uvloop"),
        "call_deadline_vs_bare": paired(calls, "ours", "bare"),
        "call_deadline_vs_pykka": paired(calls, "ours", "pykka"),
        "calls_100_vs_bare": paired(calls_100, "ours", "bare"),
        "spawn_vs_nursery_start": paired(spawn, "ours", "nursery"),
        "restart_p50_vs_yardstick": p50 / bare_p50,
        "restart_p99_vs_yardstick": p99 / bare_p99,
        "stop_100k_vs_yardstick": many_100k["stop_s"] / bare_stop_s,
    }
    peers: dict[str, Any] = {
        "asyncio_queue": {
            "oneway_per_s": median(oneway, "asyncio"),
            "fanin_per_s": median(fanin, "asyncio"),
            "call_deadline_per_s": median(calls, "asyncio"),
        },
        "uvloop_queue": {
            "oneway_per_s": median(oneway, "uvloop"),
            "fanin_per_s": median(fanin, "uvloop"),
            "call_deadline_per_s": median(calls, "uvloop"),
        },
        "trio_channel": {"oneway_per_s": median(oneway, "channel")},
        "bare_trio_deque": {"calls_per_s": median(calls, "bare"), "calls_100_per_s": median(calls_100, "bare")},
        "pykka": {"oneway_per_s": median(oneway, "pykka"), "calls_per_s": median(calls, "pykka")},
        "nursery_start": {"spawn_10k_s": median(spawn, "nursery")},
        "yardstick": {"restart_p50_us": bare_p50, "restart_p99_us": bare_p99, "stop_100k_s": bare_stop_s},
        "otp": erlang or {"oneway_per_s": None, "reason": "no erl on this machine"},
    }
    if erlang is not None:
        ratios["oneway_vs_otp"] = figures["oneway_per_s"] / erlang["oneway_per_s"]
        ratios["call_vs_otp"] = figures["call_deadline_per_s"] / erlang["calls_per_s"]
        ratios["restart_p50_vs_otp"] = p50 / erlang["restart_p50_us"]
    known = {**figures, **ratios}
    missed = [
        name for name, (sign, bound) in WANTED.items() if (known[name] < bound if sign == ">=" else known[name] > bound)
    ]
    line = {
        "bench": "actors",
        "figures": {name: _round(value) for name, value in figures.items()},
        "peers": {name: {key: _round(value) for key, value in peer.items()} for name, peer in peers.items()},
        "ratios": {name: _round(value) for name, value in ratios.items()},
        "wanted": {name: f"{sign} {bound}" for name, (sign, bound) in WANTED.items()},
        "missed": missed,
    }
    print(json.dumps(line))


def _round(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


if __name__ == "__main__":
    if "--many" in sys.argv:
        trio.run(many, int(sys.argv[sys.argv.index("--many") + 1]))
    else:
        main()
