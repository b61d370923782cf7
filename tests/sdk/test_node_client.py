"""The node's client: what it sends is signed as the original's miners check it, and what it gets is judged."""

import hashlib
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.hotkeys import miner_scheme
from engram.hotkeys.content_digest import sha256_of
from engram.hotkeys.python_json import ReadObject
from engram.sdk import ApiError, Hit, Impostor, MalformedAnswer, Memory, NodeClient, NodeRefused, event_stream
from engram.sdk.encryption import NamespaceCipher
from engram.sdk.errors import SdkError
from tests.gateway.surface import PHONE
from tests.sdk.doubles import Asked, Told, scripted

CID = "v1::" + "ab" * 32


def answer(document: object, status: int = 200) -> Told:
    return Told(status, json.dumps(document).encode())


def test_a_text_is_kept_beside_its_meaning_and_found_again() -> None:
    kept: list[dict[str, object]] = []

    def script(asked: Asked) -> Told:
        body = json.loads(asked.body)
        assert (
            miner_scheme.verify_body(asked.body, asked.path[1:], body["nonce"]).request.public_key == PHONE.public_key
        )
        if asked.path == "/IngestSynapse":
            kept.append(body)
            return answer({"cid": CID, "error": None})
        assert body["top_k"] == 1
        assert body["filter"] == {"kind": "fact"}
        hit = {"cid": CID, "score": 0.7, "metadata": kept[0]["metadata"], "trust_tier": "anonymous"}
        return answer({"results": [hit], "latency_ms": 1.0, "error": None})

    with scripted(script) as url, NodeClient(url, PHONE) as node:
        assert node.ingest_text("Otters hold hands.", {"kind": "fact"}) == CID
        assert kept[0]["text"] == "Otters hold hands."
        [hit] = node.query("Which animals nap together?", top_k=1, where={"kind": "fact"})
    assert (hit.text, hit.score) == ("Otters hold hands.", 0.7)
    assert Hit(CID, 0.1, {"text": 5}).text == ""


def test_a_signed_body_names_its_digest_so_that_a_proxy_may_pass_it_on_while_it_comes() -> None:
    def script(asked: Asked) -> Told:
        lines = [(name.lower().encode(), value.encode()) for name, value in asked.headers.items()]
        assert sha256_of(lines) == hashlib.sha256(asked.body).hexdigest()
        return answer({"cid": CID, "error": None})

    with scripted(script) as url, NodeClient(url, PHONE) as node:
        assert node.ingest_text("Otters hold hands.") == CID


