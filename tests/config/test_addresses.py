"""One judgement of what the internet reaches, and nothing beside it."""

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.addresses import is_public, is_public_host

pytestmark = pytest.mark.rules

ROOT = Path(__file__).resolve().parents[2]
OWN_JUDGEMENT = re.compile(r"\.is_(?:global|site_local|link_local|reserved)\b|(?:address|parsed|ip|\))\.is_private\b")
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "api.localhost",
        "localhost.localdomain",
        "printer.local",
        "metadata.google.internal",
        "node.svc.cluster.local",
        "router.LAN.",
        "fritz.home",
        "nas.home.arpa",
        "mail.corp",
        "wiki.intranet",
        "a.test",
        "a.invalid",
        "abcdefgh.onion",
        "local",
        "internal",
        "gateway",
        "",
        ".",
        "127.0.0.1",
        "[::1]",
        "[fe80::1%eth0]",
        "10.0.0.1",
        "::ffff:192.168.1.1",
        "64:ff9b::192.168.1.1",
        "2002:c0a8:101::1",
        "2001:0:4136:e378:8000:63bf:3f57:fefe",
    ],
)
def test_a_host_of_one_machine_or_one_site_is_not_public(host: str) -> None:
    assert not is_public_host(host)


@pytest.mark.parametrize(
    "host",
    [
        *["miner.example.org", "MINER.EXAMPLE.ORG.", "local.example.org", "mylocal.org", "a.xn--p1ai", "lan.party.com"],
        *["13.89.38.129", "[2606:4700::1111]", "2606:4700::1111"],
    ],
)
def test_a_host_of_the_internet_is_public(host: str) -> None:
    assert is_public_host(host)


@given(st.ip_addresses())
def test_an_address_is_judged_the_same_alone_and_as_a_host(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert is_public_host(str(address)) is is_public(address)


@given(st.lists(LABEL, min_size=1, max_size=3), st.sampled_from(["local", "internal", "lan", "localhost"]))
def test_whatever_stands_before_such_an_ending_changes_nothing(labels: list[str], ending: str) -> None:
    assert not is_public_host(".".join([*labels, ending]))


def test_no_other_place_judges_addresses_by_itself() -> None:
    files = [ROOT / "run.py", *(ROOT / "engram").rglob("*.py"), *(ROOT / "config").rglob("*.py")]
    assert [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        if path != ROOT / "config" / "addresses.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if OWN_JUDGEMENT.search(line)
    ] == []
