"""metagraph_syncer: follows the finalized head and keeps the subnets in memory up to date.

It alone reads the chain while the process serves; all others read `Subnets`. Whatever an endpoint does, the last good
metagraph stays in place with its age.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import assert_never, final

import msgspec
import structlog
import trio

from actors import Actor, Context, MailboxPolicy, Timer
from config.model import ChainSettings
from engram.chain.errors import (
    AnswerMalformed,
    AnswersDiffer,
    CallRefused,
    EndpointBusy,
    EndpointUnreachable,
    HeadAwaited,
    HeadRefused,
    RuntimeApiMissing,
    SubnetUnknown,
)
from engram.chain.model import EndpointHealth, FinalizedBlock, Fork, HeadWatch, Metagraph, SubnetChange
from engram.chain.read.codec import Codec
from engram.chain.read.endpoint_health import (
    after_busy,
    after_failure,
    after_refused_head,
    after_success,
    choose,
    next_poll_s,
    witnesses,
)
from engram.chain.read.head_opinions import Opinion, Stance, compared, read_fork, stance
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.queries import (
    HeadReading,
    finalized_hash,
    read_best,
    read_head,
    read_metadata,
    read_metagraph_bytes,
)
from engram.chain.sync.protocol import Poll
from engram.chain.sync.refused_heads import refusal, way_out
from engram.chain.sync.rules import HeadVerdict, Support, changes, judge_head, may_act, support_of
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock

log = structlog.get_logger(__name__)

_ENDPOINT_FAULTS = (
    EndpointBusy,
    EndpointUnreachable,
    AnswerMalformed,
    CallRefused,
    HeadRefused,
    RuntimeApiMissing,
)
_SUBNET_FAULTS = (SubnetUnknown, AnswerMalformed, CallRefused, AnswersDiffer)
KeepFork = Callable[[Fork], Awaitable[None]]


async def _keep_no_fork(fork: Fork) -> None:
    """Keep nothing, for a process without a data folder; the log has the fork."""


@final
class MetagraphSyncer(Actor[Poll]):
    """Polls the finalized head every `settings.poll_s` and reads the subnets of each new one, at its hash."""

    mailbox = MailboxPolicy(bound=4, when_full="drop_newest")

    def __init__(
        self,
        nodes: Sequence[ChainEndpoint],
        subnets: Subnets,
        settings: ChainSettings,
        clock: Clock,
        rng: Random,
        *,
        healths: list[EndpointHealth] | None = None,
        keep_fork: KeepFork = _keep_no_fork,
    ) -> None:
        """`healths` (one a node, in order) may be shared with other readers; None continues with those that this actor
        noted before its restart."""
        if not nodes:
            raise ValueError("the chain needs at least one endpoint (chain.endpoints)")
        self._nodes = tuple(nodes)
        known = subnets.state.endpoints
        self._healths = [known.get(node.name, EndpointHealth()) for node in nodes] if healths is None else healths
        self._keep_fork = keep_fork
        self._subnets = subnets
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._codec: Codec | None = None
        self._best_of = b""
        """Hash of the finalized block with which the best one was read."""
        self._disputed: set[str] = set()
        """Subjects on which endpoints differed, and no two have agreed since."""
        self._heads_differ = False
        """Endpoints had different finalized blocks of one number, and no two have agreed on a new head since."""
        self._polling = trio.CancelScope()

    async def on_start(self, context: Context) -> None:
        self._context = context
        self._timer: Timer = context.after(0.0, Poll())
        context.start_soon(self._end_poll_at_stop, context.stop_requested)

    async def handle(self, message: Poll) -> None:
        self._timer.cancel()
        failed = True
        with trio.CancelScope() as self._polling:
            failed = not await self._poll()
        wait_s = next_poll_s(self._healths, self._settings.poll_s, self._clock.monotonic(), failed)
        self._timer = self._context.after(wait_s, Poll())

    async def _end_poll_at_stop(self, stop_requested: trio.Event) -> None:
        """Cancel a poll in progress at shutdown."""
        await stop_requested.wait()
        self._polling.cancel()

    async def _poll(self) -> bool:
        """Sync through the endpoints in turn until one serves; return whether one did."""
        ahead: set[int] = set()
        for _ in self._nodes:
            place = choose(self._healths, self._clock.monotonic(), ahead)
            if place is None:
                break
            node, health = self._nodes[place], self._healths[place]
            try:
                await self._sync(node)
            except _ENDPOINT_FAULTS as error:
                self._failed(place, error)
                continue
            except HeadAwaited as error:
                log.debug("chain_endpoint_ahead", endpoint=node.name, reason=str(error))
                ahead.add(place)
                continue
            if self._healths[place] is health:
                self._healths[place] = after_success()
            self._note(endpoint=node.name, syncs=self._subnets.state.syncs + 1, error="")
            return True
        return False

    async def _sync(self, node: ChainEndpoint) -> None:
        read_at_s = self._clock.monotonic()
        head, codec = await self._finalized_head(node, read_at_s)
        fault: AnswerMalformed | CallRefused | None = None
        for netuid in self._settings.netuids:
            held = self._subnets.get(netuid)
            if held is not None and held.block_hash == head.hash:
                continue
            try:
                fresh = await self._read(node, codec, netuid, head, read_at_s)
            except _SUBNET_FAULTS as error:
                self._note_subnet(netuid, str(error))
                if isinstance(error, AnswerMalformed | CallRefused):
                    fault = error
                continue
            self._note_subnet(netuid, "")
            found = () if held is None else changes(held, fresh)
            self._subnets.publish(fresh, found)
            _log_changes(fresh, found)
        if self._best_of != head.hash:
            self._note(best=await read_best(node))
            self._best_of = head.hash
        if fault is not None:
            raise fault

    async def _finalized_head(self, node: ChainEndpoint, now_s: float) -> tuple[FinalizedBlock, Codec]:
        """Return the head to read at and the types at it. Raises HeadRefused when the head is not accepted."""
        watch = self._subnets.state.watch
        block_hash = await finalized_hash(node)
        if watch is not None and self._codec is not None and block_hash == watch.head.hash:
            self._judge(node, watch, watch.head, None, now_s)
            return watch.head, self._codec
        reading = await read_head(node, block_hash, None if watch is None else watch.head.number)
        verdict = self._judge(node, watch, reading.head, reading.hash_at_ours, now_s)
        if verdict is not HeadVerdict.SAME:
            await self._hold_against_others(node, reading.head, verdict)
        codec = self._codec
        elsewhere = verdict is HeadVerdict.RESTARTED
        if codec is None or codec.spec_version != reading.spec_version or elsewhere:
            self._codec = codec = await self._agreed_codec(node, reading)
            log.info("chain_runtime_read", spec_version=reading.spec_version, endpoint=node.name)
        if verdict is not HeadVerdict.SAME:
            watch = HeadWatch(reading.head, now_s)
        self._note(network=reading.chain_name, spec_version=reading.spec_version, watch=watch)
        return reading.head, codec

    def _judge(
        self,
        node: ChainEndpoint,
        watch: HeadWatch | None,
        seen: FinalizedBlock,
        hash_at_ours: bytes | None,
        now_s: float,
    ) -> HeadVerdict:
        settings = self._settings
        verdict = judge_head(watch, seen, hash_at_ours, now_s, settings.stall_after_s, settings.reset_after_s)
        why = refusal(verdict, seen, watch, self._way_out)
        if why is not None:
            raise HeadRefused(f"{node.name}: {why}")
        return verdict

    @property
    def _way_out(self) -> str:
        return way_out(len(self._nodes), self._settings.reset_after_s)

    async def _hold_against_others(self, node: ChainEndpoint, head: FinalizedBlock, verdict: HeadVerdict) -> None:
        """Compare a new head with the other endpoints until one has it too.

        Raises HeadRefused when it is not accepted, HeadAwaited when it is not accepted yet.
        """
        opinions: dict[int, Opinion] = {}
        forked: dict[int, Fork] = {}
        for place in witnesses(self._healths, self._nodes.index(node), self._clock.monotonic()):
            its = await compared(await self._stance(place, head), node)
            opinions[place] = its.opinion
            if its.contested is not None:
                forked[place] = await read_fork(node, self._nodes[place], its.contested, self._clock.now())
                await self._keep_fork(forked[place])
            if opinions[place] is Opinion.SAME:
                break
        found = support_of(opinions.values())
        match found:
            case Support.CONFIRMED:
                self._heads_differ = False
                for place, fork in forked.items():
                    odd = f"{self._nodes[place].name} alone has another finalized block {fork.one.block}"
                    self._failed(place, HeadRefused(odd))
            case Support.CONTRADICTED:
                self._heads_differ = True
                names = " and ".join(self._nodes[place].name for place in forked)
                block = min(fork.one.block for fork in forked.values())
                log.error("chain_heads_differ", block=block, one=node.name, other=names)
                raise HeadRefused(f"{node.name}: its finalized block {block} is another one at {names}")
            case Support.AWAITED:
                names = " and ".join(self._nodes[at].name for at, its in opinions.items() if its is Opinion.NOT_YET)
                raise HeadAwaited(f"{names} has not finalized block {head.number} of {node.name} yet")
            case Support.ALONE:
                pass
            case _:
                assert_never(found)
        if not may_act(verdict, found, self._heads_differ, only_endpoint=len(self._nodes) == 1):
            fresh = verdict is HeadVerdict.ADVANCED
            why = "heads differed" if fresh else f"it does not descend from ours{self._way_out}"
            raise HeadRefused(f"{node.name}: no second endpoint has its finalized block {head.number}, and {why}")
        if verdict is HeadVerdict.OVERTAKEN:
            log.error("chain_fork_followed", block=head.number, endpoint=node.name)
        if verdict is HeadVerdict.RESTARTED:
            after_s = self._settings.reset_after_s
            log.error("chain_reset_followed", block=head.number, endpoint=node.name, after_s=after_s)

    async def _stance(self, place: int, head: FinalizedBlock) -> Stance:
        try:
            return await stance(self._nodes[place], head, self._clock.now())
        except (EndpointBusy, EndpointUnreachable, AnswerMalformed) as error:
            self._failed(place, error)
        except CallRefused:
            pass
        return Stance(Opinion.NONE)

    async def _read(
        self, node: ChainEndpoint, codec: Codec, netuid: int, head: FinalizedBlock, read_at_s: float
    ) -> Metagraph:
        endpoint, witness, scale = await self._agreed(
            node, f"subnet {netuid}", head, lambda endpoint: read_metagraph_bytes(endpoint, codec, netuid, head)
        )
        fields = codec.decode_fields(scale)
        await trio.lowlevel.checkpoint()
        return codec.metagraph(fields, netuid, head, read_at_s=read_at_s, endpoint=endpoint, witness=witness)

    async def _agreed_codec(self, node: ChainEndpoint, reading: HeadReading) -> Codec:
        """Return the types of the runtime.

        Raises HeadRefused when endpoints differ on its metadata: with metadata of its own, one endpoint could make the
        metagraph's bytes mean anything.
        """
        about = f"the metadata of runtime {reading.spec_version}"
        try:
            *_, metadata = await self._agreed(
                node, about, reading.head, lambda endpoint: read_metadata(endpoint, reading)
            )
        except AnswersDiffer as error:
            raise HeadRefused(str(error)) from error
        return Codec(metadata, reading.spec_version, reading.transaction_version)

    async def _agreed(
        self, node: ChainEndpoint, about: str, head: FinalizedBlock, asking: Callable[[ChainEndpoint], Awaitable[bytes]]
    ) -> tuple[str, str | None, bytes]:
        """Return the bytes that two endpoints gave and their names; those of `node` alone when no other can be asked.

        Raises AnswersDiffer when others answer but no two agree, and from then on until two agree again.
        """
        answers = [(node.name, await asking(node))]
        for place in witnesses(self._healths, self._nodes.index(node), self._clock.monotonic()):
            other, octets = self._nodes[place], await self._second_opinion(place, asking)
            if octets is None:
                continue
            same = next((name for name, earlier in answers if earlier == octets), None)
            if same is not None:
                self._disputed.discard(about)
                if same != node.name:
                    odd = AnswersDiffer(f"{node.name} alone differs on {about} at block {head.number}")
                    self._failed(self._nodes.index(node), odd)
                return same, other.name, octets
            answers.append((other.name, octets))
            self._disputed.add(about)
            log.error("chain_endpoints_differ", about=about, block=head.number, one=node.name, other=other.name)
        if about in self._disputed:
            names = " and ".join(name for name, _ in answers)
            raise AnswersDiffer(f"{about} at block {head.number}: no two endpoints agree ({names} answered)")
        return node.name, None, answers[0][1]

    async def _second_opinion(self, place: int, asking: Callable[[ChainEndpoint], Awaitable[bytes]]) -> bytes | None:
        """Return the bytes of another endpoint; None when it does not answer, or has not reached the block."""
        try:
            return await asking(self._nodes[place])
        except (EndpointBusy, EndpointUnreachable, AnswerMalformed) as error:
            self._failed(place, error)
        except (CallRefused, RuntimeApiMissing):
            pass
        return None

    def _failed(self, place: int, error: Exception) -> None:
        now_s = self._clock.monotonic()
        health = self._healths[place]
        if isinstance(error, EndpointBusy):
            self._healths[place] = after_busy(health, str(error), error.retry_after_s, now_s, self._rng)
        elif isinstance(error, HeadRefused):
            self._healths[place] = after_refused_head(health, str(error), now_s, self._rng)
        else:
            self._healths[place] = after_failure(health, str(error), now_s, self._rng)
        log.warning("chain_endpoint_failed", endpoint=self._nodes[place].name, error=str(error))
        self._note(failures=self._subnets.state.failures + 1, error=str(error))

    def _note_subnet(self, netuid: int, error: str) -> None:
        errors = {**self._subnets.state.subnet_errors, netuid: error}
        self._note(subnet_errors={number: text for number, text in errors.items() if text})

    def _note(self, **changed: object) -> None:
        endpoints = {node.name: health for node, health in zip(self._nodes, self._healths, strict=True)}
        self._subnets.note(msgspec.structs.replace(self._subnets.state, **changed, endpoints=endpoints))


def _log_changes(metagraph: Metagraph, found: Sequence[SubnetChange]) -> None:
    if found:
        kinds = Counter(type(change).__name__ for change in found)
        log.info("chain_subnet_changed", netuid=metagraph.netuid, block=metagraph.block, **kinds)
