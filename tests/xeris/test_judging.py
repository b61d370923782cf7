"""Each check of a receiver, by tampering with one thing at a time."""

import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.hotkeys import Keypair
from engram.relay import MinerScore, NodeMemory, PayloadSigner, SignedRoot, memory_payload, scores_payload
from engram.relay.anchoring.rules import LEAVES_MOST, root_of
from engram.relay.quorum.model import COSIGNATURES_MOST
from engram.relay.rules import output_hash, ranking_payload, signed_hash, stable_anchor
from engram.xeris import judging, refusals
from engram.xeris.judging import Known, Refused
from tests.miner.nodes import NODE
from tests.relay.test_roots import SESSION, certificate, root

pytestmark = pytest.mark.rules

ROOT = Path(__file__).parents[2]
NOW = 1_700_000_000.0
ONE, TWO, STRANGER = (Keypair.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
SCORES = {"0": MinerScore(0.95, 120.5, 0.9), "10": MinerScore(1.0, None, 1.0)}


def scores(keypair: Keypair = ONE, *, cosigners: tuple[Keypair, ...] = (), **changed: Any) -> dict[str, Any]:
    payload = scores_payload(SCORES, netuid=450, block=1000, uid=5, round_ts=NOW)
    document: dict[str, Any] = json.loads(PayloadSigner.of(keypair).sign(msgspec.json.encode(payload)).body)
    if cosigners:
        document["cosignatures"] = [cosignature(each, document["signed_hash"]) for each in cosigners]
    return document | changed


def cosignature(keypair: Keypair, digest: str, hotkey: str | None = None) -> dict[str, str]:
    return {"hotkey": hotkey or keypair.ss58, "signature": "0x" + keypair.sign(digest.encode()).hex()}


def memory(keypair: Keypair = ONE) -> dict[str, Any]:
    payload = memory_payload({"5Node": NodeMemory(vectors=3)}, netuid=450, block=7, source="nodes0", round_ts=NOW)
    found: dict[str, Any] = json.loads(PayloadSigner.of(keypair).sign(msgspec.json.encode(payload)).body)
    return found


def rooted(root: SignedRoot | None, node: str = NODE.ss58, **changed: Any) -> dict[str, Any]:
    """A memory payload of the second schema, signed as it stands."""
    one = NodeMemory(vectors=3, root_hex=root.root_hex if root else None, root=root)
    one = msgspec.structs.replace(one, **changed)
    payload = memory_payload({node: one}, netuid=450, block=7, source="nodes0", round_ts=NOW)
    found: dict[str, Any] = json.loads(PayloadSigner.of(ONE).sign(msgspec.json.encode(payload)).body)
    return found


def read(document: dict[str, Any], now: float = NOW) -> judging.Submission:
    return judging.read(json.dumps(document).encode(), now, keep_s=86_400.0)


def known(**changed: Any) -> Known:
    given: dict[str, Any] = {
        "same_nonce": None,
        "signed_before": None,
        "permits": {ONE.public_key, TWO.public_key},
        "gateways": {ONE.public_key},
        "quorum": 1,
        "netuids": (450,),
    }
    return Known(**given | changed)


def resigned(document: dict[str, Any], keypair: Keypair = ONE) -> dict[str, Any]:
    """The document after a change, signed again: only what it says is wrong."""
    digest = signed_hash(document)
    return document | {"signed_hash": digest, "signature": "0x" + keypair.sign(digest.encode()).hex()}


def code(document: dict[str, Any], now: float = NOW, **changed: Any) -> str:
    try:
        submission = read(document, now)
        judging.require_roots(submission)
        judging.judge(submission, known(**changed))
    except Refused as refused:
        return refused.code
    return "accepted"


def test_the_original_s_payload_of_scores_is_accepted() -> None:
    assert code(scores()) == "accepted"


def test_a_gateway_s_payload_of_memory_is_accepted_without_any_permit() -> None:
    assert code(memory(), permits=None) == "accepted"


@pytest.mark.parametrize("field", sorted(scores()))
def test_a_field_that_was_tampered_with_is_noticed(field: str) -> None:
    document = scores()
    value = document[field]
    changed: Any
    match value:
        case str():
            changed = value[:-1] + ("0" if value[-1] != "0" else "1")
        case int() | float():
            changed = value + 1
        case _:
            changed = {"0": {"recall": 1.0, "latency_ms": 1.0, "proof_rate": 1.0}}
    assert code(document | {field: changed}) != "accepted"


@pytest.mark.parametrize("field", sorted(scores()))
def test_a_field_that_is_missing_is_a_fault_of_the_schema(field: str) -> None:
    document = scores()
    del document[field]
    assert code(document) == "schema"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (scores(schema_version="engram-v9"), "schema"),
        (scores(kind="wisdom"), "schema"),
        (scores(kind="memory"), "schema"),
        (scores(netuid=70_000), "schema"),
        (scores(block=-1), "schema"),
        (scores(scores={"0": 7}), "schema"),
        (resigned(scores(scores={})), "output_hash"),
        (resigned(scores(nonce="999:5:1")), "nonce"),
        (resigned(scores(nonce="1000")), "nonce"),
        (resigned(scores(nonce=f"1000:{'x' * 256}:1")), "nonce"),
        (scores(validator_hotkey=TWO.ss58), "signature"),
        (scores(signed_hash="0" * 64), "signature"),
        (scores(cosigners=(TWO,)) | {"cosignatures": [cosignature(STRANGER, "other", TWO.ss58)]}, "cosignature"),
        (scores(cosigners=(ONE,)), "cosignature"),
        (scores(cosigners=(TWO, TWO)), "cosignature"),
        (scores(cosignatures=[{"hotkey": "nonsense", "signature": "0x"}]), "cosignature"),
    ],
)
def test_a_payload_that_does_not_hold_together_is_refused(document: dict[str, Any], expected: str) -> None:
    assert code(document) == expected


