"""What is committed and what is read back, over all that may stand on a chain."""

import gzip
import ipaddress
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.addresses import is_public
from engram.chain.read.commitments import HotkeyCommitment, decode_commitments
from engram.chain.read.runtime import RuntimeTypes
from engram.chain.registry.registrations import (
    InvalidRegistration,
    Registration,
    parse_text,
    registration,
    registry_entry,
)
from tests.chain.samples import DATA, metadata

KEY = bytes(range(32))
TYPES = RuntimeTypes(metadata(), 293, 1)


def read(payload: bytes | None) -> tuple[Registration | None, str, str]:
    found = registry_entry(HotkeyCommitment(KEY, "5", 1, payload, "Raw"))
    return found.registration, found.error_type, found.error


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("13.89.38.129:9999", "13.89.38.129", 9999),
        ("[2001:db8::1]:8091", "2001:db8::1", 8091),
        ("2001:db8::1:8091", "2001:db8::1", 8091),
        ("[2001:DB8:0::1]:1", "2001:db8::1", 1),
        ("miner.example.org:443", "miner.example.org", 443),
        ("miner_1.example.org.:443", "miner_1.example.org.", 443),
        ("127.0.0.1:65535", "127.0.0.1", 65_535),
        ("a:1", "a", 1),
        ("0x41.example:1", "0x41.example", 1),
    ],
)
def test_a_text_that_names_an_endpoint_is_read(text: str, address: str, port: int) -> None:
    assert parse_text(text) == Registration(address, port)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nothing", "Invalid compressed string format: nothing"),
        ("", "Invalid compressed string format: "),
        ("myorg:my-model:abc123:llama", "Invalid compressed string format: myorg:my-model:abc123:llama"),
        ("a:b:80", "Invalid compressed string format: a:b:80"),
        ("1.2.3.4: 80", "Port must be a valid number"),
        ("1.2.3.4:+80", "Port must be a valid number"),
        ("1.2.3.4:٨٠", "Port must be a valid number"),
        ("1.2.3.4:", "Port must be a valid number"),
        ("1.2.3.4:0", "Port 0 cannot be connected to"),
        ("1.2.3.4:65536", "Port must be between 0 and 65535"),
        ("1.2.3.4:-1", "Port must be between 0 and 65535"),
        ("1.2.3.4:123456", "Port must be at most 5 characters"),
        ("a" * 46 + ":80", "Address must be at most 45 characters"),
        ("999.1.1.1:80", "Address '999.1.1.1' is no IPv4 address"),
        ("010.1.1.1:80", "Address '010.1.1.1' is no IPv4 address"),
        ("0x41:80", "Address '0x41' is no IPv4 address"),
        ("13.89.38.0X81:80", "Address '13.89.38.0X81' is no IPv4 address"),
        ("miner.example.0x:80", "Address 'miner.example.0x' is no IPv4 address"),
        ("2130706433:80", "Address '2130706433' is no IPv4 address"),
        ("1.2.3.4.:80", "Address '1.2.3.4.' is no IPv4 address"),
        ("[b]x[/b]:80", "Address '[b]x[/b]' is no IPv6 address"),
        (":80", "Address '' is neither an IP address nor a host name"),
        ("-a.example:80", "Address '-a.example' is neither an IP address nor a host name"),
        ("a b:80", "Address 'a b' is neither an IP address nor a host name"),
        ("[::1%eth0]:80", "Address '[::1%eth0]' names an interface of one machine"),
        ("user@host:80", "Address 'user@host' is neither an IP address nor a host name"),
    ],
)
def test_a_text_that_names_none_says_why(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        parse_text(text)
    if text:
        assert read(text.encode()) == (None, "ValueError", error)


@pytest.mark.parametrize("payload", [None, b""])
def test_a_commitment_without_a_text_is_missing_data(payload: bytes | None) -> None:
    assert read(payload) == (None, "MissingData", "No valid chain string found in commitment")


@given(st.binary(max_size=128))
def test_whatever_bytes_are_committed_are_an_entry(payload: bytes) -> None:
    found = registry_entry(HotkeyCommitment(KEY, "5", 1, payload, "Raw"))
    assert (found.registration is None) == bool(found.error)
    assert found.length == len(payload)


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_what_is_written_is_read_back_as_itself(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    written = registration(str(ip), str(port), allow_private=True)
    assert len(written.text.encode()) <= 128
    assert parse_text(written.text) == written
    assert written.ip == ip


@pytest.mark.parametrize("brackets", ["2001:db8::1", "[2001:db8::1]"])
def test_either_way_of_writing_ipv6_commits_the_same(brackets: str) -> None:
    assert registration(brackets, "1", allow_private=True).text == "[2001:db8::1]:1"


def test_a_text_over_the_chains_limit_tells_both_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.chain.registry.registrations.COMMITMENT_BYTES", 10)
    with pytest.raises(InvalidRegistration) as told:
        registration("13.89.38.129", "80")
    assert str(told.value).splitlines() == [
        "Commit string length 15 exceeds maximum 10",
        "Address length: 12, Port length: 2",
    ]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "2001:db8::1",
        "::7f00:1",
        "::ffff:0:7f00:1",
        "64:ff9b:1::7f00:1",
        "fec0::1",
        "5f00::1",
        "192.0.0.192",
        "168.63.129.16",
        "::ffff:168.63.129.16",
    ],
)
def test_an_address_that_is_not_of_the_internet_is_known(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["13.89.38.129", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_an_address_of_the_internet_is_known(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.lists(st.binary(max_size=160), max_size=5))
def test_whatever_octets_stand_in_storage_are_entries(values: list[bytes]) -> None:
    prefix = TYPES.storage_key("Commitments", "CommitmentOf", 450).hex()
    entries = [(f"0x{prefix}{'00' * 8}{bytes([n] * 32).hex()}", "0x" + value.hex()) for n, value in enumerate(values)]
    found = decode_commitments(TYPES, entries)
    assert [one.hotkey for one in found] == [bytes([n] * 32) for n in range(len(values))]
    assert all(registry_entry(one).error or registry_entry(one).registration for one in found)


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ({"Sha256": "0x" + "11" * 32}, "Sha256"),
        ({"TimelockEncrypted": {"encrypted": "0x0102", "reveal_round": 5}}, "TimelockEncrypted"),
        ("ResetBondsFlag", "ResetBondsFlag"),
        ("None", "None"),
    ],
)
def test_a_field_that_is_no_text_is_an_entry_of_its_kind(field: object, kind: str) -> None:
    value = {"deposit": 0, "block": 7, "info": {"fields": [field]}}
    octets = TYPES.encode_storage("Commitments", "CommitmentOf", value)
    key = TYPES.storage_key("Commitments", "CommitmentOf", 450, KEY)
    (found,) = decode_commitments(TYPES, [("0x" + key.hex(), "0x" + octets.hex())])
    assert (found.kind, found.payload, found.block) == (kind, None, 7)


