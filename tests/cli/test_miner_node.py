"""What is done with a running node: files put in, asked, held to its word, copied and taken along while it serves."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.model import MinerSettings
from engram.cli.miner import ingest
from engram.cli.miner.ingest import LineRefused, read_line
from engram.durable.driver import sqlite3
from engram.hotkeys import wallet
from tests.cli.conftest import Run
from tests.miner.endpoints import SHARE
from tests.miner.nodes import CONTROLLER, STRANGER, NodeProcess, encoded, node, signed
from tests.sdk.doubles import Told, scripted

pytestmark = pytest.mark.serial


@pytest.fixture
def running(here: Path) -> Iterator[NodeProcess]:
    (here / "node").mkdir()
    wallet.write_hotkey_file(here / "controller", CONTROLLER)
    wallet.write_hotkey_file(here / "stranger", STRANGER)
    with node(here / "node", miner=MinerSettings(private_bucket_ms=0)) as made:
        yield made


def url(running: NodeProcess) -> str:
    return f"http://127.0.0.1:{running.port}"


def write_lines(path: Path, *lines: object) -> None:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def test_a_file_is_ingested_found_and_counted(running: NodeProcess, here: Path, run: Run) -> None:
    lines = [{"text": f"otter number {i}", "metadata": {"n": str(i)}} for i in range(150)]
    write_lines(here / "notes.jsonl", *lines)
    ran = run("miner", "ingest", "notes.jsonl", "--to", url(running), "--json")
    assert (ran.code, json.loads(ran.out)["stored"]) == (0, 150)
    assert not (here / "notes.jsonl.ingested").exists()
    data = str(here / "node" / "data")
    assert json.loads(run("miner", "stats", "--data", data, "--json").out)["vectors"] == 150
    found = run("miner", "query", "otter number 7", "--data", data, "-k", "3", "--where", "n=7")
    assert found.lines[0] == ["score", "cid", "text"]
    assert len(found.lines) == 2
    (hit,) = json.loads(run("miner", "query", "otter number 7", "--to", url(running), "--where", "n=7", "--json").out)
    assert hit["metadata"]["n"] == "7"


def test_facts_that_changed_are_taken_along_as_they_are(running: NodeProcess, here: Path, run: Run) -> None:
    """An export has what superseded what, and a node that takes it in finds and shows the same."""
    paris, rome = {"text": "home is Paris", "key": "home"}, {"text": "home is Rome", "key": "home"}
    write_lines(here / "f.jsonl", paris, rome, {"text": "gone by now", "expires_at": 1_700_000_000})
    signing = ("--to", url(running), "--key", "controller", "--namespace", "me")
    assert run("miner", "ingest", "f.jsonl", *signing).code == 0
    [stored] = json.loads(run("miner", "query", "home", *signing, "--mode", "hybrid", "--json").out)
    assert stored["text"] == "home is Rome"
    oslo = {"text": "home is Oslo", "supersedes": stored["cid"]}
    write_lines(here / "g.jsonl", oslo)
    assert run("miner", "ingest", "g.jsonl", *signing).code == 0
    assert run("miner", "export", str(here / "node" / "data"), "out.jsonl").code == 0
    exported = [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]
    assert [each.get("key") for each in exported] == ["home", "home", None, "home"]
    assert exported[1]["superseded_by"] == exported[3]["cid"]
    elsewhere = (*signing[:-1], "elsewhere")
    assert run("miner", "ingest", "out.jsonl", *elsewhere).code == 0
    for mode in ("vector", "words", "hybrid"):
        found = run("miner", "query", "home", *elsewhere, "--mode", mode, "--diversity", "0.1", "--json").out
        assert [each["text"] for each in json.loads(found)] == ["home is Oslo"]
    assert len(json.loads(run("miner", "query", "home", *elsewhere, "--history", "--recency", "1", "--json").out)) == 4
    refused = run("miner", "query", "home", *elsewhere, "--diversity", "2")
    assert refused.code == 2


def test_lines_that_are_refused_are_named_and_the_rest_goes_on(running: NodeProcess, here: Path, run: Run) -> None:
    private = {"text": "secret", "namespace": "notes"}
    write_lines(here / "f.jsonl", {"text": "a"}, "no json", "", {"n": 1}, {"text": "x" * 9_000}, private, {"text": "b"})
    ran = run("miner", "ingest", "f.jsonl", "--to", url(running), "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["stored"], told["refused"], told["skipped"]) == (1, 2, 4, 1)
    for number in (2, 4, 5, 6):
        assert f"line {number} is refused" in ran.err
    assert "secret" not in json.dumps(running.post("/list", limit=200))


def test_a_private_file_goes_into_its_namespace_and_nowhere_else(running: NodeProcess, here: Path, run: Run) -> None:
    write_lines(here / "f.jsonl", {"text": "secret otter"})
    assert run("miner", "ingest", "f.jsonl", "--to", url(running), "--namespace", "notes").code == 2
    mine = ("--to", url(running), "--key", "controller", "--namespace", "notes")
    assert run("miner", "ingest", "f.jsonl", *mine).code == 0
    assert running.get("/health")["vectors"] == 0
    (hit,) = json.loads(run("miner", "query", "secret otter", *mine, "--json").out)
    assert hit["text"] == "secret otter"
    stranger = ("--to", url(running), "--key", "stranger", "--namespace", "notes")
    assert "403" in run("miner", "query", "secret otter", *stranger).err


def test_a_line_whose_text_would_be_lost_is_named(running: NodeProcess, here: Path, run: Run) -> None:
    write_lines(here / "f.jsonl", {"text": "Polish"}, {"text": "otter"})
    write_lines(here / "g.jsonl", {"text": "otter"}, {"text": "polish"})
    mine = ("--to", url(running), "--key", "controller", "--namespace", "notes", "--json")
    assert run("miner", "ingest", "f.jsonl", *mine).code == 0
    ran = run("miner", "ingest", "g.jsonl", *mine)
    assert (ran.code, json.loads(ran.out)["stored"], json.loads(ran.out)["refused"]) == (1, 1, 1)
    assert "line 2 is refused" in ran.err
    assert "another text" in ran.err


def test_lines_that_are_stored_and_belong_to_others_are_named(running: NodeProcess, here: Path, run: Run) -> None:
    write_lines(here / "strangers.jsonl", {"text": "otter"})
    write_lines(here / "nobodys.jsonl", {"text": "seal"})
    write_lines(here / "f.jsonl", {"text": "otter"}, {"text": "walrus"}, {"text": "seal"})
    to = ("--to", url(running), "--json")
    assert run("miner", "ingest", "nobodys.jsonl", *to).code == 0
    assert run("miner", "ingest", "strangers.jsonl", *to, "--key", "stranger").code == 0
    ran = run("miner", "ingest", "f.jsonl", *to, "--key", "controller")
    told = json.loads(ran.out)
    assert (ran.code, told["stored"], told["not_owned"], told["refused"]) == (1, 3, 2, 0)
    assert re.search(rf"line 1: v1::\w+ is stored, and belongs to {STRANGER.ss58} \(stored_first_by_other\)", ran.err)
    assert re.search(r"line 3: v1::\w+ is stored, and belongs to nobody \(stored_first_unsigned\)", ran.err)
    assert "line 2" not in ran.err


def test_with_a_clock_that_is_wrong_each_line_is_told_to_be_nobodys(
    running: NodeProcess, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(here / "f.jsonl", {"text": "otter"})
    monkeypatch.setattr("engram.cli.miner.target.time.time_ns", lambda: 1_700_000_000 * 10**9)
    ran = run("miner", "ingest", "f.jsonl", "--to", url(running), "--json", "--key", "controller")
    assert (ran.code, json.loads(ran.out)["not_owned"]) == (1, 1)
    assert "belongs to nobody (signature_before_start)" in ran.err or "belongs to nobody (signature_stale)" in ran.err


def test_an_exported_record_whose_predecessor_was_deleted_is_ingested(
    running: NodeProcess, here: Path, run: Run
) -> None:
    gone = "v1::" + "0" * 64
    exported = {"kind": "record", "text": "the new plan", "supersedes": gone, "namespace": "plans"}
    (here / "f.jsonl").write_text(json.dumps(exported) + "\n")
    ran = run("miner", "ingest", "f.jsonl", "--to", url(running), "--json", "--key", "controller")
    assert (ran.code, json.loads(ran.out)["stored"]) == (0, 1)
    (here / "f.jsonl").write_text(json.dumps({name: exported[name] for name in exported if name != "kind"}) + "\n")
    ran = run("miner", "ingest", "f.jsonl", "--to", url(running), "--key", "controller")
    assert ran.code == 1
    assert "no record of yours" in ran.err


def test_an_interrupted_ingest_goes_on_where_it_was(
    running: NodeProcess, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(here / "f.jsonl", *({"text": f"line {i}"} for i in range(30)))
    send = ingest.Work._send  # pyright: ignore[reportPrivateUsage]
    sent: list[int] = []

    def breaking(self: ingest.Work, lines: Any) -> None:
        if len(sent) == 2:
            raise OSError(5, "the power went")
        send(self, lines)
        sent.append(len(lines))

    with monkeypatch.context() as patched:
        patched.setattr(ingest.Work, "_send", breaking)
        assert run("miner", "ingest", "f.jsonl", "--to", url(running), "--batch", "10").code == 1
    told = json.loads(run("miner", "ingest", "f.jsonl", "--to", url(running), "--batch", "10", "--json").out)
    assert told == {"stored": 10, "not_owned": 0, "refused": 0, "skipped": 0, "resumed_after_lines": 20}
    assert running.get("/health")["vectors"] == 30


def test_a_full_node_stops_the_ingest_where_it_can_go_on(here: Path, run: Run) -> None:
    (here / "node").mkdir()
    write_lines(here / "f.jsonl", *({"text": f"line {i} " + "x" * 8_000} for i in range(60)))
    with node(here / "node", storage_bytes=1_400_000, miner=MinerSettings(controller_share=0.0)) as full:
        ran = run("miner", "ingest", "f.jsonl", "--to", url(full), "--batch", "10")
        assert (ran.code, "used up" in ran.err, "Run it again to resume" in ran.err) == (1, True, True)
        mark = json.loads((here / "f.jsonl.ingested").read_text())
        assert mark["lines"] % 10 == 0  # whole batches; of the one that was refused in the middle, some are stored
        assert 0 < mark["lines"] <= full.get("/health")["vectors"] < mark["lines"] + 10


def test_a_file_that_was_changed_is_not_gone_on_with(running: NodeProcess, here: Path, run: Run) -> None:
    write_lines(here / "f.jsonl", *({"text": f"line {i}"} for i in range(3)))
    content = (here / "f.jsonl").read_bytes()
    mark = ingest.Bookmark(f"{running.get('/health')['hotkey']} ", len(content), 3, "0" * 64)
    (here / "f.jsonl.ingested").write_text(json.dumps(_fields(mark)))
    ran = run("miner", "ingest", "f.jsonl", "--to", url(running), "--json")
    assert "from the beginning" in ran.err
    assert json.loads(ran.out)["stored"] == 3


def _fields(mark: ingest.Bookmark) -> dict[str, object]:
    return {name: getattr(mark, name) for name in mark.__struct_fields__}


def fill(running: NodeProcess) -> None:
    for number in range(20):
        running.post("/IngestSynapse", text=f"otter {number}")
        body = signed(CONTROLLER, "IngestSynapse", {"text": f"secret {number}", "namespace": "notes"})
        assert running.ask("POST", "/IngestSynapse", body)[1]["error"] is None
    said = {"user_id": "u", "messages": [{"role": "user", "content": "hi", "ts": 1}]}
    assert running.ask("POST", "/chat-history", signed(CONTROLLER, "SaveChat", said))[0] == 200
    share = signed(CONTROLLER, "KeyShareSynapse", {**SHARE, "namespace": "vault"})
    assert running.ask("POST", "/KeyShareSynapse", share)[0] == 200


def test_a_running_nodes_word_is_held_to_its_records(running: NodeProcess, here: Path, run: Run) -> None:
    fill(running)
    data = str(here / "node" / "data")
    ran = run("miner", "verify", data, "--key", "controller", "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["node"], told["records"], told["public_records"]) == (0, "agrees", 40, 20)
    assert run("miner", "erase", data, "--yes").code == 1
    assert run("miner", "verify", data, "--key", "stranger").code == 4  # its owner alone hears the root over all
    with sqlite3.connect(here / "node" / "data" / "truth.db") as behind_its_back:
        behind_its_back.execute("DELETE FROM records WHERE id = 1")
    behind_its_back.close()
    ran = run("miner", "verify", data, "--json")
    assert (ran.code, json.loads(ran.out)["node"]) == (1, "differs")


def while_writing(running: NodeProcess, act: Callable[[], None]) -> int:
    """Runs `act` while public texts are stored; returns how many were."""
    over, stored = threading.Event(), 0

    def write() -> None:
        nonlocal stored
        while not over.is_set():
            assert running.post("/IngestSynapse", text=f"while {stored}")["error"] is None
            stored += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        act()
    finally:
        over.set()
        writer.join()
    return stored


def test_a_backup_of_a_node_that_is_written_to_is_whole(running: NodeProcess, here: Path, run: Run) -> None:
    fill(running)
    stored = while_writing(running, lambda: _backed_up(run, here))
    assert run("miner", "restore", "copy", "restored").code == 0
    told = json.loads(run("miner", "verify", "restored", "--json").out)
    assert told["sound"]
    assert 40 <= told["records"] <= 40 + stored
    assert (told["key_shares"], told["conversations"]) == (1, 1)
    assert run("miner", "restore", "copy", str(here / "node" / "data"), "--force").code == 1
    assert running.get("/health")["vectors"] == 20 + stored


def _backed_up(run: Run, here: Path) -> None:
    assert run("miner", "backup", str(here / "node" / "data"), "copy").code == 0


def test_a_node_serves_what_was_restored_into_its_folder(running: NodeProcess, here: Path, run: Run) -> None:
    fill(running)
    data = here / "node" / "data"
    assert run("miner", "backup", str(data), "copy").code == 0
    for number in range(5):
        running.post("/IngestSynapse", text=f"later {number}")
    assert running.terminate() == 0
    assert run("miner", "restore", "copy", str(data), "--force").code == 0
    running.start()
    assert running.get("/health")["vectors"] == 20
    results = running.post("/QuerySynapse", query_text="otter 3", top_k=100)["results"]
    assert len(results) == 20
    assert json.loads(run("miner", "verify", str(data), "--json").out)["node"] == "agrees"
    assert running.post("/IngestSynapse", text="later 0")["error"] is None
    assert len(running.post("/QuerySynapse", query_text="later 0", top_k=100)["results"]) == 21


def test_a_node_refuses_damaged_records_with_the_command_that_repairs_them(
    running: NodeProcess, here: Path, run: Run
) -> None:
    fill(running)
    assert running.terminate() == 0
    truth = here / "node" / "data" / "truth.db"
    content = truth.read_bytes()
    truth.write_bytes(content[:12_288] + b"torn" * 1_024 + content[16_384:])
    with pytest.raises(AssertionError, match="engram miner repair"):
        running.start()
    assert run("miner", "repair", str(truth.parent)).code == 0
    running.start()
    assert json.loads(run("miner", "verify", str(truth.parent), "--json").out)["node"] == "agrees"


def test_the_controller_takes_its_memory_along_over_http(running: NodeProcess, here: Path, run: Run) -> None:
    fill(running)
    assert run("miner", "export", url(running), "all.jsonl").code == 2
    assert "403" in run("miner", "export", url(running), "all.jsonl", "--key", "stranger").err
    for left in (here).glob("all.jsonl.*"):
        left.unlink()
    assert run("miner", "export", url(running), "all.jsonl", "--key", "controller").code == 0
    documents = [json.loads(line) for line in (here / "all.jsonl").read_text().splitlines()]
    assert [each["kind"] for each in documents].count("record") == 40
    assert {each["kind"] for each in documents} == {"record", "conversation", "key_share"}
    assert run("miner", "export", str(here / "node" / "data"), "disk.jsonl").code == 0
    assert (here / "disk.jsonl").read_text() == (here / "all.jsonl").read_text()
    other = here / "other"
    other.mkdir()
    with node(other, miner=MinerSettings(private_bucket_ms=0)) as second:
        ran = run("miner", "ingest", "all.jsonl", "--to", url(second), "--key", "controller", "--json")
        told = json.loads(ran.out)
        assert (ran.code, told["stored"], told["skipped"]) == (0, 40, 2)
        assert "which is not its cid" not in ran.err
        roots = [json.loads(run("miner", "verify", str(at / "data"), "--json").out) for at in (here / "node", other)]
        assert roots[0]["whole_root"] == roots[1]["whole_root"]


def test_an_interrupted_export_goes_on_where_it_was(
    running: NodeProcess, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(running)
    assert run("miner", "export", url(running), "whole.jsonl", "--key", "controller").code == 0
    whole = (here / "whole.jsonl").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("engram.cli.miner.export.os.fsync", _no_power)
        assert run("miner", "export", url(running), "all.jsonl", "--key", "controller").code == 1
    (partial,) = here.glob("all.jsonl.*.partial")
    assert partial.read_bytes() == whole
    partial.write_bytes(whole[: len(whole) // 2])
    assert run("miner", "export", url(running), "all.jsonl", "--key", "controller").code == 0
    assert (here / "all.jsonl").read_bytes() == whole


def _no_power(descriptor: int) -> None:
    raise OSError(5, "the power went")


def test_a_node_that_is_down_is_told(here: Path, run: Run) -> None:
    write_lines(here / "f.jsonl", {"text": "a"})
    assert run("miner", "stats", "--to", "http://127.0.0.1:9").code == 3
    assert run("miner", "stats", "--data", "nowhere").code == 3
    assert run("miner", "stats").code == 2
    assert run("miner", "query", "x", "--to", "http://127.0.0.1:9", "-k", "0").code == 2
    assert run("miner", "query", "x", "--to", "http://127.0.0.1:9", "--where", "n").code == 2
    assert run("miner", "ingest", "f.jsonl", "--to", "http://127.0.0.1:9", "--batch", "0").code == 2


def test_lines_are_read_in_the_forms_that_are_about() -> None:
    def item(**fields: object) -> dict[str, Any]:
        line = read_line(json.dumps(fields).encode(), 1, None)
        assert line is not None
        return line.item

    assert item(text="a", embedding=[1, 2], cid="v1::x", top_k_cids=[]) == {"text": "a", "raw_embedding": [1, 2]}
    assert item(vector=[1], metadata={"a": "b"}, model_version="v2") == {
        "raw_embedding": [1],
        "metadata": {"a": "b"},
        "model_version": "v2",
    }
    assert item(embedding_b64="AAAA") == {"raw_embedding_b64": "AAAA"}
    public = read_line(encoded({"text": "a", "namespace": "__public__"}), 1, None)
    assert public is not None
    assert public.namespace is None
    assert read_line(b'{"kind": "key_share"}', 1, None) is None
    deep = b'{"text": "a", "metadata": ' + b'{"a":' * 200 + b"1" + b"}" * 201
    split, two = b'{"text": "a \\ud800"}', b'{"text": "a"}], "more": [{}'
    for refused in (b"[]", b"{}", b'{"text": "a", "namespace": 5}', b"\xff", b'{"text": "a"', deep, split, two):
        with pytest.raises(LineRefused):
            read_line(refused, 1, None)


@pytest.mark.parametrize(
    "asked",
    [{"namespace_key": "0123456789abcdef"}, {"namespace_sig": "00"}, {"private": True}, {"is_public": False}],
    ids=lambda asked: "+".join(asked),
)
def test_a_line_that_asks_for_privacy_is_not_stored_without(asked: dict[str, object]) -> None:
    with pytest.raises(LineRefused):
        read_line(json.dumps({"text": "a", **asked}).encode(), 1, None)
    line = read_line(encoded({"text": "a", "namespace": "notes", "is_public": False, "owner": "ab"}), 1, None)
    assert line is not None
    assert line.namespace == "notes"


@pytest.mark.parametrize(
    "page",
    [
        {"records": [], "next": 0},
        {"records": [{"kind": "record", "id": 5}], "next": 4},
        {"records": [{"kind": "record", "id": 0}], "next": None},
        {"records": [{"kind": "record", "id": "5"}], "next": None},
        {"records": [{"kind": "key_share", "id": 5}], "next": None},
        {"records": [{"kind": "record", "id": 5}, {"kind": "record", "id": 5}], "next": None},
    ],
)
def test_a_node_whose_export_goes_in_circles_is_left(page: dict[str, object], here: Path, run: Run) -> None:
    wallet.write_hotkey_file(here / "controller", CONTROLLER)
    with scripted(lambda _: Told(body=json.dumps(page).encode())) as at:
        ran = run("miner", "export", at, "taken.jsonl", "--key", "controller")
    assert ran.code == 1
    assert "the node's export" in ran.err
    assert not (here / "taken.jsonl").exists()
