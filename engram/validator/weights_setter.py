"""Sets weights when they are due: at most once an epoch, whatever happens in between.

    look -> not due: say why (validator_looks)
         -> due: read the chain anew -> still due -> dry run: write down what would be sent
                                                  -> INTENT (committed) -> send -> SET | REFUSED | LOST | UNKNOWN

An INTENT or UNKNOWN of this epoch counts as sent. Weights set in the open are settled by LastUpdate, which only ever
moves forward: moved past the block of the newest intent means SET; not moved when the extrinsic can no longer be
included means LOST, and the epoch may be tried again. Where weights are committed first, LastUpdate says nothing: the
chain may move it at the reveal of an earlier commit, too. The commit itself is looked for, by the mark that the intent
has. Not found when it can no longer be included, it is LOST as well, unless an epoch has been run since it was sent:
the chain may have revealed it then, and UNKNOWN stays.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec
import structlog
import trio
from sqlalchemy import Connection

from engram import kill_points
from engram.chain.epochs import Epoch, current_epoch
from engram.chain.errors import (
    ChainError,
    EndpointBusy,
    EndpointUnreachable,
    NeverIncluded,
    NoCommitKept,
    RefusedInBlock,
    SubmitRefused,
    WeightsRejected,
)
from engram.chain.model import Metagraph
from engram.chain.read.node import ChainEndpoint
from engram.chain.read.runtime import ERA_BLOCKS
from engram.chain.read.view import View, open_view
from engram.chain.submit import commit_marks, reveal
from engram.chain.submit.kept_commits import KeptCommits
from engram.chain.submit.sender import Sender
from engram.chain.submit.set_weights import WeightsProposal, propose, set_weights
from engram.chain.submit.weights import WeightsInvalid
from engram.chain.sync.subnets import Subnets
from engram.clock import Clock
from engram.hotkeys import Keypair, ss58
from engram.ledger import Ledger
from engram.validator import due as rules
from engram.validator import round_rules
from engram.validator.due import Due, Known
from engram.validator.model import Look, Round, RoundState, Sent, SentState
from engram.validator.records import rounds as round_records
from engram.validator.records import sent as weight_records
from engram.validator.records import standings as miner_records

LOOK_S: Final = 12.0
"""A block's time."""
_NOT_SENT: Final = (SubmitRefused, RefusedInBlock, WeightsRejected, WeightsInvalid)
_COMMIT: Final = "commit "
"""How the reason of an intent begins whose weights are committed; the commit's mark follows."""
_MARK_DIGITS: Final = 64
_LEFT_UNKNOWN: Final = "an epoch has been run since: the chain may have revealed it, or never had it"
_VERDICTS: Final = {
    SentState.SET: Due.SET,
    SentState.REFUSED: Due.REFUSED,
    SentState.LOST: Due.DUE,  # at the next look
    SentState.UNKNOWN: Due.UNSETTLED,
}

_log = structlog.get_logger("engram.validator")


def _was_not_set(error: ChainError) -> bool:
    """Return whether the chain certainly has none of the weights whose sending ended so."""
    if isinstance(error, EndpointUnreachable | EndpointBusy) and not error.may_have_arrived:
        return True
    return error.nothing_was_sent or isinstance(error, _NOT_SENT)


class WeightPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What setting weights works with."""

    ledger: Ledger
    subnets: Subnets
    nodes: Sequence[ChainEndpoint]
    sender: Sender
    kept: KeptCommits
    keypair: Keypair
    clock: Clock
    netuid: int
    version: int
    share_scores: bool
    blacklist: frozenset[bytes]
    """Hotkeys that get no weight, whatever their standing."""
    dry_run: bool
    boot: str
    settled: Callable[[Connection, Sent, Round], None]
    """Called in the transaction that settles weights; relays the scores."""
    counted: Callable[[SentState], None]


@final
class WeightsSetter:
    """Looks once a block."""

    def __init__(self, ports: WeightPorts) -> None:
        self._ports = ports

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await trio.sleep(LOOK_S)

    async def look(self) -> Due:
        """Look once, set weights if they are due, and write down what was found. Raises LedgerUnavailable."""
        ports = self._ports
        metagraph = ports.subnets.get(ports.netuid)
        detail = ""
        if metagraph is not None:
            await self._settle(metagraph)
        known, last = await self._known(metagraph)
        verdict = rules.due(known)
        if verdict is Due.DUE and last is not None:
            verdict, detail = await self._set(known, last)
        else:
            detail = _detail(verdict, known)
        await self._note(metagraph, verdict, detail)
        return verdict

    async def _known(self, metagraph: Metagraph | None) -> tuple[Known, Round | None]:
        ports, own = self._ports, self._ports.keypair.public_key

        def read(connection: Connection) -> tuple[Known, Round | None]:
            newest = weight_records.sent_weights(connection, ports.netuid, own, 1)
            open_ = weight_records.unsettled(connection, ports.netuid, own)
            last = round_records.last_round(connection, ports.netuid, RoundState.CLOSED)
            scores = {} if last is None else _scores(connection, last, metagraph, ports)
            known = Known(
                metagraph=metagraph,
                age_s=ports.subnets.age_s(ports.netuid) or 0.0,
                hotkey=own,
                scores={} if metagraph is None else rules.realigned(scores, {}, metagraph)[0],
                rounds=round_records.closed_rounds(connection, ports.netuid, ports.boot),
                epoch=None if metagraph is None else current_epoch(metagraph),
                last_sent_block=weight_records.last_sent_block(connection, ports.netuid, own),
                unsettled=metagraph is not None and any(_may_be_included(sent, metagraph) for sent in open_),
                refused=next((sent for sent in newest if sent.state is SentState.REFUSED), None),
                version=ports.version,
            )
            return known, last

        return await ports.ledger.read(read)

    async def _set(self, known: Known, last: Round) -> tuple[Due, str]:
        """Read the chain anew and send, unless it now says otherwise."""
        ports = self._ports
        try:
            view = await open_view(ports.nodes)
            metagraph = await view.metagraph(ports.netuid, ports.clock.monotonic())
            scores, replaced = await ports.ledger.read(lambda c: self._aligned(c, last, metagraph))
            if replaced:
                _log.warning("uids_replaced", uids=replaced, reason="another hotkey holds them now: weight 0")
            epoch = current_epoch(metagraph)
            now = msgspec.structs.replace(known, metagraph=metagraph, age_s=0.0, scores=scores, epoch=epoch)
            if (verdict := rules.due(now)) is not Due.DUE:
                return verdict, _detail(verdict, now)
            weights = rules.weights(metagraph, scores)
            sent = self._sent(weights, epoch.index, metagraph.block, last)
            if ports.dry_run:
                return await self._rehearse(sent, epoch)
            key = metagraph.parameters.weights_version
            proposal = await propose(view, ports.netuid, known.hotkey, weights, key, ports.clock)
            return await self._send(view, proposal, sent, epoch, last)
        except WeightsInvalid as error:
            return Due.TOO_FEW, str(error)
        except ChainError as error:
            return Due.CHAIN_STALE, str(error)

    def _aligned(self, connection: Connection, last: Round, metagraph: Metagraph) -> tuple[dict[int, float], list[int]]:
        scores = _scores(connection, last, metagraph, self._ports)
        return rules.realigned(scores, _uids(connection, last), metagraph)

    def _sent(self, weights: dict[int, float], epoch: int, block: int, last: Round) -> Sent:
        return Sent(
            id=0,
            netuid=self._ports.netuid,
            epoch=epoch,
            block=block,
            round_id=last.id,
            weights=weights,
            state=SentState.INTENT,
            reason=None,
            at=self._ports.clock.now(),
        )

    async def _rehearse(self, sent: Sent, epoch: Epoch) -> tuple[Due, str]:
        """Write down what would be sent, once an epoch."""
        ports, own = self._ports, self._ports.keypair.public_key
        dry = msgspec.structs.replace(sent, state=SentState.DRY_RUN)

        def write(connection: Connection) -> None:
            newest = next(iter(weight_records.sent_weights(connection, ports.netuid, own, 1)), None)
            if newest is None or newest.block < epoch.first_block or newest.state is not SentState.DRY_RUN:
                weight_records.intend_weights(connection, dry, own, epoch.first_block)

        await ports.ledger.write(write)
        return Due.DUE, "dry run: nothing is sent; set validator.dry_run = false to set weights"

    async def _send(
        self, view: View, proposal: WeightsProposal, sent: Sent, epoch: Epoch, last: Round
    ) -> tuple[Due, str]:
        ports, own = self._ports, self._ports.keypair.public_key
        if proposal.objections:
            return Due.RATE_LIMITED, "; ".join(proposal.objections)
        mark = commit_marks.mark_of(proposal.plan)
        sent = sent if mark is None else msgspec.structs.replace(sent, reason=f"{_COMMIT}{mark}")
        sent_id = await ports.ledger.write(lambda c: weight_records.intend_weights(c, sent, own, epoch.first_block))
        if sent_id is None:
            return Due.SET, ""
        intended = msgspec.structs.replace(sent, id=sent_id)
        kill_points.point("weights:before")
        state, reason, block = await self._outcome(view, proposal)
        kill_points.point("weights:after")
        await self._finish(intended, state, reason, last, block)
        return _VERDICTS[state], reason

    async def _outcome(self, view: View, proposal: WeightsProposal) -> tuple[SentState, str, int | None]:
        """Send; return what became of it, why, and the block that holds the weights where it is known."""
        ports = self._ports
        try:
            done = await set_weights(ports.sender, view, proposal, ports.keypair, ports.kept)
        except NeverIncluded as error:
            return SentState.LOST, str(error), None
        except ChainError as error:
            return (SentState.REFUSED if _was_not_set(error) else SentState.UNKNOWN), str(error), None
        return SentState.SET, f"in block {done.block.number}", done.block.number

    async def _finish(
        self, sent: Sent, state: SentState, reason: str, last: Round | None, block: int | None = None
    ) -> None:
        ports = self._ports
        kept = reason if state is not SentState.UNKNOWN or not _mark(sent) else f"{_COMMIT}{_mark(sent)}: {reason}"

        def settle(connection: Connection) -> bool:
            settled = weight_records.settle_weights(connection, sent.id, state, kept, block)
            if settled and state is not SentState.UNKNOWN and last is not None:
                ports.settled(connection, msgspec.structs.replace(sent, state=state, reason=reason), last)
            return settled

        if await ports.ledger.write(settle):
            ports.counted(state)
            log = _log.info if state is SentState.SET else _log.error
            log("weights", state=str(state), epoch=sent.epoch, uids=len(sent.weights), reason=reason)

    async def _settle(self, metagraph: Metagraph) -> None:
        """Settle weights whose outcome is open, by what the chain says now; reveal what is to be revealed."""
        ports, own = self._ports, self._ports.keypair.public_key
        neuron = metagraph.neuron(own)
        for sent in await ports.ledger.read(lambda c: weight_records.unsettled(c, ports.netuid, own)):
            if neuron is None:
                break
            if _is_committed(sent, metagraph):
                await self._settle_commit(sent, metagraph)
            else:
                await self._settle_plain(sent, metagraph, neuron.last_update_block)
        await self._reveal()

    async def _settle_plain(self, sent: Sent, metagraph: Metagraph, last_update_block: int) -> None:
        """Settle weights that were set in the open; LastUpdate tells of the newest that may have moved it."""
        ports, own = self._ports, self._ports.keypair.public_key
        if last_update_block > sent.block:
            newest = await ports.ledger.read(lambda c: weight_records.last_sent_block(c, ports.netuid, own))
            if newest == sent.block:
                reason = f"LastUpdate is {last_update_block}"
                await self._finish(sent, SentState.SET, reason, await self._round_of(sent), last_update_block)
        elif not _may_be_included(sent, metagraph):
            await self._finish(sent, SentState.LOST, _not_included_by(metagraph.block), await self._round_of(sent))

    async def _settle_commit(self, sent: Sent, metagraph: Metagraph) -> None:
        """Settle weights that were committed, once the chain holds their commit, or certainly never will."""
        ports, mark = self._ports, _mark(sent)
        latest = sent.block + ERA_BLOCKS
        if not mark:
            return
        if metagraph.block > latest + _reveal_blocks(metagraph):
            await self._leave_unknown(sent)  # by then it has been revealed, or dropped, or never was
            return
        try:
            view = await open_view(ports.nodes)
            found = await commit_marks.find_commit(view, ports.netuid, mark)
            is_over = found is None and view.head.number > latest
            is_lost = is_over and await self._is_of_this_epoch(sent, view)
        except ChainError as error:
            _log.warning("commit_not_looked_for", reason=str(error))
            return
        if found is not None:
            at = found.block or min(view.head.number, latest)
            reason = f"the chain holds its commit at block {at}"
            await self._finish(sent, SentState.SET, reason, await self._round_of(sent), at)
        elif is_lost:
            await self._finish(sent, SentState.LOST, _not_included_by(view.head.number), await self._round_of(sent))
        elif is_over:
            await self._leave_unknown(sent)

    async def _leave_unknown(self, sent: Sent) -> None:
        """Hand the scores of weights over, once, of which nobody will learn whether the chain took them."""
        ports = self._ports
        last = await self._round_of(sent)
        if last is None or (sent.reason or "").endswith(_LEFT_UNKNOWN):
            return
        kept = f"{_COMMIT}{_mark(sent)}: {_LEFT_UNKNOWN}"
        unknown = msgspec.structs.replace(sent, state=SentState.UNKNOWN, reason=_LEFT_UNKNOWN)

        def settle(connection: Connection) -> bool:
            settled = weight_records.settle_weights(connection, sent.id, SentState.UNKNOWN, kept)
            if settled:
                ports.settled(connection, unknown, last)
            return settled

        if await ports.ledger.write(settle):
            _log.error("weights", state="unknown", epoch=sent.epoch, uids=len(sent.weights), reason=_LEFT_UNKNOWN)

    async def _is_of_this_epoch(self, sent: Sent, view: View) -> bool:
        """Return whether the chain has run no epoch since weights were sent, and so has revealed none of them."""
        metagraph = await view.metagraph(self._ports.netuid, self._ports.clock.monotonic())
        return current_epoch(metagraph).first_block <= sent.block

    async def _round_of(self, sent: Sent) -> Round | None:
        return await self._ports.ledger.read(lambda c: round_records.round_of(c, sent.round_id))

    async def _reveal(self) -> None:
        ports = self._ports
        try:
            if not ports.kept.holds(ports.netuid, ports.keypair.public_key):
                return
            found = await reveal.read_commits(
                ports.nodes, ports.netuid, ports.keypair.public_key, ports.kept, ports.clock
            )
            kill_points.point("reveal:before")
            await reveal.reveal(ports.sender, found, ports.keypair, ports.kept)
            kill_points.point("reveal:after")
        except NoCommitKept:
            pass  # those of this hotkey are of another chain
        except ChainError as error:
            _log.warning("weights_not_revealed", reason=str(error))

    def _unusable(self) -> list[str]:
        """Return a warning of files that hold a commit and cannot be used; empty when there are none."""
        try:
            found = self._ports.kept.unusable(self._ports.netuid)
        except ChainError:
            return []  # what cannot be read at all is logged where it is to be revealed
        return [f"files of kept commits that cannot be used ({len(found)}): {'; '.join(found[:3])}"] if found else []

    async def _note(self, metagraph: Metagraph | None, verdict: Due, detail: str) -> None:
        ports, own = self._ports, self._ports.keypair.public_key
        neuron = None if metagraph is None else metagraph.neuron(own)
        former = await ports.ledger.read(lambda c: weight_records.last_look(c, ports.netuid, own))
        detail = rules.with_membership(verdict, detail, rules.membership(verdict, rules.membership_of(former)))
        look = Look(
            netuid=ports.netuid,
            verdict=str(verdict),
            detail=detail,
            warnings=[*([] if metagraph is None else rules.warnings(metagraph, own)), *self._unusable()],
            block=None if metagraph is None else metagraph.block,
            uid=None if neuron is None else neuron.uid,
            at=ports.clock.now(),
        )
        if former is None or (former.verdict, former.warnings) != (look.verdict, look.warnings):
            _log.info("weights_due", verdict=look.verdict, detail=detail, hotkey=ss58.encode(own))
            for warning in look.warnings:
                _log.warning("validator_warning", reason=warning)
        await ports.ledger.write(lambda c: weight_records.keep_look(c, look, own))


def _detail(verdict: Due, known: Known) -> str:
    match verdict:
        case Due.REFUSED if known.refused is not None:
            return known.refused.reason or ""
        case Due.TOO_FEW if known.metagraph is not None:
            return rules.too_few(known.metagraph, known.scores)
        case _:
            return ""


def _mark(sent: Sent) -> str:
    """Return the mark of the commit that was sent; empty when there was none."""
    held = sent.reason or ""
    return held.removeprefix(_COMMIT)[:_MARK_DIGITS] if held.startswith(_COMMIT) else ""


def _is_committed(sent: Sent, metagraph: Metagraph) -> bool:
    """Return whether weights were committed; those of an earlier version of Engram have no mark."""
    return bool(_mark(sent)) or metagraph.parameters.commit_reveal_weights_enabled


def _reveal_blocks(metagraph: Metagraph) -> int:
    """Return for how many blocks the chain holds a commit at most."""
    rules = metagraph.parameters
    return (rules.tempo + 1) * (rules.commit_reveal_period_tempos + 1)


def _uids(connection: Connection, last: Round) -> dict[bytes, int]:
    return {result.hotkey: result.uid for result in round_records.results(connection, last.id)}


def _scores(connection: Connection, last: Round, metagraph: Metagraph | None, ports: WeightPorts) -> dict[bytes, float]:
    """Return the scores after the last round, by hotkey."""
    results = round_records.results(connection, last.id)
    block = last.block if metagraph is None else metagraph.block
    uids = {each.hotkey: each.uid for each in results}
    proved_at = round_records.proved_at(connection, last.id)
    groups = round_rules.groups(results, proved_at) if ports.share_scores else []
    return round_rules.weights(miner_records.all_known(connection), uids, groups, block, ports.blacklist)


def _may_be_included(sent: Sent, metagraph: Metagraph) -> bool:
    return metagraph.block <= sent.block + ERA_BLOCKS


def _not_included_by(block: int) -> str:
    return f"not included by block {block}"
