"""The cases that the app's own tests are held to: made by substrate-interface, eth_account and this project's code.

ENGRAM_GOLDEN=1 writes phone/tests/vectors.json again.
"""

import base64
import hashlib
import json
import os
import random
import struct
from typing import Any

from eth_account import Account
from substrateinterface import Keypair as SubstrateKeypair

from engram.hotkeys import Keypair, polkadot_keystore
from engram.hotkeys.python_json import canonical
from engram.memory.proof.keyed_tree import LEVELS, KeyedTree, entry_of, key_of
from engram.payments import pay_links
from engram.payments.eip712 import digest
from engram.payments.model import Authorization
from engram.payments.networks import NETWORKS
from engram.sdk import encryption, phone_notes
from tests.phone.browser import FOLDER

RECORDED = FOLDER / "tests" / "vectors.json"
WORDS = (
    "bottom drive obey lake curtain smoke basket hold race lonely fit walk",
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "abandon " * 23 + "art",
)
PATHS = ("", "//Alice", "//phone/soft", "/0", "//42//0/7", "//18446744073709551615", "//" + "long" * 9, "/ünï")
PASSPHRASE = "correct horse"
LINK = pay_links.PayLink(
    id="1f" * 16,
    controller="2a" * 32,
    tier="lite",
    hours=1.5,
    seconds=5_400.0,
    session_id=None,
    network="eip155:8453",
    amount=150_000,
    pay_to="11" * 20,
    expires_at=1_700_000_900,
)


def derivations() -> list[dict[str, str]]:
    found = []
    for words in WORDS:
        for path in PATHS:
            made = SubstrateKeypair.create_from_uri(words + path, ss58_format=42)
            found.append({"words": words, "path": path, "address": made.ss58_address})
    return found


def spending() -> list[dict[str, str]]:
    Account.enable_unaudited_hdwallet_features()
    return [{"words": words, "address": Account.from_mnemonic(words).address} for words in WORDS]


def digests() -> list[dict[str, str]]:
    found = []
    for network in dict.fromkeys(NETWORKS.values()):
        made = Authorization(b"\x11" * 20, b"\x22" * 20, 2_400_000, 1_700_000_000, 1_700_000_120, b"\x33" * 32)
        found.append({"network": network.v1_name, "digest": digest(made, network).hex()})
    return found


def texts() -> list[dict[str, Any]]:
    values: list[Any] = [
        {"b": 1, "a": [True, None, "x"], "ä": {"z": -5, "\U0001f600": "😀", "\uffff": ""}},
        {"text": 'Grüße\n\t"\\ \x7f\u2028', "top_k": 20},
        {},
    ]
    return [{"value": value, "text": canonical(value).decode()} for value in values]


def proofs() -> list[dict[str, Any]]:
    names = [f"v1::{number:064x}" for number in range(300)]
    # A bucket of more than 32 entries is split: these share their first 16 bits with the first name's key.
    rng = random.Random(1)
    crowd = [key_of(names[0])[:2] + rng.randbytes(62) for _ in range(100)]
    found: list[dict[str, Any]] = []
    cases: list[tuple[list[str], list[bytes]]] = [(names[:1], []), (names, []), (names[:1], crowd)]
    for cids, more in cases:
        tree = KeyedTree([*(entry_of(cid, cid.encode()) for cid in cids), *more])
        for cid in dict.fromkeys((cids[0], cids[-1])):
            found.append({"cid": cid, "root": tree.root.hex(), "shown": _fields(tree.show(cid))})
    assert found[-1]["shown"]["depth"] > LEVELS
    return found


def notes() -> dict[str, Any]:
    pair = Keypair.from_seed(hashlib.sha256(b"vector").digest())
    texts = ("", "Late frost, again.", "ÜNÏ ünï straße ﬁn 42 日本語", "a " * 50)
    embed = phone_notes.embedder(pair)
    return {
        "key": phone_notes.namespace_key(pair),
        "vectors": [{"text": text, "packed": packed(embed(text))} for text in texts],
    }


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _fields(shown: Any) -> dict[str, Any]:
    return {name: getattr(shown, name) for name in shown.__struct_fields__}


def test_the_recorded_cases_are_those_of_the_libraries() -> None:
    made = {
        "derivations": derivations(),
        "spending": spending(),
        "digests": digests(),
        "texts": texts(),
        "proofs": proofs(),
        "notes": notes(),
    }
    if os.environ.get("ENGRAM_GOLDEN") == "1":
        kept = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
        pair = Keypair.from_seed(hashlib.sha256(b"vector").digest())
        sealed = encryption.encrypt(phone_notes.cipher(pair), "Late frost.", {"stored_at": 1_700_000_000})
        kept.setdefault("sealed", sealed)
        kept.setdefault("link", {"gateway": pair.ss58, "text": pay_links.seal(LINK, pair)})
        kept.setdefault("keystore", {"address": pair.ss58, "passphrase": PASSPHRASE, "json": _keystore(pair)})
        RECORDED.write_text(json.dumps(kept | made, indent=1, ensure_ascii=False) + "\n")
    recorded = json.loads(RECORDED.read_text())
    for name, cases in made.items():
        assert recorded[name] == cases
    keystore = recorded["keystore"]
    pair = Keypair.from_seed(hashlib.sha256(b"vector").digest())
    assert pay_links.read(recorded["link"]["text"], pair.public_key) == LINK
    memory = encryption.decrypt(phone_notes.cipher(pair), recorded["sealed"])
    assert (memory.text, memory.metadata) == ("Late frost.", {"stored_at": 1_700_000_000})
    opened = polkadot_keystore.read(keystore["json"].encode(), keystore["passphrase"])
    assert opened.ss58 == keystore["address"]


def _keystore(pair: Keypair) -> str:
    substrate = SubstrateKeypair.create_from_seed(hashlib.sha256(b"vector").digest(), ss58_format=42)
    assert substrate.ss58_address == pair.ss58
    return json.dumps(substrate.export_to_encrypted_json(PASSPHRASE, name="vector"))


def test_the_networks_of_the_app_are_those_of_payments() -> None:
    text = (FOLDER / "src" / "core" / "networks.ts").read_text()
    for network in dict.fromkeys(NETWORKS.values()):
        for shown in (network.v1_name, network.caip2, f"0x{network.asset.hex()}", network.asset_name):
            assert f'"{shown}"' in text
