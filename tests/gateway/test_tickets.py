"""Tickets and renewals: what opens, how often, for how long, and what is remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.gateway.tickets import LIFETIME_S, RENEWAL_S, Tickets

NOW = 1_000.0


def opens(tickets: Tickets, token: str, session_id: str = "s", now_s: float = NOW) -> bool:
    admission = tickets.find(token, session_id, now_s)
    return admission is not None and tickets.open(admission)


def test_a_ticket_of_another_process_or_garbage_is_none() -> None:
    tickets, others = Tickets(b"a" * 32), Tickets(b"b" * 32)
    ticket = tickets.issue("s", NOW)
    others.issue("s", NOW)
    assert tickets.find(ticket, "s", NOW)
    assert not others.find(ticket, "s", NOW)
    assert not tickets.find(ticket, "t", NOW)
    for garbage in ("", "=", "%", ticket[:-1], ticket + "AA", "é", "A" * 1_000, ticket.swapcase()):
        assert not tickets.find(garbage, "s", NOW)
    assert "a" * 8 not in repr(tickets)
    with pytest.raises(ValueError, match="32 bytes"):
        Tickets(b"short")


def test_a_ticket_opens_once_and_within_its_time() -> None:
    tickets = Tickets(b"a" * 32)
    late, ticket = tickets.issue("s", NOW), tickets.issue("s", NOW)
    assert not opens(tickets, late, now_s=NOW + LIFETIME_S)
    assert opens(tickets, ticket, now_s=NOW + LIFETIME_S - 1)
    assert not opens(tickets, ticket)


def test_of_two_that_found_one_ticket_good_one_opens() -> None:
    tickets = Tickets(b"a" * 32)
    ticket = tickets.issue("s", NOW)
    found = [tickets.find(ticket, "s", NOW) for _ in range(2)]
    assert [admission is not None and tickets.open(admission) for admission in found] == [True, False]


def test_a_renewal_outlives_its_ticket_by_the_time_a_client_may_be_away() -> None:
    tickets = Tickets(b"a" * 32)
    admission = tickets.find(tickets.issue("s", NOW), "s", NOW)
    assert admission is not None
    assert tickets.open(admission)
    renewal = tickets.renew(admission.lineage, NOW + 500)
    assert not opens(tickets, renewal, now_s=NOW + 500 + RENEWAL_S)
    assert opens(tickets, renewal, now_s=NOW + 499 + RENEWAL_S)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=40))
def test_no_token_opens_after_a_later_one_of_its_lineage_did_and_a_ticket_opens_once(
    steps: list[tuple[bool, int]],
) -> None:
    tickets = Tickets(b"a" * 32)
    tokens = [tickets.issue("s", NOW)]
    admission = tickets.find(tokens[0], "s", NOW)
    assert admission is not None
    newest = -1
    for renews, which in steps:
        if renews:
            tokens.append(tickets.renew(admission.lineage, NOW))
            continue
        at = which % len(tokens)
        expected = newest < 0 if at == 0 else at >= newest
        assert opens(tickets, tokens[at]) == expected
        newest = at if expected else newest


def test_what_is_remembered_has_a_bound_for_a_session_and_for_all() -> None:
    tickets = Tickets(b"a" * 32, bound=5, per_session=2)
    of_one = [tickets.issue("s", NOW) for _ in range(3)]
    assert [opens(tickets, token) for token in of_one] == [False, True, True]
    others = [tickets.issue(f"session {number}", NOW) for number in range(5)]
    assert not tickets.find(of_one[2], "s", NOW)
    assert [opens(tickets, token, f"session {number}") for number, token in enumerate(others)] == [True] * 5
    assert repr(tickets) == "<Tickets: 5 lineages>"


def test_a_lineage_in_use_is_forgotten_last_and_then_its_renewals_open_nothing() -> None:
    tickets = Tickets(b"a" * 32, per_session=2)
    admission = tickets.find(tickets.issue("s", NOW), "s", NOW)
    assert admission is not None
    assert tickets.open(admission)
    tickets.issue("s", NOW)
    tickets.renew(admission.lineage, NOW)
    tickets.issue("s", NOW)
    assert opens(tickets, renewal := tickets.renew(admission.lineage, NOW))
    for _ in range(2):
        tickets.issue("s", NOW)
    assert not opens(tickets, renewal)
    assert not opens(tickets, tickets.renew(admission.lineage, NOW))
