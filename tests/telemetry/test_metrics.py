import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from prometheus_client.parser import text_string_to_metric_families

from actors import DeadLetter, HintLost
from actors._events import DeadLetterCause
from engram.chain.registry import announcer
from engram.chain.registry.announce_rules import AnnounceVerdict
from engram.gateway.rules import CODES
from engram.payments import PaymentState, RefundState
from engram.payments import rules as payment_rules
from engram.provisioning import enrollment_rules
from engram.relay import rounds
from engram.relay.anchoring.committing import ANCHOR_WAITS
from engram.relay.model import EntryState
from engram.relay.quorum import model as quorum
from engram.relay.quorum.model import CandidateState
from engram.relay.quorum.proposing import BUNDLE_WAITS
from engram.relay.rules import ANCHORED_KINDS
from engram.sessions import SessionState
from engram.telemetry import reference
from engram.telemetry.actor_events import observer
from engram.telemetry.disk import disk_gauges
from engram.telemetry.metrics import Metrics
from engram.telemetry.table import BY_NAME, TABLE
from engram.validator.due import Due
from engram.validator.model import PlantState, SentState

ROOT = Path(__file__).parents[2]


KNOWN: dict[str, Iterable[str]] = {
    "announcement": [verdict.value for verdict in AnnounceVerdict],
    "announcements": announcer.OUTCOMES,
    "dead_letters": get_args(DeadLetterCause),
    "introductions": enrollment_rules.Verdict,
    "payments": PaymentState,
    "payments_oldest": payment_rules.OPEN,
    "payments_open": payment_rules.OPEN,
    "refunds": RefundState,
    "refunds_oldest": [state for state in RefundState if state is not RefundState.REFUNDED],
    "refunds_usd": RefundState,
    "relay_candidates": CandidateState,
    "relay_entries": [state for state in EntryState if state is not EntryState.SENDING],
    "relay_not_queued": (*rounds.LOST, ANCHOR_WAITS, BUNDLE_WAITS),
    "relay_verdicts": quorum.Verdict,
    "sales_blocked": CODES,
    "sessions": SessionState,
    "validator_due": Due,
    "validator_planted": PlantState,
    "validator_weights": SentState,
    "xeris_overdue": ANCHORED_KINDS,
}
"""Rows whose label takes the words of an area, with those words."""


def samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in families
        for sample in family.samples
    }


def test_the_table_is_the_registry() -> None:
    own = {
        family.name: (family.type, family.documentation)
        for family in Metrics().registry.collect()
        if not family.name.startswith("process_")
    }
    assert own == {row.name: (row.kind, row.help) for row in TABLE}


def test_every_row_is_an_attribute_of_its_kind() -> None:
    metrics = Metrics()
    assert set(Metrics.__annotations__) == {row.attribute for row in TABLE}
    for row in TABLE:
        metric = getattr(metrics, row.attribute)
        assert metric._labelnames == row.labels
        assert type(metric).__name__.lower() == row.kind


def test_known_values_are_the_words_of_their_areas() -> None:
    rows = {row.attribute: row for row in TABLE}
    for attribute, words in KNOWN.items():
        assert {value for (value,) in rows[attribute].known} == {str(word) for word in words}, attribute


def test_every_refusal_of_the_receiver_is_a_known_value() -> None:
    codes = {"accepted", "repeated"}
    for path in sorted((ROOT / "engram" / "xeris").glob("*.py")):
        codes |= set(re.findall(r'Refused\(\s*"(\w+)"', path.read_text(encoding="utf-8")))
    assert {code for (code,) in BY_NAME["engram_xeris_judged"].known} == codes


def test_known_children_of_counters_and_histograms_exist_from_the_start() -> None:
    shown = Metrics().render().decode()
    for row in TABLE:
        for known in row.known if row.kind != "gauge" else ():
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(zip(row.labels, known, strict=True)))
            assert f"{row.name}_{'total' if row.kind == 'counter' else 'count'}{{{labels}}} 0.0" in shown


