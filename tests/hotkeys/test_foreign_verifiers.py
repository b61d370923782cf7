"""What we sign, read as others do: the message built again by hand, and verified by substrate-interface."""

import hashlib
import json
from collections.abc import Callable

import pytest
from substrateinterface import Keypair as SubstrateKeypair

from engram.hotkeys import Keypair, chutes, epistula, gateway_scheme, sign_fields, sign_headers
from engram.hotkeys.scheme import Scheme

NOW_NS = 1_750_000_003_000_000_123
ALICE, BOB = Keypair.from_uri("//Alice"), Keypair.from_uri("//Bob")
UUID = "11111111-2222-4000-b333-0000000a0007"
BODY = b'{"prompt": "a red fox"}'
HASH = hashlib.sha256(BODY).hexdigest()

Read = Callable[[dict[str, str]], tuple[str, str, str]]
"""Headers -> signer, message, signature."""

FOREIGN: list[tuple[Scheme, Read]] = [
    (
        epistula.V2,
        lambda h: (
            h["Epistula-Signed-By"],
            f"{HASH}.{h['Epistula-Uuid']}.{h['Epistula-Timestamp']}.{h['Epistula-Signed-For']}",
            h["Epistula-Request-Signature"],
        ),
    ),
    (
        epistula.DIPPY,
        lambda h: (
            h["Epistula-Signed-By"],
            f"{HASH}.{h['Epistula-Uuid']}.{h['Epistula-Timestamp']}.{h['Epistula-Signed-For']}",
            h["Authorization"].split(" ")[1],
        ),
    ),
    (
        epistula.APEX,
        lambda h: (
            h["Epistula-Signed-By"],
            f"{HASH}.{h['Epistula-Timestamp']}.{h['Epistula-Signed-For']}",
            h["Epistula-Request-Signature"],
        ),
    ),
    (
        epistula.X_EPISTULA,
        lambda h: (
            h["X-Epistula-Hotkey"],
            f"{h['X-Epistula-Timestamp']}.{HASH}",
            "0x" + h["X-Epistula-Signature"],
        ),
    ),
    (
        chutes.of_miner(),
        lambda h: (
            h["X-Chutes-Hotkey"],
            f"{h['X-Chutes-Hotkey']}:{h['X-Chutes-Nonce']}:{HASH}",
            "0x" + h["X-Chutes-Signature"],
        ),
    ),
    (
        chutes.of_validator(),
        lambda h: (
            h["X-Chutes-Validator"],
            f"{h['X-Chutes-Miner']}:{h['X-Chutes-Validator']}:{h['X-Chutes-Nonce']}:{HASH}",
            "0x" + h["X-Chutes-Signature"],
        ),
    ),
    (
        gateway_scheme.SCHEME,
        lambda h: (h["X-Hotkey"], f"engram-cloud:POST:/sessions:{h['X-Timestamp']}", "0x" + h["X-Sig"]),
    ),
]


@pytest.mark.parametrize(("scheme", "read"), FOREIGN, ids=[scheme.name for scheme, _ in FOREIGN])
def test_others_verify_what_we_sign(scheme: Scheme, read: Read) -> None:
    headers = sign_headers(
        scheme,
        ALICE,
        now_ns=NOW_NS,
        method="POST",
        raw_path=b"/sessions",
        body=BODY,
        uuid=UUID if "uuid" in scheme.required else "",
        receiver=BOB.public_key if "receiver" in scheme.required else None,
    )
    signer, message, signature = read(headers)
    assert signer == ALICE.ss58
    assert SubstrateKeypair(ss58_address=signer).verify(message, signature)


def test_times_are_spelled_in_the_schemes_unit() -> None:
    def stamp(scheme: Scheme, name: str) -> str:
        return sign_headers(scheme, ALICE, now_ns=NOW_NS)[name]

    assert stamp(epistula.X_EPISTULA, "X-Epistula-Timestamp") == "1750000003000000123"
    assert stamp(gateway_scheme.SCHEME, "X-Timestamp") == "1750000003000"
    assert stamp(chutes.of_miner(), "X-Chutes-Nonce") == "1750000003"


def test_others_verify_the_version_1_body_and_find_in_it_what_they_want() -> None:
    body, headers = epistula.sign_v1(ALICE, {"hello": "world"}, now_ns=NOW_NS, receiver=BOB.public_key)
    envelope = json.loads(body)
    assert envelope == {
        "data": {"hello": "world"},
        "nonce": NOW_NS,
        "signed_by": ALICE.ss58,
        "signed_for": BOB.ss58,
        "version": 1,
    }
    assert json.dumps(envelope, sort_keys=True).encode() == body
    assert SubstrateKeypair(ss58_address=ALICE.ss58).verify(body, headers["Body-Signature"])


@pytest.mark.parametrize(("scheme", "message"), [(chutes.SOCKET, "{}:{}:sockets"), (chutes.PATTERN_B, "auth:{}:{}")])
def test_others_verify_our_socket_authentication(scheme: Scheme, message: str) -> None:
    payload = sign_fields(scheme, ALICE, {"gpu_info": {"gpu_count": 0}}, now_ns=NOW_NS)
    hotkey, stamp, signature = (str(payload[name]) for name in scheme.fields)
    assert SubstrateKeypair(ss58_address=hotkey).verify(message.format(hotkey, stamp), "0x" + signature)
    assert payload["gpu_info"] == {"gpu_count": 0}
