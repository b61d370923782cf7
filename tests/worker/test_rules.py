"""Decisions about jobs, as tables."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.worker import rules
from engram.worker.model import JobEnd, JobRow, Outcome, State, WorkerJob
from engram.worker.rules import CONFLICT, UNRECORDED, Decision, RefusedJob

pytestmark = pytest.mark.rules


def row(state: State, request_hash: bytes = b"h") -> JobRow:
    return JobRow(id="a", kind="inference", state=state, request_hash=request_hash, payload=b"", created_at=0.0)


@pytest.mark.parametrize(
    ("running", "known", "decision"),
    [
        (None, None, "run"),
        (b"h", None, "join"),
        (b"other", None, CONFLICT),
        (None, row("done"), "answer"),
        (None, row("done", b"other"), CONFLICT),
        (None, row("running"), UNRECORDED),
        (None, row("accepted"), UNRECORDED),
        (None, row("running", b"other"), CONFLICT),
    ],
)
def test_what_becomes_of_a_job_with_an_id(running: bytes | None, known: JobRow | None, decision: Decision) -> None:
    assert rules.decide(running, known, b"h") == decision


@pytest.mark.parametrize(
    ("arguments", "job"),
    [
        ([{"type": "inference", "payload": {"a": 1}}], WorkerJob(None, "inference", {"a": 1})),
        ([{"type": "inference"}, "more"], WorkerJob(None, "inference", None)),
        ([{}], WorkerJob(None, "", None)),
        ([{"type": 7}], WorkerJob(None, "", None)),
        ([{"type": "a", "id": "x"}], WorkerJob("x", "a", None)),
        ([{"type": "a", "job_id": 7}], WorkerJob("7", "a", None)),
        ([{"type": "a", "id": "7", "job_id": 7}], WorkerJob("7", "a", None)),
        ([{"type": "a", "id": None}], WorkerJob(None, "a", None)),
        ([{"type": "a", "id": "ä b"}], WorkerJob("ä b", "a", None)),
    ],
)
def test_jobs_are_read(arguments: list[Any], job: WorkerJob) -> None:
    assert rules.read_job(arguments) == job


@pytest.mark.parametrize("arguments", [[], ["x"], [None], [[]], [7]])
def test_what_is_no_job_is_refused(arguments: list[Any]) -> None:
    assert rules.read_job(arguments) == RefusedJob("Job is not an object with type and payload")


@pytest.mark.parametrize(
    ("given_id", "text"),
    [
        ({"id": ""}, "1 to 200 printable"),
        ({"id": "x" * 201}, "1 to 200 printable"),
        ({"id": "a\n"}, "1 to 200 printable"),
        ({"id": True}, "not one text or whole number"),
        ({"id": 1.5}, "not one text or whole number"),
        ({"id": []}, "not one text or whole number"),
        ({"id": "a", "job_id": "b"}, "not one text or whole number"),
        ({"id": "a", "job_id": 1.0}, "not one text or whole number"),
        ({"id": 10**5_000}, "not one text or whole number"),
    ],
)
def test_an_id_that_is_none_is_refused_and_never_ignored(given_id: dict[str, Any], text: str) -> None:
    refused = rules.read_job([{"type": "a", **given_id}])
    assert isinstance(refused, RefusedJob)
    assert text in refused.error


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_payload_is_kept_or_refused(payload: object) -> None:
    job = WorkerJob("a", "inference", payload)
    try:
        kept = rules.request_of(job)
    except ValueError:
        return
    assert kept == rules.request_of(job)


def test_the_order_of_a_payloads_keys_makes_no_other_job() -> None:
    one = WorkerJob("a", "k", {"x": 1, "y": [2]})
    other = WorkerJob("a", "k", {"y": [2], "x": 1})
    assert rules.request_of(one) == rules.request_of(other)
    assert rules.request_of(one)[1] != rules.request_of(WorkerJob("a", "j", one.payload))[1]


def test_a_result_that_fits_is_kept_as_it_is() -> None:
    end = JobEnd("done", {"image": b"x"})
    assert rules.kept_within(end, 100) is end
    assert rules.kept_within(JobEnd("done", "x" * 98), 100).outcome == "done"


@pytest.mark.parametrize(
    ("outcome", "told"), [("done", {"outcome": "unknown"}), ("unknown", {"outcome": "unknown"}), ("failed", {})]
)
def test_a_job_whose_result_is_too_large_is_told_as_failed_only_where_it_failed(
    outcome: Outcome, told: dict[str, str]
) -> None:
    end = rules.kept_within(JobEnd(outcome, "x" * 99), 100)
    assert end.result == {"error": "Result has 101 bytes, more than 100"} | told
    assert end.outcome == told.get("outcome", "failed")


def test_what_is_refused_says_when_it_may_come_again() -> None:
    assert rules.FULL.result() == {"error": "Worker is full", "retry_after_s": 5}
    assert CONFLICT.result() == {"error": "Job id was used for another job"}


def test_an_interrupted_job_may_have_been_done() -> None:
    end = rules.interrupted("training")
    assert (end.outcome, end.result["outcome"]) == ("unknown", "unknown")
    assert "the training may or may not have been done" in end.result["error"]


@pytest.mark.parametrize("result", [object(), 2**80, {1: {object()}}])
def test_a_result_that_cannot_be_kept_leaves_the_outcome_unknown_and_says_why(result: object) -> None:
    end = rules.kept_within(JobEnd("done", result), 100)
    assert (end.outcome, end.result["outcome"]) == ("unknown", "unknown")
    assert end.result["error"].startswith("Result cannot be sent: ")
