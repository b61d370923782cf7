"""Facts that change: what a key and a named predecessor supersede, and what never is superseded."""

from collections.abc import Iterator

import msgspec
import pytest

from engram.durable.driver import sqlite3
from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.filters import EVERYTHING, Filter
from engram.memory.model import ALWAYS, PUBLIC, Deleted, Entry, Record, Upserted, Validity
from engram.memory.rules import RecordLimits, check_ingest, check_list
from engram.memory.store import record_sql, succession
from tests.memory.stores import DIMENSION, entry, vector

pytestmark = pytest.mark.rules

ANNA, BERT = bytes([1]) * 32, bytes([2]) * 32
CURRENT = Filter(current=True)


@pytest.fixture
def truth() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    record_sql.create_schema(connection, "truth")
    yield connection
    connection.close()


def made(number: int, namespace: str = "mine", owner: bytes | None = ANNA, validity: Validity = ALWAYS) -> Entry:
    plain = entry(vector(1, number), namespace, f"text {number}", owner)
    return Entry(namespace, plain.cid, plain.embedding, plain.text, {}, "v1", owner, validity)


def put(truth: sqlite3.Connection, entry: Entry, now: float = 1.0) -> Record:
    return record_sql.put(truth, entry, now)


def current(truth: sqlite3.Connection, namespace: str = "mine", now: float = 1.0) -> list[str | None]:
    return [each.text for each in record_sql.page(truth, namespace, CURRENT, 50, now=now)]


HOME = Validity(key="home")


def test_a_key_supersedes_the_earlier_ones_of_its_namespace(truth: sqlite3.Connection) -> None:
    first = put(truth, made(1, validity=HOME))
    put(truth, made(2, validity=Validity(key="work")))
    put(truth, made(3, "other", validity=HOME))
    put(truth, made(4))
    last = put(truth, made(5, validity=HOME))
    assert current(truth) == ["text 2", "text 4", "text 5"]
    assert current(truth, "other") == ["text 3"]
    before = record_sql.get(truth, "mine", first.cid)
    assert before is not None
    assert before.superseded_by == last.cid
    versions = record_sql.page(truth, "mine", EVERYTHING, 50, key="home")
    assert [each.text for each in versions] == ["text 1", "text 5"]


def test_in_public_only_ones_own_records_are_superseded(truth: sqlite3.Connection) -> None:
    annas = put(truth, made(1, PUBLIC, ANNA, HOME))
    nobodys = put(truth, made(2, PUBLIC, None, HOME))
    put(truth, made(3, PUBLIC, BERT, Validity("home", annas.cid)))
    put(truth, made(4, PUBLIC, BERT, Validity(supersedes=nobodys.cid)))
    put(truth, made(5, PUBLIC, None, Validity("home", annas.cid)))
    assert current(truth, PUBLIC) == [f"text {number}" for number in range(1, 6)]
    put(truth, made(6, PUBLIC, ANNA, HOME))
    assert current(truth, PUBLIC) == [f"text {number}" for number in range(2, 7)]


def test_one_that_is_named_is_superseded_and_does_not_come_back_with_a_deletion(truth: sqlite3.Connection) -> None:
    first = put(truth, made(1))
    second = put(truth, made(2, validity=Validity(supersedes=first.cid)))
    assert current(truth) == ["text 2"]
    record_sql.delete(truth, "mine", second.cid)
    assert current(truth) == []
    assert record_sql.get(truth, "mine", first.cid) is not None


def test_what_has_expired_is_not_current(truth: sqlite3.Connection) -> None:
    put(truth, made(1, validity=Validity(expires_at=10.0)))
    assert current(truth, now=9.9) == ["text 1"]
    assert current(truth, now=10.0) == []
    assert len(record_sql.page(truth, "mine", EVERYTHING, 9)) == 1


