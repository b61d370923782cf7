"""Endpoints and providers are strangers: what they say ends no worker, and leads nowhere into our own network."""

import json
from typing import Any

import msgspec
import pytest

from config.model import AkashSettings, Settings
from engram import wire
from engram.clock import SystemClock
from engram.http.client import BadAnswer, Response
from engram.ledger.inline import open_inline
from engram.provisioning.akash import chain_model as m
from engram.provisioning.akash import cosmos_model as c
from engram.provisioning.akash import sending_rules, tx
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.events import NotReady, ProviderFailed, Ready
from engram.provisioning.akash.factory import open_chain
from engram.provisioning.akash.messages import CloseDeployment, DeploymentID
from engram.provisioning.akash.provider import Providers
from engram.provisioning.akash.provider_addresses import vet_node
from engram.provisioning.akash.provider_model import ForwardedPort, LeaseStatus, ServiceStatus, readiness
from engram.provisioning.akash.sending import Sender, SendingSettings
from engram.provisioning.akash.sending_rules import Taken
from engram.provisioning.akash.signing import TTL_S, Rejected, Signing, SigningSettings
from engram.provisioning.akash.transactions import Outgoing, Subject
from engram.provisioning.errors import Unavailable
from engram.provisioning.node_addresses import UnusableAddress
from tests.provisioning.akash.deployments import S, a_row
from tests.provisioning.akash.worlds import KEY

NOW = "2026-11-29T18:00:00.123456789Z"
NOW_S = 1_795_975_200.123456
WANTED = (CloseDeployment(DeploymentID(KEY.address, 7)),)


class StrangeHttp:
    """An endpoint that says what it is told to say."""

    def __init__(self) -> None:
        self.time = NOW
        self.account_number: Any = "5"
        self.gas_used: Any = "100000"

    async def request(self, method: str, url: str, **_: Any) -> Response:
        path = url.partition("example")[2]
        answers: dict[str, Any] = {
            "/cosmos/base/tendermint/v1beta1/blocks/latest": {
                "block": {"header": {"chain_id": "akashnet-2", "height": "100", "time": self.time}}
            },
            "/cosmos/base/tendermint/v1beta1/syncing": {"syncing": False},
            "/cosmos/tx/v1beta1/simulate": {"gas_info": {"gas_used": self.gas_used}},
            f"/cosmos/auth/v1beta1/accounts/{KEY.address}": {
                "account": {"address": KEY.address, "account_number": self.account_number}
            },
        }
        return Response(200, {}, json.dumps(answers[path]).encode())


class _Now:
    """A clock that stands at the endpoint's time."""

    def now(self) -> float:
        return NOW_S

    def monotonic(self) -> float:
        return NOW_S


def _chain(http: StrangeHttp) -> Chain:
    settings = Settings(akash=AkashSettings(endpoints=("http://example",), poll_s=0.001))
    return open_chain(settings, KEY.address, http, _Now())  # type: ignore[arg-type]


def _sender(chain: Chain) -> Sender:
    ledger, clock = open_inline(), SystemClock()
    signing = Signing(chain, KEY, ledger, clock, SigningSettings(chain_id="akashnet-2"))
    return Sender(chain, signing, ledger, clock, SendingSettings())


async def _timeout_s(sender: Sender) -> float:
    made = await sender.prepare(WANTED, Subject.CLOSE, None)
    assert isinstance(made, Outgoing)
    ordering = tx.decode_tx(made.raw).ordering
    assert isinstance(ordering, tx.Unordered)
    return ordering.timeout_ns / 1e9


async def test_gateways_of_one_account_never_take_the_same_timeout_in_the_same_block() -> None:
    """The chain refuses the second transaction of a timeout; another gateway, or this one before its restart, knows the
    same block.
    """
    chain = _chain(StrangeHttp())
    taken = [await _timeout_s(_sender(chain)) for _ in range(20)]
    assert len({*taken}) == len(taken)
    assert all(NOW_S + TTL_S - 0.01 <= one <= NOW_S + TTL_S + 1.01 for one in taken)


@pytest.mark.parametrize("number", ["", "abc", "1.5", "9" * 30, "0x10", None, [], "٣"])
async def test_a_number_that_is_none_is_no_answer(number: Any) -> None:
    for name in ("account_number", "gas_used"):
        http = StrangeHttp()
        setattr(http, name, number)
        with pytest.raises(Unavailable):
            made = await _sender(_chain(http)).prepare(WANTED, Subject.CLOSE, None)
            assert not isinstance(made, Rejected)


