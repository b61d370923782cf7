"""Random histories of three validators, with kills: no key ever signs two outputs of one block."""

import contextlib
import tempfile
from pathlib import Path

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engram.hotkeys import ss58
from engram.ledger import LedgerUnavailable
from engram.relay import MinerScore
from engram.relay.quorum import records
from engram.relay.quorum.model import CandidateState
from tests.relay.quorum.validators import FIRST_BLOCK, SCORES, WEIGHTS, Subnet, proposal
from tests.sampling import NIGHTLY

WHO = st.integers(0, 2)
NEARLY = [SCORES, {**SCORES, "7": MinerScore(0.91, 120.0, 1.0)}, {**SCORES, "9": MinerScore(1.0, 1.0, 1.0)}]


RANKED = [WEIGHTS, {7: 0.89, 9: 0.11}, {7: 0.2, 9: 0.8}]


class Killed(Exception):
    pass


class Validators(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.subnet = Subnet(folder=Path(self.folder.name), turn_blocks=5)
        self.given: dict[tuple[str, str, int], set[str]] = {}
        """Output hashes by the key that signed, kind and block."""

    def teardown(self) -> None:
        self.subnet.close()
        self.folder.cleanup()

    @rule(who=WHO, scores=st.sampled_from(NEARLY), shift=st.integers(0, 2))
    def offer(self, who: int, scores: dict[str, MinerScore], shift: int) -> None:
        self.subnet.validators[who].offer(scores, FIRST_BLOCK + shift)

    @rule(who=WHO, weights=st.sampled_from(RANKED), shift=st.integers(0, 2))
    def offer_ranking(self, who: int, weights: dict[int, float], shift: int) -> None:
        self.subnet.validators[who].offer_ranking(weights, FIRST_BLOCK + shift)

    @rule(who=WHO)
    def look(self, who: int) -> None:
        proposer = self.subnet.validators[who]
        trio.run(proposer.proposing.look)
        self._note(who)

    @rule(proposer=WHO, judge=WHO, scores=st.sampled_from(NEARLY), shift=st.integers(0, 2))
    def ask(self, proposer: int, judge: int, scores: dict[str, MinerScore], shift: int) -> None:
        """A proposer that signs whatever it likes asks one validator alone."""
        if proposer == judge:
            return
        asking, asked = self.subnet.validators[proposer], self.subnet.validators[judge]
        asked_for = proposal(asking.keypair, scores, FIRST_BLOCK + shift)
        _, signature = trio.run(asked.cosigner.judge, asking.keypair.public_key, asked_for)
        if signature is not None:
            self._signed(asked.keypair.ss58, asked_for)

    @rule(who=WHO, after=st.booleans())
    def look_and_die(self, who: int, after: bool) -> None:
        """Killed before or after a commit while it proposes; the answers of the others may be lost."""

        def die() -> None:
            raise Killed

        validator = self.subnet.validators[who]
        if after:
            validator.ledger.after_commit = die
        else:
            validator.ledger.before_commit = die
        with contextlib.suppress(Killed, LedgerUnavailable, ExceptionGroup):
            trio.run(validator.proposing.look)
        validator.restart()
        self._note(who)

    @rule(who=WHO)
    def restart(self, who: int) -> None:
        self.subnet.validators[who].restart()

    @precondition(lambda self: self.subnet.block < FIRST_BLOCK + 60)
    @rule(blocks=st.integers(1, 6))
    def go_on(self, blocks: int) -> None:
        self.subnet.block += blocks

    @rule(who=WHO, away=st.booleans())
    def leave(self, who: int, away: bool) -> None:
        public_key = self.subnet.keys[who].public_key
        (self.subnet.away.add if away else self.subnet.away.discard)(public_key)

    @invariant()
    def no_key_signs_two_outputs_of_one_block(self) -> None:
        assert all(len(outputs) == 1 for outputs in self.given.values()), self.given

    @invariant()
    def what_left_has_enough_signatures_and_no_lie(self) -> None:
        for validator in self.subnet.validators:
            for found in validator.ledger.write_now(lambda c: records.candidates(c, 10)):
                if found.state is CandidateState.BUNDLED:
                    assert {each.hotkey for each in found.cosignatures} - {validator.keypair.ss58}
                    assert b'"latency_ms":1.0' not in found.payload

    def _note(self, who: int) -> None:
        validator = self.subnet.validators[who]
        for found in validator.ledger.write_now(lambda c: records.candidates(c, 10)):
            if found.signed is not None:
                self._signed(validator.keypair.ss58, found)
            for each in found.cosignatures:
                self._signed(ss58.encode(ss58.decode(each.hotkey)), found)

    def _signed(self, hotkey: str, output: records.Output) -> None:
        self.given.setdefault((hotkey, output.kind, output.block), set()).add(output.output_hash)


TestValidators = Validators.TestCase
TestValidators.settings = settings(max_examples=200 if NIGHTLY else 4, stateful_step_count=12, deadline=None)
