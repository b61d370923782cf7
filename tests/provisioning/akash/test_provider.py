"""What a provider's words are worth: its status, its address, its certificate."""

import pytest

from engram import wire
from engram.provisioning.akash.events import NotReady, Ready
from engram.provisioning.akash.provider_addresses import vetted
from engram.provisioning.akash.provider_model import LeaseStatus, readiness
from engram.provisioning.akash.provider_tls import pinned_context
from engram.provisioning.node_addresses import UnusableAddress

RUNNING = '"miner":{"name":"miner","available":1,"total":1,"uris":["abc.ingress.example"]}'

FORWARDED = '{"host":"p.example","port":8091,"externalPort":31234,"proto":"TCP"}'


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (f'{{"services":{{{RUNNING}}},"forwarded_ports":null,"ips":null}}', Ready("http://abc.ingress.example")),
        (
            f'{{"services":{{{RUNNING}}},"forwarded_ports":{{"miner":[{FORWARDED}]}}}}',
            Ready("http://p.example:31234"),
        ),
        (f'{{"services":{{{RUNNING}}},"forwarded_ports":{{"miner":null}}}}', Ready("http://abc.ingress.example")),
        ('{"services":{"miner":{"available":0,"total":1,"uris":["a"]}}}', NotReady("0 of 1 instances run")),
        ('{"services":{"miner":{"available":0,"total":0,"uris":["a"]}}}', NotReady("0 of 0 instances run")),
        (
            '{"services":{"miner":{"available":1,"total":1,"uris":null}}}',
            NotReady("the provider names no address of the node"),
        ),
        (
            '{"services":{"miner":{"available":1,"total":1,"uris":["user@evil/path"]}}}',
            NotReady("the provider names no address of the node"),
        ),
        ('{"services":null}', NotReady("the provider knows no service 'miner' of this lease")),
        ("{}", NotReady("the provider knows no service 'miner' of this lease")),
    ],
)
def test_a_node_is_ready_only_when_it_runs_and_can_be_reached(status: str, answer: Ready | NotReady) -> None:
    assert readiness(wire.decode(status, LeaseStatus), "miner", 8091) == answer


@pytest.mark.parametrize(
    "host_uri",
    [
        "https://127.0.0.1:8443",
        "https://10.1.2.3:8443",
        "https://169.254.169.254",
        "https://[::1]:8443",
        "https://[::ffff:10.0.0.1]:8443",
        "http://8.8.8.8:8443",
        "https://user:password@8.8.8.8:8443",
        "https://",
        "https://[::1",
        "file:///etc/passwd",
        "",
    ],
)
async def test_a_providers_address_never_leads_into_our_own_network(host_uri: str) -> None:
    with pytest.raises(UnusableAddress):
        await vetted(host_uri, allow_private=False)


async def test_a_vetted_address_is_the_one_that_is_connected_to() -> None:
    at = await vetted("https://8.8.8.8", allow_private=False)
    assert (at.url, at.address) == ("https://8.8.8.8:8443", "8.8.8.8")
    private = await vetted("https://[::1]:9443", allow_private=True)
    assert (private.url, private.address) == ("https://[::1]:9443", "::1")


def test_certificates_that_cannot_be_read_pin_nothing() -> None:
    assert pinned_context([]) is None
    assert pinned_context(["no certificate", ""]) is None