@pytest.mark.parametrize(
    ("answer", "of"),
    [
        ({"tx_response": {"height": "later"}}, c.TxAnswer),
        ({"tx_response": {"gas_used": "9" * 19}}, c.TxAnswer),
        ({"deployments": [{"deployment": {"id": {"dseq": "-1"}}}]}, m.DeploymentsAnswer),
        ({"leases": [{"lease": {"reclamation": {"deadline": "soon"}}}]}, m.LeasesAnswer),
        ({"balances": [{"denom": "uact", "amount": "NaN"}]}, c.BalancesAnswer),
        ({"balances": [{"denom": "uact", "amount": "1e30"}]}, c.BalancesAnswer),
    ],
)
def test_answers_with_numbers_that_are_none_are_refused_where_they_are_decoded(answer: Any, of: type) -> None:
    with pytest.raises(BadAnswer):
        Response(200, {}, json.dumps(answer).encode()).decode(of)


def test_amounts_of_the_chain_are_taken_negative_and_with_decimals() -> None:
    text = '{"funds": [{"denom": "uact", "amount": "-6344.131225000000000000"}], "settled_at": "12"}'
    assert c.amount_of(wire.decode(text, m.EscrowState).funds, "uact") == -6_344_131_225


@pytest.mark.parametrize("code", [13, 18, 20])
def test_what_one_endpoint_refuses_for_reasons_of_its_own_goes_to_another(code: int) -> None:
    for maybe_sent in (False, True):
        assert sending_rules.taken("sdk", code, "", maybe_sent=maybe_sent) is Taken.AGAIN
    assert sending_rules.taken("market", code, "", maybe_sent=False) is Taken.REFUSED


# ------------------------------------------------------------------------------------------------------ providers


def _status(host: str = "", uri: str = "") -> LeaseStatus:
    return LeaseStatus(
        services={"miner": ServiceStatus(1, 1, (uri,) if uri else None)},
        forwarded_ports={"miner": (ForwardedPort(host, 8091, 31_000),)},
    )


@pytest.mark.parametrize(
    "host",
    ["", "a/b", "127.0.0.1:9000/status?x=", "user@host", "a b", "host#", "host\\", "-a", "::1/", "[::1]", "a" * 300],
)
def test_what_is_no_host_is_no_address_of_a_node(host: str) -> None:
    assert isinstance(readiness(_status(host, f"{host}/"), "miner", 8091), NotReady)


def test_hosts_and_ports_of_a_node_are_taken() -> None:
    assert readiness(_status("provider.example.com"), "miner", 8091) == Ready("http://provider.example.com:31000")
    assert readiness(_status("2001:db8::1"), "miner", 8091) == Ready("http://[2001:db8::1]:31000")
    assert readiness(_status("", "abc.ingress.example.com"), "miner", 8091) == Ready("http://abc.ingress.example.com")
    assert readiness(_status("", "127.0.0.1:4000"), "miner", 8091) == Ready("http://127.0.0.1:4000")


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:9000", "http://[::1]:80", "http://169.254.169.254", "http://10.0.0.8:1", "http://localhost"],
)
async def test_a_node_in_our_own_network_is_refused(endpoint: str) -> None:
    with pytest.raises(UnusableAddress, match="not a public address"):
        await vet_node(endpoint, allow_private=False)
    await vet_node(endpoint, allow_private=True)


@pytest.mark.parametrize("endpoint", ["http://", "http://host:99999", "http://[::1", ""])
async def test_what_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(UnusableAddress):
        await vet_node(endpoint, allow_private=False)


@pytest.mark.parametrize(("allow_private", "kind"), [(False, ProviderFailed), (True, Ready)])
async def test_a_provider_that_names_our_own_machine_as_its_node_is_not_asked_there(
    monkeypatch: pytest.MonkeyPatch, allow_private: bool, kind: type
) -> None:
    async def answered(*_: Any) -> Response:
        return Response(200, {}, msgspec.json.encode(_status("127.0.0.1")))

    providers = Providers(_chain(StrangeHttp()), KEY, SystemClock(), allow_private=allow_private)
    monkeypatch.setattr(providers, "_ask", answered)
    assert isinstance(await providers.status(a_row(S.STARTING, provider="p"), "miner", 8091), kind)