def test_storing_the_same_again_is_harmless(truth: sqlite3.Connection) -> None:
    first = put(truth, made(1, validity=HOME))
    found, changes = record_sql.put_all(truth, [made(1, validity=HOME), made(1)], 2.0)
    assert (found, changes) == ([first, first], [])


def test_a_fact_that_is_true_once_more_is_current_once_more(truth: sqlite3.Connection) -> None:
    first = put(truth, made(1, validity=HOME))
    second = put(truth, made(2, validity=HOME))
    [again], changes = record_sql.put_all(truth, [made(1, validity=HOME)], 5.0)
    assert current(truth) == ["text 1"]
    assert (again.cid, again.created_at) == (first.cid, 5.0)
    gone, stored = changes
    assert isinstance(gone, Deleted)
    assert isinstance(stored, Upserted)
    assert (gone.id, stored.id) == (first.id, again.id)
    assert [gone.sequence, stored.sequence] == [second.sequence + 1, second.sequence + 2]
    assert record_sql.changes_since(truth, second.sequence, 9)[0] == Deleted(gone.sequence, first.id, "mine")


@pytest.mark.parametrize(("owner", "replaced"), [(ANNA, True), (BERT, False), (None, False)])
def test_only_its_owner_gives_a_public_record_another_validity(
    truth: sqlite3.Connection, owner: bytes | None, replaced: bool
) -> None:
    there = put(truth, made(1, PUBLIC, ANNA))
    again = put(truth, made(1, PUBLIC, owner, Validity(expires_at=9.0)))
    assert (again.id != there.id) == replaced
    assert again.owner == ANNA


def test_one_of_expired_validity_is_replaced_by_the_same_one() -> None:
    there = Record(1, "mine", "", b"", None, {}, "v1", ANNA, 1.0, 1, Validity(expires_at=5.0))
    again = made(1, validity=Validity(expires_at=5.0))
    assert succession.replacement(there, again, 4.0) is None
    assert succession.replacement(there, again, 5.0) is not None


@pytest.mark.parametrize("validity", [HOME, Validity(supersedes="v1::" + "0" * 64), Validity("work", expires_at=9.0)])
def test_another_text_of_the_same_cid_never_takes_the_place_of_the_one_that_is_there(
    truth: sqlite3.Connection, validity: Validity
) -> None:
    first = put(truth, made(1, validity=HOME))
    again = put(truth, msgspec.structs.replace(made(1, validity=validity), text="text 1 with another end"))
    assert again == first
    assert current(truth) == ["text 1"]


def test_storing_a_vector_again_without_its_text_keeps_the_text(truth: sqlite3.Connection) -> None:
    put(truth, msgspec.structs.replace(made(1), made_here=True))
    again = put(truth, msgspec.structs.replace(made(1, validity=HOME), text=None, made_here=False))
    assert (again.text, again.made_here, again.validity) == ("text 1", True, HOME)
    put(truth, msgspec.structs.replace(made(2), text=None))
    assert put(truth, made(2, validity=HOME)).text == "text 2"


@pytest.mark.parametrize(
    ("namespace", "first", "then", "lasts"),
    [
        ("mine", ANNA, BERT, True),
        (PUBLIC, ANNA, ANNA, True),
        (PUBLIC, ANNA, BERT, False),
        (PUBLIC, ANNA, None, False),
        (PUBLIC, None, BERT, True),
        (PUBLIC, None, None, True),
    ],
)
def test_storing_again_without_an_expiry_ends_it(
    truth: sqlite3.Connection, namespace: str, first: bytes | None, then: bytes | None, lasts: bool
) -> None:
    put(truth, made(1, namespace, first, Validity("weather", expires_at=5.0)))
    again = put(truth, made(1, namespace, then), now=6.0)
    assert current(truth, namespace, now=7.0) == (["text 1"] if lasts else [])
    assert again.validity == Validity("weather", expires_at=None if lasts else 5.0)
    assert again.owner == (then if namespace == "mine" else first)


