import contextlib
import errno
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from engram.telemetry import logs


@pytest.fixture(autouse=True)
def no_request_id() -> Iterator[None]:
    yield
    structlog.contextvars.clear_contextvars()


def answered(path: str = "/list", request_id: str = "r1") -> None:
    logs.request("miner", method="POST", path=path, status=200, took_ms=1.5, client="127.0.0.1", request_id=request_id)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines() if line]


def test_an_event_is_one_json_object_with_what_was_bound() -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=True, stream=stream)
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger("x").info("payment_settled", amount=5, key=b"\x01")
    (event,) = lines(stream)
    assert event["event"] == "payment_settled"
    assert (event["level"], event["request_id"], event["amount"]) == ("info", "r1", 5)
    assert str(event["timestamp"]).endswith("Z")


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    logs.configure("WARNING", json=True, stream=stream)
    structlog.get_logger("x").info("quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("json_lines", [True, False])
def test_no_secret_is_written(json_lines: bool) -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=json_lines, stream=stream)
    structlog.get_logger("x").info(
        "request",
        signature="hush1",
        x_sig="hush2",
        payment={"hush3": 1},
        headers={"PAYMENT-SIGNATURE": "hush4", "X-Payment": "hush5", "Authorization": "hush6", "host": "seen1"},
        private_key="hush7",
        seed=b"hush8",
        ticket="hush9",
        payment_id="seen2",
        payment_tx="seen3",
        token_count=3,
    )
    text = stream.getvalue()
    assert "hush" not in text
    assert all(word in text for word in ("seen1", "seen2", "seen3", logs.REDACTED))


def test_facts_may_have_keys_that_are_no_words() -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=True, stream=stream)
    structlog.get_logger("x").info("refused", counts={402: 3, None: 1}, headers={b"authorization": "hush"})
    (event,) = lines(stream)
    assert event["counts"] == {"402": 3, "None": 1}
    assert "hush" not in stream.getvalue()


@pytest.mark.parametrize("json_lines", [True, False])
def test_tracebacks_show_the_cause_and_no_locals(json_lines: bool) -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=json_lines, stream=stream)

    def fail() -> None:
        inner = "hush"  # noqa: F841 -- a local that a traceback must not show
        raise ValueError("told")

    try:
        fail()
    except ValueError:
        structlog.get_logger("x").exception("failed")
    assert "told" in stream.getvalue()
    assert '"hush"' not in stream.getvalue().replace('inner = "hush"', "")
    assert "'hush'" not in stream.getvalue()


def test_libraries_log_in_the_same_form() -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=True, stream=stream)
    logging.getLogger("library").warning("something %s", "odd")
    logging.getLogger("library").info("chatter")
    (event,) = lines(stream)
    assert (event["event"], event["level"]) == ("something odd", "warning")


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_log_that_cannot_be_written_troubles_nobody(json_lines: bool) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        logs.configure("INFO", json=json_lines, stream=full)
        for _ in range(1_000):
            structlog.get_logger("x").info("request", path="x" * 100)
            logging.getLogger("library").warning("a warning")
        with contextlib.suppress(OSError):
            full.close()
    stream = io.StringIO()
    logs.configure("INFO", json=True, stream=stream)
    structlog.get_logger("x").info("again")
    assert [line["event"] for line in lines(stream)] == ["again"]


def test_half_a_surrogate_pair_is_written_as_an_escape() -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=True, stream=stream)
    structlog.get_logger("x").info("request", path="\ud800")
    assert lines(stream)[0]["path"] == "\ud800"


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_request_is_written_in_the_form_of_every_other_event(json_lines: bool) -> None:
    said, made = io.StringIO(), io.StringIO()
    logs.configure("INFO", json=json_lines, stream=said)
    answered()
    logs.write_held()
    logs.configure("INFO", json=json_lines, stream=made)
    structlog.contextvars.bind_contextvars(request_id="r1")
    facts = {"path": "/list", "status": 200, "took_ms": 1.5, "client": "127.0.0.1"}
    structlog.get_logger("engram.http").info("request", surface="miner", method="POST", **facts)
    if json_lines:
        (line,), (usual,) = lines(said), lines(made)
        assert list(line) == list(usual)
        assert str(line.pop("timestamp"))[:10] == str(usual.pop("timestamp"))[:10]
        assert line == usual
    else:
        assert said.getvalue().split()[1:] == made.getvalue().split()[1:]


def test_requests_wait_for_each_other_and_never_stand_after_what_came_later() -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=True, stream=stream)
    answered(request_id="r1")
    assert stream.getvalue() == ""
    structlog.get_logger("x").info("payment_settled")
    for number in range(2, 66):
        answered(request_id=f"r{number}")
    assert [line.get("request_id", line["event"]) for line in lines(stream)] == [
        "r1",
        "payment_settled",
        *(f"r{number}" for number in range(2, 66)),
    ]


def test_a_request_is_not_written_below_the_level() -> None:
    stream = io.StringIO()
    logs.configure("WARNING", json=True, stream=stream)
    answered()
    logs.write_held()
    assert stream.getvalue() == ""


def test_a_request_whose_path_has_half_a_surrogate_pair_is_written() -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=True, stream=stream)
    answered("\ud800")
    logs.write_held()
    assert lines(stream)[0]["path"] == "\ud800"


def test_lines_of_requests_that_cannot_be_written_are_dropped() -> None:
    class Disk(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    disk = Disk()
    logs.configure("INFO", json=True, stream=disk)
    for _ in range(1_000):
        answered("x" * 100)
    logs.write_held()
    disk.is_full = False
    answered()
    logs.write_held()
    assert len(lines(disk)) == 1


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_log_that_was_closed_troubles_nobody(json_lines: bool) -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=json_lines, stream=stream)
    answered()
    stream.close()
    logs.write_held()
    answered()
    structlog.get_logger("x").info("payment_settled")


def test_every_line_names_the_module_that_wrote_it() -> None:
    stream = io.StringIO()
    logs.configure("INFO", json=True, stream=stream)
    structlog.get_logger("engram.proxy").info("one")
    structlog.get_logger().info("two")
    structlog.get_logger("engram.proxy").info("three", module="engram.other")
    logging.getLogger("library").warning("four")
    named = {str(line["event"]): line.get("module") for line in lines(stream)}
    assert named == {"one": "engram.proxy", "two": None, "three": "engram.other", "four": "library"}


class FillingDisk(io.StringIO):
    """Takes half of what is written while it is full, and then refuses."""

    full = False

    def write(self, text: str) -> int:
        if not self.full:
            return super().write(text)
        super().write(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_that_the_disk_cut_does_not_spoil_the_next_one() -> None:
    disk = FillingDisk()
    logs.configure("INFO", json=True, stream=disk)
    log = structlog.get_logger("engram.test")
    log.info("before")
    disk.full = True
    log.info("cut off")
    disk.full = False
    log.info("after")
    read = []
    for line in disk.getvalue().splitlines():
        with contextlib.suppress(ValueError):
            read.append(json.loads(line)["event"])
    assert read == ["before", "after"]
