"""Tickets and renewals: what opens, how often, for how long, and what is remembered."""

from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from engram.gateway import ticket_records, tickets
from engram.gateway.tables import ticket_lineages, ticket_requests
from engram.gateway.ticket_records import KEPT_S, OF_ONE_SESSION, REQUESTS_KEPT_S, Lineage
from engram.gateway.tickets import LIFETIME_S, RENEWAL_S
from engram.ledger import InlineLedger, open_inline

NOW = 1_000.0
SECRET = b"a" * 32


class Book:
    """A ledger's tickets, as its gateways use them."""

    def __init__(self, ledger: InlineLedger) -> None:
        self.ledger = ledger

    def issue(self, session_id: str = "s", request: bytes | None = None, now_s: float = NOW) -> str | None:
        issue = partial(ticket_records.issue, session_id=session_id, request=request, expires_at=now_s + 60.0)
        return self.ledger.write_now(lambda c: issue(c, now_s=now_s))

    def ticket(self, session_id: str = "s", now_s: float = NOW) -> str:
        ticket = self.issue(session_id, now_s=now_s)
        assert ticket is not None
        return ticket

    def find(self, text: str, session_id: str = "s", now_s: float = NOW) -> tickets.StreamToken | None:
        return tickets.read(text, session_id, self.secret, now_s)

    def open(self, text: str, session_id: str = "s", now_s: float = NOW) -> Lineage | None:
        token = self.find(text, session_id, now_s)
        return None if token is None else self.ledger.write_now(lambda c: ticket_records.open_stream(c, token, now_s))

    def renew(self, lineage: Lineage | None, now_s: float = NOW) -> str:
        assert lineage is not None
        return ticket_records.renew(lineage, self.secret, now_s)

    def is_over(self, lineage: Lineage | None) -> bool:
        assert lineage is not None
        return self.ledger.write_now(lambda c: ticket_records.is_over(c, lineage))

    @property
    def secret(self) -> bytes:
        found = self.ledger.write_now(ticket_records.secret)
        assert found is not None
        return found


@pytest.fixture
def book() -> Iterator[Book]:
    ledger = open_inline()
    yield Book(ledger)
    ledger.close()


def test_a_token_of_another_secret_or_session_or_garbage_is_none() -> None:
    token = tickets.StreamToken(7, "s", 0, int(NOW) + 5)
    text = tickets.write(token, SECRET)
    assert tickets.read(text, "s", SECRET, NOW) == token
    assert tickets.read(text, "s", b"b" * 32, NOW) is None
    assert tickets.read(text, "t", SECRET, NOW) is None
    assert tickets.read(text, "s", SECRET, NOW + 5) is None
    for garbage in ("", "=", "%", text[:-1], text + "AA", "é", "A" * 1_000, text.swapcase()):
        assert tickets.read(garbage, "s", SECRET, NOW) is None


def test_there_is_no_secret_before_the_first_ticket_and_one_after(book: Book) -> None:
    assert book.ledger.write_now(ticket_records.secret) is None
    book.issue()
    first = book.secret
    book.issue()
    assert (len(first), book.secret) == (32, first)


def test_a_ticket_opens_once_and_within_its_time(book: Book) -> None:
    late, ticket = book.ticket(), book.ticket()
    assert book.open(late, now_s=NOW + LIFETIME_S) is None
    assert book.open(ticket, now_s=NOW + LIFETIME_S - 1)
    assert book.open(ticket) is None


def test_a_renewal_outlives_its_ticket_by_the_time_a_client_may_be_away(book: Book) -> None:
    renewal = book.renew(book.open(book.ticket()), NOW + 500)
    assert book.open(renewal, now_s=NOW + 500 + RENEWAL_S) is None
    assert book.open(renewal, now_s=NOW + 499 + RENEWAL_S)


def test_of_two_streams_of_a_lineage_the_newer_one_goes_on(book: Book) -> None:
    first = book.open(book.ticket())
    assert not book.is_over(first)
    second = book.open(book.renew(first))
    assert (book.is_over(first), book.is_over(second)) == (True, False)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=40))
def test_no_token_opens_after_a_later_one_of_its_lineage_did_and_a_ticket_opens_once(
    steps: list[tuple[bool, int]],
) -> None:
    ledger = open_inline()
    book = Book(ledger)
    tokens, newest = [book.ticket()], -1
    lineage: Lineage | None = None
    for renews, which in steps:
        if renews:
            if lineage is not None:
                tokens.append(book.renew(lineage))
            continue
        at = which % len(tokens)
        expected = newest < 0 if at == 0 else at >= newest
        opened = book.open(tokens[at])
        assert (opened is not None) == expected
        if lineage is None:
            lineage = opened
        newest = at if expected else newest
    ledger.close()


def test_a_request_gets_one_ticket_and_is_forgotten_long_after_its_time(book: Book) -> None:
    assert book.issue(request=b"r")
    assert book.issue(request=b"r") is None
    assert book.issue(request=b"r", now_s=NOW + 60.0 + REQUESTS_KEPT_S) is None
    for number in range(3):
        assert book.issue(request=b"%d" % number, now_s=NOW + 61.0 + REQUESTS_KEPT_S)
    count = select(func.count()).select_from(ticket_requests)
    assert book.ledger.write_now(lambda c: c.execute(count).scalar_one()) == 3


def test_lineages_of_a_session_have_a_bound_and_none_opens_again_that_was_dropped(book: Book) -> None:
    used = [book.ticket() for _ in range(OF_ONE_SESSION + 1)]
    renewal = book.renew(book.open(used[0], now_s=NOW))
    assert all(book.open(ticket, now_s=NOW + 1) for ticket in used[1:OF_ONE_SESSION])
    assert book.open(used[-1], now_s=NOW + 2) is None  # all are too young to be dropped
    assert book.open(book.ticket("another"), "another")
    later = NOW + LIFETIME_S + 1
    assert book.open(book.ticket(now_s=later), now_s=later)
    assert book.open(used[0], now_s=later) is None
    assert book.open(renewal, now_s=later) is None


def test_lineages_are_forgotten_when_none_of_their_tokens_is_good(book: Book) -> None:
    book.open(book.ticket())
    later = NOW + KEPT_S + 1
    book.open(book.ticket("t", later), "t", later)
    query = select(ticket_lineages.c.session_id)
    assert book.ledger.write_now(lambda c: list(c.execute(query).scalars())) == ["t"]