def test_storing_again_what_was_superseded_leaves_it_superseded(truth: sqlite3.Connection) -> None:
    first = put(truth, made(1, validity=Validity("weather", expires_at=50.0)))
    put(truth, made(2, validity=Validity("weather")))
    assert put(truth, made(1), now=60.0).id == first.id
    assert current(truth, now=61.0) == ["text 2"]


def test_the_lookup_of_a_key_uses_its_index(truth: sqlite3.Connection) -> None:
    plan = truth.execute("EXPLAIN QUERY PLAN SELECT 1 FROM records WHERE namespace = 'a' AND key = 'b'").fetchone()
    assert "records_by_key" in plan[3]


def test_superseding_reads_none_of_the_versions_that_are_superseded_already(truth: sqlite3.Connection) -> None:
    plans: list[str] = []
    truth.set_trace_callback(plans.append)
    put(truth, made(1, validity=HOME))
    truth.set_trace_callback(None)
    [update] = [each for each in plans if each.startswith("UPDATE records SET superseded_by")]
    [plan] = truth.execute(f"EXPLAIN QUERY PLAN {update}").fetchall()
    assert "records_current_by_key" in plan[3]


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"key": 1}, InvalidRequest, "key must be a string"),
        ({"key": "x" * 257}, InvalidInput, "key has 257 characters, over the limit of 256"),
        ({"key": "\ud800"}, InvalidInput, "half of a surrogate pair"),
        ({"supersedes": "v1::abc"}, InvalidInput, "supersedes must be the CID of a record"),
        ({"supersedes": 5}, InvalidRequest, "supersedes must be a string"),
        ({"expires_at": "tomorrow"}, InvalidRequest, "expires_at must be a number: unix seconds"),
        ({"expires_at": True}, InvalidRequest, "expires_at must be a number: unix seconds"),
        ({"expires_at": 0}, InvalidInput, "expires_at must be unix seconds"),
        ({"expires_at": 1.8e12}, InvalidInput, "milliseconds are more"),
        ({"expires_at": 10**5_000}, InvalidInput, "milliseconds are more"),
        ({"expires_at": float("nan")}, InvalidInput, "expires_at must be unix seconds"),
    ],
)
def test_a_validity_that_is_not_understood_is_refused(
    fields: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        check_ingest({"text": "x", **fields}, RecordLimits(DIMENSION))


def test_empty_fields_of_validity_ask_for_nothing() -> None:
    nothing = {"key": None, "supersedes": "", "expires_at": None}
    assert check_ingest({"text": "x", **nothing}, RecordLimits(DIMENSION)).validity == ALWAYS
    assert check_list({"key": ""}).key is None
    assert check_list({"key": "home"}).key == "home"
    with pytest.raises(InvalidRequest, match="key has 257 characters"):
        check_list({"key": "x" * 257})


def test_a_record_that_comes_from_elsewhere_keeps_its_successor(truth: sqlite3.Connection) -> None:
    first = put(truth, made(1))
    succession.mark(truth, first.id, "v1::its successor")
    assert current(truth) == []
    (shown,) = record_sql.page(truth, "mine", EVERYTHING, 50)
    assert shown.superseded_by == "v1::its successor"


def test_what_comes_superseded_out_of_an_export_supersedes_nothing(truth: sqlite3.Connection) -> None:
    here = put(truth, made(1, validity=HOME))
    moved = msgspec.structs.replace(made(2, validity=HOME), superseded_by=made(3).cid)
    put(truth, moved)
    assert current(truth) == ["text 1"]
    again = msgspec.structs.replace(made(1, validity=HOME), superseded_by=moved.cid)
    put(truth, again)
    assert current(truth) == ["text 1"], "what is here and current stays so"
    kept = record_sql.get(truth, "mine", here.cid)
    assert kept is not None
    assert kept.superseded_by is None