def test_a_commitment_without_a_field_is_an_entry() -> None:
    octets = TYPES.encode_storage("Commitments", "CommitmentOf", {"deposit": 0, "block": 7, "info": {"fields": []}})
    key = TYPES.storage_key("Commitments", "CommitmentOf", 450, KEY)
    (found,) = decode_commitments(TYPES, [("0x" + key.hex(), "0x" + octets.hex())])
    assert (found.kind, found.payload) == ("no field", None)


def test_the_recorded_commitments_are_read_as_they_are() -> None:
    recorded = json.loads(gzip.decompress((DATA / "commitment-flows.json.gz").read_bytes()))
    ((changes,),) = [[one["changes"] for one in recorded["all_commitments_after"]]]
    entries = [registry_entry(one) for one in decode_commitments(TYPES, [tuple(change) for change in changes])]
    assert [(one.raw, one.block) for one in entries if one.registration] == [
        ("13.89.38.129:9999", 1101),
        ("[2001:db8::1]:8091", 1102),
    ]
    assert [(one.raw, one.error) for one in entries if not one.registration] == [
        ("\\xff\\xfe\x00bad", "Invalid compressed string format: \\xff\\xfe\x00bad"),
        ("myorg:my-model:abc123:llama", "Invalid compressed string format: myorg:my-model:abc123:llama"),
        ("x" * 128, "Invalid compressed string format: " + "x" * 128),
    ]
