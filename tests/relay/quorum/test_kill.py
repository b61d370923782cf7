"""kill -9 of a proposer and of a co-signer, each a process of its own that asks the others over HTTP.

Scores and ranking leave once, and no key signs two outputs of one block, whoever is killed where.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

import msgspec
import pytest
import trio
from sqlalchemy import select

from config.model import HttpSettings
from engram import kill_points
from engram.api import validator_peers as api
from engram.clock import SystemClock, SystemIds
from engram.hotkeys import verifier
from engram.http.client import HttpClient
from engram.http.listener import serve
from engram.relay import MinerScore
from engram.relay.quorum import records
from engram.relay.quorum.model import CandidateState, Judged, Proposal
from engram.relay.quorum.peer_client import PeerClient
from engram.relay.quorum.proposals import read_proposal
from engram.relay.quorum.subnet_now import Peer
from engram.relay.tables import relay_outbox
from engram.validator.peers_app import peers_app
from tests import forked
from tests.http.harness import Running
from tests.relay.quorum.validators import FIRST_BLOCK, SCORES, WEIGHTS, Subnet, Validator
from tests.sampling import sample

PROPOSER, COSIGNER = 0, 1
NEXT = 1
"""Whose turn comes after the proposer's."""
SETTINGS = HttpSettings(requests_per_minute_per_ip=0)
LOOK_S = 0.05
NEARLY = {**SCORES, "7": MinerScore(0.91, 120.0, 1.0)}
"""Of the same block, and within the tolerance: what a validator would measure that had forgotten its first round."""
NEARLY_WEIGHTS = {7: 0.89, 9: 0.11}
COMMITS = {PROPOSER: 10, COSIGNER: 6}
"""Of a first run. The proposer's: 1 scores and 2 ranking offered; for either: signed, two co-signatures, queued. The
co-signer's: both offered; for either: the intent to sign, and the bundle noted."""
POINTS = [
    *[(PROPOSER, "quorum:proposed"), (PROPOSER, "quorum:bundled"), (COSIGNER, "quorum:intended")],
    *[(PROPOSER, f"ask:{moment}:{number}") for number in range(1, 5) for moment in ("before", "after")],
    *[
        (who, f"{moment}:{number}")
        for who, commits in COMMITS.items()
        for number in range(1, 1 + commits)
        for moment in ("begin", "commit")
    ],
]


class Witness:
    """Asks over HTTP, and writes down what the proposer has signed before anybody else has it."""

    def __init__(self, client: PeerClient, validator: Validator, seen: Path) -> None:
        self._client, self._validator, self._seen = client, validator, seen
        self._asked = 0

    async def ask(self, peer: Peer, document: bytes, block_hash: bytes) -> api.CosignerOpinion | None:
        self._asked += 1
        number = self._asked
        note(self._seen, self._validator, read_proposal(document, block_hash.hex()))
        kill_points.point(f"ask:before:{number}")
        opinion = await self._client.ask(peer, document, block_hash)
        kill_points.point(f"ask:after:{number}")
        return opinion

    async def announce_bundle(self, peer: Peer, body: bytes) -> bool:
        return await self._client.announce_bundle(peer, body)


def note(seen: Path, signer: Validator, proposed: Proposal) -> None:
    with seen.open("a") as lines:
        lines.write(f"{signer.keypair.ss58} {proposed.kind} {proposed.block} {proposed.output_hash}\n")


