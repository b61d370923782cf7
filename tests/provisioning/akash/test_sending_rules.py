"""What the chain's answers mean, row by row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning.akash import sending_rules
from engram.provisioning.akash.events import Refusal
from engram.provisioning.akash.sending_rules import Taken

LOW = "account sequence mismatch, expected 62332, got 62331: incorrect account sequence"
HIGH = "account sequence mismatch, expected 62331, got 62332: incorrect account sequence"


@pytest.mark.parametrize(
    ("codespace", "code", "log", "maybe_sent", "meaning"),
    [
        ("", 0, "", False, Taken.TAKEN),
        ("sdk", 19, "tx already in mempool", False, Taken.TAKEN),
        ("sdk", 20, "mempool is full", False, Taken.AGAIN),
        ("sdk", 32, LOW, False, Taken.RENUMBER),
        ("sdk", 32, LOW, True, Taken.AGAIN),
        ("sdk", 32, HIGH, False, Taken.AGAIN),
        ("sdk", 32, "no numbers", False, Taken.AGAIN),
        ("sdk", 5, "insufficient funds", False, Taken.REFUSED),
        ("sdk", 13, "insufficient fee", False, Taken.AGAIN),
        ("sdk", 5, "insufficient funds", True, Taken.AGAIN),
        ("sdk", 18, "already used timeout", True, Taken.AGAIN),
    ],
)
def test_a_refusal_is_believed_only_of_bytes_that_were_never_sent_before(
    codespace: str, code: int, log: str, maybe_sent: bool, meaning: Taken
) -> None:
    assert sending_rules.taken(codespace, code, log, maybe_sent=maybe_sent) is meaning


@given(st.sampled_from(["sdk", "deployment", "market", ""]), st.integers(0, 200), st.text(max_size=60))
def test_what_may_have_been_sent_before_is_never_taken_for_refused(codespace: str, code: int, log: str) -> None:
    assert sending_rules.taken(codespace, code, log, maybe_sent=True) in (Taken.TAKEN, Taken.AGAIN)


@pytest.mark.parametrize(
    ("codespace", "code", "text", "meaning"),
    [
        ("market", 28, "deposit invalid: insufficient balance", Refusal.NO_FUNDS),
        ("", 0, "failed to execute message; message index: 0: deposit invalid: insufficient balance", Refusal.NO_FUNDS),
        ("sdk", 5, "spendable balance 1uakt is smaller than 2uakt: insufficient funds", Refusal.NO_FUNDS),
        ("market", 12, "bid not open", Refusal.BID_GONE),
        ("", 0, "message index: 0: bid: order not open", Refusal.BID_GONE),
        ("deployment", 5, "Deployment closed", Refusal.GONE),
        ("", 0, "Deployment not found", Refusal.GONE),
        ("", 0, "account closed", Refusal.GONE),
        ("", 0, "negative decimal coin amount", Refusal.OTHER),
    ],
)
def test_each_refusal_has_one_meaning_by_code_or_text(codespace: str, code: int, text: str, meaning: Refusal) -> None:
    assert sending_rules.refusal_of(codespace, code, text) is meaning


def test_a_chain_that_takes_no_unordered_transactions_is_recognized() -> None:
    assert sending_rules.needs_order("unordered transactions are not enabled: invalid request with gas used: '0'")
    assert not sending_rules.needs_order("unordered nonce already used")