def test_no_more_co_signatures_are_verified_than_validators_there_can_be() -> None:
    many = [Keypair.from_seed(number.to_bytes(32, "big")) for number in range(100, 101 + COSIGNATURES_MOST)]
    assert code(scores(cosigners=tuple(many))) == "cosignature"
    permits = {ONE.public_key, *(each.public_key for each in many)}
    assert code(scores(cosigners=tuple(many[1:])), permits=permits) == "accepted"


def test_two_spellings_of_one_key_are_one_key() -> None:
    document = scores()
    in_hex = "0x" + ONE.public_key.hex()
    document["cosignatures"] = [cosignature(ONE, document["signed_hash"], in_hex)]
    assert code(document) == "cosignature"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"same_nonce": "another"}, "nonce_used"),
        ({"signed_before": "another"}, "equivocation"),
        ({"permits": None}, "permits_unknown"),
        ({"permits": {TWO.public_key}}, "no_permit"),
        ({"quorum": 2}, "quorum"),
    ],
)
def test_scores_are_held_against_what_is_known(changed: dict[str, Any], expected: str) -> None:
    assert code(scores(), **changed) == expected


def test_two_validators_make_a_quorum_and_each_needs_a_permit() -> None:
    assert code(scores(cosigners=(TWO,)), quorum=2) == "accepted"
    assert code(scores(cosigners=(STRANGER,)), quorum=2) == "no_permit"


@pytest.mark.parametrize("found", [None, root(), root(SESSION, certificate())])
def test_memory_with_the_roots_that_nodes_signed_is_accepted(found: SignedRoot | None) -> None:
    assert code(rooted(found)) == "accepted"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (rooted(root(ONE)), "root"),
        (rooted(root(), node=TWO.ss58), "root"),
        (rooted(root(), node="5Node"), "root"),
        (rooted(root(at_ms=int((NOW - 7_200) * 1000))), "root"),
        (rooted(root(SESSION, certificate(until_s=-300))), "root"),
        (rooted(msgspec.structs.replace(root(), count=9)), "root"),
        (rooted(root(), root_hex="cd" * 32), "schema"),
        (rooted(None, root_hex="cd" * 32), "schema"),
        (resigned(rooted(root()) | {"schema_version": "engram-v1"}), "schema"),
        (resigned(memory() | {"schema_version": "engram-v2"}), "schema"),
    ],
)
def test_a_root_is_what_its_node_signed_about_then(document: dict[str, Any], expected: str) -> None:
    assert code(document) == expected


def test_memory_of_a_gateway_that_is_not_known_holds_the_gateway_back() -> None:
    assert code(memory(TWO)) == "unknown_gateway"
    assert refusals.STATUS["unknown_gateway"] == 403


@pytest.mark.parametrize(("now", "expected"), [(NOW - 121, "from_the_future"), (NOW + 86_401, "too_old")])
def test_clocks_are_held_against_each_other(now: float, expected: str) -> None:
    assert code(scores(), now) == expected


def ranking(*cosigners: Keypair, **changed: Any) -> dict[str, Any]:
    """A ranking of two miners, signed after the change; its hash is made before it."""
    weights = {(7, ONE.ss58): 3.0, (9, TWO.ss58): 1.0}
    payload = ranking_payload(weights, netuid=450, block=1000, uid=5, round_ts=NOW)
    document = json.loads(PayloadSigner.of(ONE).sign(msgspec.json.encode(payload)).body)
    document = resigned(document | changed)
    return document | {"cosignatures": [cosignature(each, document["signed_hash"]) for each in cosigners]}


BEST = {"uid": 7, "hotkey": ONE.ss58, "rank": 1, "weight": 0.75}
SECOND = {"uid": 9, "hotkey": TWO.ss58, "rank": 2, "weight": 0.25}