def test_a_gauge_has_no_sample_until_it_was_measured() -> None:
    metrics = Metrics()
    gauges = {row.name for row in TABLE if row.kind == "gauge"}
    assert not [name for name in samples(metrics) if name.partition("[")[0] in gauges]
    metrics.disk_free.set(3)
    assert samples(metrics)["engram_disk_free_bytes[]"] == 3
    metrics.disk_free.clear()
    assert "engram_disk_free_bytes[]" not in samples(metrics)


def test_a_measurement_replaces_all_samples_of_its_family() -> None:
    metrics = Metrics()
    metrics.relay_entries.show({"abandoned": 1})
    metrics.backend_up.show({"local": 1, "docker": 0})
    metrics.relay_entries.show({})
    metrics.backend_up.show({"local": 1})
    shown = samples(metrics)
    assert shown["engram_relay_entries[('state', 'abandoned')]"] == 0
    assert shown["engram_backend_up[('backend', 'local')]"] == 1
    assert "engram_backend_up[('backend', 'docker')]" not in shown


def test_no_family_tells_when_it_was_made() -> None:
    metrics = Metrics()
    metrics.hints_lost.labels("provisioner").inc()
    metrics.ledger_commit_seconds.observe(0.1)
    assert "_created" not in metrics.render().decode()


def test_the_disk_of_the_data_folder_is_measured_at_each_scrape(tmp_path: Path) -> None:
    metrics = Metrics()
    folder = tmp_path / "data"
    metrics.before_scrape(disk_gauges(metrics, folder))
    assert "engram_disk_free_bytes[]" not in samples(metrics)
    folder.mkdir()
    shown = samples(metrics)
    assert 0 < shown["engram_disk_free_bytes[]"] <= shown["engram_disk_size_bytes[]"]


def test_the_page_of_metrics_is_current() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert reference.insert(page, reference.table()) == page, "run python -m engram.telemetry.reference"


def test_no_label_can_name_a_person() -> None:
    forbidden = {"hotkey", "address", "ip", "session", "session_id", "path", "payer", "client"}
    assert not [row.name for row in TABLE if forbidden & set(row.labels)]


def test_names_follow_the_conventions_of_prometheus() -> None:
    for row in TABLE:
        assert row.name.startswith("engram_")
        assert row.kind != "histogram" or row.name.endswith("_seconds")
        assert row.help.endswith(".")


def test_a_scrape_refreshes_what_is_read_only_then() -> None:
    metrics = Metrics()
    metrics.before_scrape(lambda: metrics.ledger_queue.set(7))
    metrics.http_requests.labels("gateway", "GET", "/tiers", "200").inc()
    text = metrics.render().decode()
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert samples["engram_ledger_queue"] == 7
    assert samples["engram_http_requests_total"] == 1
    assert "process_resident_memory_bytes" in samples


def test_two_processes_in_one_do_not_share_metrics() -> None:
    first, second = Metrics(), Metrics()
    first.hints_lost.labels("provisioner").inc()
    assert b'engram_hints_lost_total{to="provisioner"}' not in second.render()


def test_a_hint_dropped_by_a_full_mailbox_is_counted_as_one_that_is_lost() -> None:
    metrics = Metrics()
    observe = observer(metrics)
    observe(DeadLetter("provisioner", object(), "dropped_newest", 0.0))
    observe(DeadLetter("provisioner", object(), "crashed", 0.0))
    value = metrics.registry.get_sample_value
    assert value("engram_hints_lost_total", {"to": "provisioner"}) == 1
    assert value("engram_dead_letters_total", {"reason": "dropped_newest"}) == 1


def test_a_hint_that_found_no_room_or_no_actor_is_counted() -> None:
    metrics = Metrics()
    observer(metrics)(HintLost("provisioner", object(), "down", 0.0))
    value = metrics.registry.get_sample_value
    assert value("engram_hints_lost_total", {"to": "provisioner"}) == 1
    assert value("engram_dead_letters_total", {"reason": "down"}) == 0