async def validate(
    folder: Path,
    who: int,
    ports: list[int],
    scores: dict[str, MinerScore],
    trace: str = "",
    *,
    quorum: int = 3,
    ends: int = PROPOSER,
    looks: int = 1_000,
) -> None:
    """One start of a validator, in whose subnet it is the turn that the file `turn` says. Who `ends` does when its own
    outputs wait no longer or it has looked so often, the others when they are killed."""
    kill_points._trace = trace
    verifier.CLOCKS_AHEAD_MS = 0  # type: ignore[attr-defined]  # of this process: else nobody is heard for the first 3 s
    subnet = Subnet(3, quorum=quorum)
    subnet.clock = SystemClock()  # type: ignore[assignment]  # signatures are told from replays by it
    subnet.turn_of(turn_in(folder))
    own = subnet.validators[who] = Validator(subnet, subnet.keys[who], folder)
    weights = WEIGHTS if scores is SCORES else NEARLY_WEIGHTS
    block = FIRST_BLOCK if quorum == 3 else FIRST_BLOCK + who
    own.offer(scores, block)
    own.offer_ranking(weights, block)
    judge = own.cosigner.judge

    async def judged(caller: bytes, proposal: Proposal) -> tuple[Judged, str | None]:
        found = await judge(caller, proposal)
        if found[1] is not None:
            note(folder / "seen", own, proposal)
        return found

    own.cosigner.judge = judged  # type: ignore[method-assign]
    http, clock, ids = HttpClient(), SystemClock(), SystemIds()
    peers = [Peer(key.public_key, f"http://127.0.0.1:{port}") for key, port in zip(subnet.keys, ports, strict=True)]
    own.proposing._ports = msgspec.structs.replace(
        own.proposing._ports,
        client=Witness(PeerClient(http, own.keypair, clock, ids, 5.0), own, folder / "seen"),
        peers=lambda: [peer for peer in peers if peer.hotkey != own.keypair.public_key],
    )
    app = peers_app(own.cosigner, own.keypair, settings=SETTINGS, clock=clock, ids=ids, metrics=own.metrics)
    running = Running()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(app, "127.0.0.1", ports[who], context=running, settings=SETTINGS))
        while who != ends or not (looks == 0 or all_left(own)):
            looks -= 1
            subnet.turn_of(turn_in(folder))
            await own.proposing.look()
            await trio.sleep(LOOK_S)
        nursery.cancel_scope.cancel()


def all_left(proposer: Validator) -> bool:
    kept = proposer.ledger.read_now(lambda c: records.candidates(c, 10))
    return all(each.state in (CandidateState.BUNDLED, CandidateState.SETTLED) for each in kept)


def turn_in(folder: Path) -> int:
    """Whose turn it is."""
    turn = folder / "turn"
    return int(turn.read_text()) if turn.exists() else PROPOSER


async def free_ports(count: int) -> list[int]:
    listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(count)]
    ports = [each.socket.getsockname()[1] for each in listeners]
    for each in listeners:
        await each.aclose()
    return ports


class Three:
    """Three validators as processes of their own, the proposer last. Ends those that run."""

    def __init__(self, folder: Path, quorum: int = 3) -> None:
        self._folder = folder
        self._quorum = quorum
        self._running: dict[int, int] = {}
        self._ports: list[int] = []

    async def start(self, who: int = PROPOSER, kill_at: str = "", traces: Sequence[str] = ("", "", "")) -> None:
        self._ports = await free_ports(3)
        for validator in (2, 1, 0):
            await self.start_one(validator, SCORES, kill_at if validator == who else "", traces[validator])
            if validator != PROPOSER and not (validator == who and kill_at):
                await listening(self._ports[validator])

    async def start_one(
        self, validator: int, scores: dict[str, MinerScore], kill_at: str = "", trace: str = "", **ends: int
    ) -> None:
        work = partial(validate, self._folder, validator, self._ports, scores, trace, quorum=self._quorum, **ends)
        self._running[validator] = await forked.start(work, kill_at=kill_at)

    async def ended(self, validator: int) -> int:
        """Its exit status, once it has ended."""
        return await forked.ended(self._running.pop(validator))

    def kill(self, validator: int) -> None:
        forked.kill(self._running.pop(validator))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in self._running.values():
            forked.kill(child)


async def listening(port: int) -> None:
    with trio.fail_after(20):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(0.02)
            else:
                return