@pytest.mark.parametrize("name", ["not-a-name", "x" * 129, "", "__public__"])
def test_a_namespace_that_no_node_takes_is_refused_before_anything_is_sent(name: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        NodeClient("http://127.0.0.1:1", PHONE, namespace=name)


def test_without_a_key_nothing_is_signed_and_no_namespace_can_be_named() -> None:
    def script(asked: Asked) -> Told:
        assert not {"hotkey", "signature", "namespace"} & json.loads(asked.body).keys()
        return answer({"cid": CID})

    with scripted(script) as url, NodeClient(url) as node:
        node.ingest("a")
        node.ingest_vector([0.5, 1.0])
        node.ingest_vector(np.array([0.5, 1.0]))  # type: ignore[arg-type]  # what embedders give
    with pytest.raises(ValueError, match="keypair"):
        NodeClient("http://127.0.0.1:1", namespace="mine")


def test_a_private_namespace_is_signed_for() -> None:
    def script(asked: Asked) -> Told:
        body = json.loads(asked.body)
        assert body["namespace"] == "mine"
        read, stamp = ReadObject(asked.body), body["namespace_timestamp_ms"]
        claimed = miner_scheme.verify_namespace_request(read, "QuerySynapse", stamp)
        assert claimed.public_key == PHONE.public_key
        return answer({"results": []})

    with scripted(script) as url, NodeClient(url, PHONE, namespace="mine") as node:
        assert node.query_vector([0.1]) == []


def test_a_miner_of_the_original_is_given_the_first_version_of_namespace_signatures() -> None:
    def script(asked: Asked) -> Told:
        body = json.loads(asked.body)
        miner_scheme.verify_namespace(body, body["namespace_timestamp_ms"])
        return answer({"results": []})

    with scripted(script) as url, NodeClient(url, PHONE, namespace="mine", namespace_version=1) as node:
        assert node.query_vector([0.1]) == []


def test_with_a_cipher_no_text_leaves_and_nothing_falls_back() -> None:
    def script(asked: Asked) -> Told:
        assert b"secret" not in asked.body
        body = json.loads(asked.body)
        if asked.path == "/IngestSynapse":
            assert set(body["metadata"]) == {"_enc"}
            kept.append(body["metadata"])
            return answer({"cid": CID})
        return answer({"results": [{"cid": CID, "score": 1.0, "metadata": kept[0]}]})

    kept: list[dict[str, object]] = []
    cipher = NamespaceCipher("mine", "0123456789abcdef")
    with scripted(script) as url:
        with NodeClient(url, PHONE, namespace="mine", cipher=cipher) as node:
            for refused in (lambda: node.ingest("secret"), lambda: node.query("secret")):
                with pytest.raises(ValueError, match="embed"):
                    refused()
        with NodeClient(url, PHONE, namespace="mine", cipher=cipher, embed=lambda text: [0.5]) as node:
            assert node.ingest("secret", {"secret": 1}) == CID
            [hit] = node.query("secret")
            assert (hit.text, hit.metadata["secret"]) == ("secret", 1)
            with pytest.raises(ValueError, match="filter"):
                node.query("secret", where={"secret": "1"})
    for name in ("", "__public__"):
        with pytest.raises(ValueError, match="public"):
            NodeClient("http://127.0.0.1:1", PHONE, namespace=name)


def test_what_the_node_refuses_is_raised_in_its_words() -> None:
    with scripted(lambda _: answer({"cid": None, "error": "Got empty text"})) as url, NodeClient(url) as node:
        with pytest.raises(NodeRefused, match="Got empty text"):
            node.ingest("")
        with pytest.raises(NodeRefused):
            node.query("x")
    with scripted(lambda _: answer({})) as url, NodeClient(url) as node, pytest.raises(NodeRefused):
        node.ingest("")


def test_a_memory_that_is_not_there_is_none() -> None:
    def script(asked: Asked) -> Told:
        if asked.path == "/retrieve/v1%3A%3Aab":
            return answer({"cid": "v1::ab", "metadata": {"a": 1}})
        return answer({"error": "not found"}, 404)

    with scripted(script) as url, NodeClient(url) as node:
        assert node.get("v1::ab") == Memory("v1::ab", {"a": 1})
        assert node.get("v1::cd") is None
        with pytest.raises(ApiError):
            node.health()


def test_an_answer_that_is_no_json_is_said_to_be_none() -> None:
    with scripted(lambda _: Told(body=b"pong")) as url, NodeClient(url) as node:
        for ask in (node.health, node.stats, lambda: node.query("x")):
            with pytest.raises(MalformedAnswer):
                ask()


NESTED = b"[" * 100_000


@pytest.mark.parametrize("told", [Told(body=b'{"deleted":' + NESTED), Told(400, b'{"error":' + NESTED)])
def test_an_answer_nested_without_end_is_an_error_of_the_clients_own(told: Told) -> None:
    with scripted(lambda _: told) as url, NodeClient(url, PHONE) as node:
        for ask in (node.health, lambda: node.query("x"), lambda: node.delete(CID), lambda: node.get(CID)):
            with pytest.raises((MalformedAnswer, ApiError)):
                ask()


def test_a_proof_nested_without_end_proves_nothing() -> None:
    signed = f"engram-commitment:keyed-1:__public__:{'00' * 32}:1:{time.time_ns() // 10**6}"
    told = {"root_hex": "00" * 32, "count": 1, "signed": signed, "signature": PHONE.sign(signed.encode()).hex()}
    lie = answer({**told, "proof": NESTED.decode()})
    with scripted(lambda _: lie) as url, NodeClient(url) as node, pytest.raises(Impostor, match="proof"):
        node.prove(CID, PHONE.public_key)


def test_another_memory_than_was_asked_for_is_not_taken() -> None:
    with scripted(lambda _: answer({"cid": CID, "metadata": {}})) as url, NodeClient(url) as node:
        assert node.get(CID) == Memory(CID)
        with pytest.raises(MalformedAnswer, match="gave"):
            node.get("v1::cd")


def test_only_what_the_node_says_it_has_deleted_is_deleted() -> None:
    for told, outcome in [({"deleted": True, "cid": CID}, True), ({"deleted": False, "cid": CID}, False)]:
        with scripted(lambda _, told=told: answer(told)) as url, NodeClient(url, PHONE) as node:  # type: ignore[misc]
            assert node.delete(CID) is outcome
    no = answer({"error": "no"})
    with scripted(lambda _: no) as url, NodeClient(url, PHONE) as node, pytest.raises(MalformedAnswer):
        node.delete(CID)


def test_how_long_to_wait_is_a_number_of_seconds_or_not_said() -> None:
    for said, waited in (("2", 2.0), ("9" * 400, None), ("-1", None), ("soon", None)):
        told = Told(503, b"{}", {"retry-after": said})
        with scripted(lambda _, told=told: told) as url, NodeClient(url) as node:  # type: ignore[misc]
            with pytest.raises(ApiError) as raised:
                node.health()
            assert raised.value.retry_after_s == waited


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=30), max_size=20))
def test_any_lines_are_events_or_a_malformed_answer(lines: list[str]) -> None:
    try:
        events = list(event_stream.parse(lines))
    except MalformedAnswer:
        return
    assert all(isinstance(event.data, dict) for event in events)


def test_events_are_read_as_the_standard_says() -> None:
    text = ': comment\nretry: 10\nevent: state\nid: 4\ndata: {"a":\ndata: 1}\n\ndata:{"b":2}\n\nevent: lost\n\nid: 9\n'
    [first, second] = event_stream.parse(text.split("\n"))
    assert (first.event, first.id, first.data) == ("state", "4", {"a": 1})
    assert (second.event, second.id, second.data) == ("message", "4", {"b": 2})
    assert issubclass(MalformedAnswer, SdkError)
