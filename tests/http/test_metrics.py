from prometheus_client.parser import text_string_to_metric_families

from actors import DeadLetter, HintLost
from engram.telemetry.actor_events import observer
from engram.telemetry.metrics import TABLE, Metrics


def test_the_table_is_the_registry() -> None:
    metrics = Metrics()
    own = {
        family.name: (family.type, family.documentation)
        for family in metrics.registry.collect()
        if not family.name.startswith("process_")
    }
    assert own == {row.name: (row.kind, row.help) for row in TABLE}


def test_every_row_is_an_attribute_with_its_labels() -> None:
    metrics = Metrics()
    assert set(Metrics.__annotations__) == {row.attribute for row in TABLE}
    for row in TABLE:
        metric = getattr(metrics, row.attribute)
        assert metric._labelnames == row.labels
        assert type(metric).__name__.lower() == row.kind


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
    assert value("engram_dead_letters_total", {"reason": "down"}) is None