@pytest.mark.parametrize(("who", "point"), sample("quorum kills", POINTS, 3))
async def test_a_quorum_of_processes_signs_one_output_of_a_block_and_queues_it_once(
    who: int, point: str, tmp_path: Path
) -> None:
    async with Three(tmp_path) as validators:
        await validators.start(who, point)
        assert await validators.ended(who) == forked.KILLED, "the run never came to this point"
        await validators.start_one(who, NEARLY)
        assert await validators.ended(PROPOSER) == 0
    signed: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for line in (tmp_path / "seen").read_text().splitlines():
        signer, kind, block, output_hash = line.split()
        signed[signer, kind, block].add(output_hash)
    assert len(signed) == 6, "scores and ranking, the proposer and both others"
    assert all(len(outputs) == 1 for outputs in signed.values()), signed
    subnet = Subnet(3)
    proposer = Validator(subnet, subnet.keys[PROPOSER], tmp_path)
    for kind in ("scores", "ranking"):
        assert proposer.candidate(kind).state is CandidateState.BUNDLED
        rows = select(relay_outbox.c.output_hash).where(relay_outbox.c.kind == kind)
        queued = proposer.ledger.write_now(lambda c, q=rows: list(c.scalars(q).all()))  # type: ignore[misc]
        assert queued == [*signed[proposer.keypair.ss58, kind, str(FIRST_BLOCK)]], "once, and what was signed"
        cosigners = [each.hotkey for each in proposer.candidate(kind).cosignatures]
        assert sorted(cosigners) == sorted(key.ss58 for key in subnet.keys[1:])
    proposer.ledger.close()
    subnet.close()


BEFORE_IT_LEFT = ["quorum:proposed", "ask:before:1", "ask:after:1", "begin:4", "commit:4", "ask:after:3", "commit:8"]
"""Of a first run: the first five while the scores are collected, the others while the ranking is."""


@pytest.mark.parametrize("point", sample("quorum turns", BEFORE_IT_LEFT, 1))
async def test_when_a_proposer_is_killed_the_next_one_s_output_leaves_in_its_turn(point: str, tmp_path: Path) -> None:
    """The killed one comes back in a later turn, to an epoch that is settled: its own leaves as well only if it had the
    signatures before, since the word of another that the epoch is settled can suppress nothing."""
    turn = tmp_path / "turn"
    async with Three(tmp_path, quorum=2) as validators:
        await validators.start(PROPOSER, point)
        assert await validators.ended(PROPOSER) == forked.KILLED, "the run never came to this point"
        turn.write_text(str(NEXT))
        validators.kill(NEXT)
        await validators.start_one(NEXT, SCORES, ends=NEXT)
        assert await validators.ended(NEXT) == 0
        turn.write_text(str(PROPOSER))
        await validators.start_one(NEXT, SCORES, ends=-1)
        await validators.start_one(PROPOSER, NEARLY, looks=3)
        assert await validators.ended(PROPOSER) == 0
    signed: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for line in (tmp_path / "seen").read_text().splitlines():
        signer, kind, block, output_hash = line.split()
        signed[signer, kind, block].add(output_hash)
    assert all(len(outputs) == 1 for outputs in signed.values()), signed
    left = dict[str, list[int]]()
    subnet = Subnet(3)
    for number, keypair in enumerate(subnet.keys):
        held = Validator(subnet, keypair, tmp_path)
        for kind in ("scores", "ranking"):
            rows = select(relay_outbox.c.output_hash).where(relay_outbox.c.kind == kind)
            queued = held.ledger.read_now(lambda c, q=rows: list(c.scalars(q)))  # type: ignore[misc]
            left.setdefault(kind, []).extend([number] * len(queued))
        held.ledger.close()
    subnet.close()
    if point in BEFORE_IT_LEFT[5:]:
        assert left["scores"] == [PROPOSER], "they had left before it was killed"
        del left["scores"]
    assert all(found in ([NEXT], [PROPOSER, NEXT]) for found in left.values()), left


async def test_the_plan_of_kills_has_every_commit_of_a_run(tmp_path: Path) -> None:
    traces = [tmp_path / f"trace{who}" for who in range(3)]
    async with Three(tmp_path) as validators:
        await validators.start(traces=[str(trace) for trace in traces])
        assert await validators.ended(PROPOSER) == 0
    for who, commits in COMMITS.items():
        passed = [line for line in traces[who].read_text().splitlines() if line.startswith("commit:")]
        assert len(passed) == commits, traces[who].read_text()