def test_a_ranking_is_by_the_weights_that_were_set_and_needs_a_quorum_of_permits() -> None:
    assert ranking()["ranking"] == [BEST, SECOND]
    assert code(ranking()) == "accepted"
    assert code(ranking(), quorum=2) == "quorum"
    assert code(ranking(TWO), quorum=2) == "accepted"
    assert code(ranking(STRANGER), quorum=2) == "no_permit"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([BEST, SECOND | {"weight": 0.24}], "output_hash"),
        ([BEST | {"uid": 8}, SECOND], "output_hash"),
        ([], "output_hash"),
        ([SECOND, BEST], "schema"),
        ([BEST, BEST | {"rank": 2}], "schema"),
        ([BEST, SECOND | {"rank": 3}], "schema"),
        ([BEST | {"weight": 0.2}, SECOND], "schema"),
        ([BEST | {"weight": 1.5}, SECOND], "schema"),
        ([BEST | {"uid": -1}, SECOND], "schema"),
        (None, "schema"),
    ],
)
def test_a_ranking_that_was_tampered_with_is_refused(found: object, expected: str) -> None:
    assert code(ranking(ranking=found)) == expected


def anchor(**changed: Any) -> dict[str, Any]:
    """An anchor of two leaves, the first of them of the stream, signed after the change; its hashes hold."""
    leaves = ["ab" * 32, "cd" * 32]
    fields: dict[str, Any] = {
        "anchored": "scores",
        "epoch": 7,
        "root": root_of(leaves).hex(),
        "leaves": leaves,
        "first": 0,
        "count": 1,
    }
    fields |= changed
    document = fields | {
        "schema_version": "engram-v2",
        "kind": "anchor",
        "netuid": 450,
        "block": 1000,
        "round_ts": NOW,
        "nonce": "1000:anchor.scores:1",
        "output_hash": output_hash(stable_anchor(**fields)),
        "validator_hotkey": ONE.ss58,
    }
    return resigned(document)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "accepted"),
        ({"leaves": []}, "schema"),
        ({"leaves": ["ab" * 32] * (LEAVES_MOST + 1)}, "schema"),
        ({"first": -1}, "schema"),
        ({"first": 2}, "schema"),
        ({"count": 0}, "schema"),
        ({"count": 3}, "schema"),
        ({"leaves": ["ab" * 31]}, "schema"),
        ({"epoch": 2**70}, "schema"),
        ({"leaves": ["zz" * 32]}, "schema"),
        ({"root": "00" * 32}, "anchor_root"),
        ({"leaves": ["cd" * 32, "ab" * 32]}, "anchor_root"),
    ],
)
def test_an_anchor_names_leaves_that_make_its_root(changed: dict[str, Any], expected: str) -> None:
    assert code(anchor(**changed)) == expected


def test_only_what_others_learn_from_costs_a_submission() -> None:
    assert read(scores()).is_paid_for
    assert not read(anchor()).is_paid_for


def test_a_number_that_json_has_not_is_a_fault_of_the_schema() -> None:
    body = json.dumps(scores()).replace("120.5", "1e999").encode()
    with pytest.raises(Refused) as refused:
        judging.read(body, NOW, 86_400.0)
    assert refused.value.code == "schema"


ANY_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=12), inner),
).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=300) | ANY_JSON)
def test_whatever_comes_is_refused_and_never_an_error(body: bytes) -> None:
    with pytest.raises(Refused):
        judging.read(body, NOW, 86_400.0)


def test_the_documentation_lists_the_codes_as_they_are() -> None:
    assert refusals.table() in (ROOT / "docs" / "relay.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "engram" / "xeris").glob("*.py"))
    used = set(re.findall(r'Refused\(\s*"(\w+)"', code))
    assert used == set(refusals.STATUS)


def test_a_subnet_that_is_not_served_says_something_about_the_receiver_and_not_about_the_payload() -> None:
    for document in (scores(), memory()):
        with pytest.raises(Refused) as refused:
            judging.judge(read(document), known(netuids=(12,)))
        assert (refused.value.code, refused.value.status) == ("subnet", 403)


def test_a_gateway_s_block_above_the_finalized_head_waits() -> None:
    with pytest.raises(Refused) as refused:
        judging.judge(read(memory()), known(finalized=6))
    assert (refused.value.code, refused.value.status) == ("not_final", 425)
    judging.judge(read(memory()), known(finalized=7))


@pytest.mark.parametrize("name", ['"scores"', '"recall"', '"round_ts"'])
def test_a_name_that_is_there_twice_is_refused_since_the_signature_covers_one_of_the_values(name: str) -> None:
    body = json.dumps(scores())
    place = body.index(name)
    twice = body[:place] + f"{name}: null, " + body[place:]
    with pytest.raises(Refused, match=f"the name '{name[1:-1]}' is there twice") as refused:
        judging.read(twice.encode(), NOW, keep_s=86_400.0)
    assert refused.value.code == "schema"


def test_what_anybody_may_send_is_searched_for_repeated_names_in_one_pass() -> None:
    names = "".join(f'"{number:x}": 1, ' for number in range(40_000))
    began = time.thread_time()
    with pytest.raises(Refused, match="the name 'z' is there twice"):
        judging.read(f'{{{names}"z": 1, "z": 2}}'.encode(), NOW, keep_s=86_400.0)
    assert time.thread_time() - began < 2.0, "some hundredths of a second; a search for each name takes many seconds"
