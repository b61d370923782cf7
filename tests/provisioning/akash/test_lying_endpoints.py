"""An endpoint that lies, or answers with garbage, neither spends the account's money nor stands in the others' way."""

import base64
import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from config.model import AkashSettings, Settings
from engram.http.client import BadAnswer, Response
from engram.ledger.inline import open_inline
from engram.provisioning.akash import chain_model as m
from engram.provisioning.akash import cosmos_model as c
from engram.provisioning.akash import sending_rules, tx
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.endpoints import Head, behind_s, believed
from engram.provisioning.akash.factory import open_chain
from engram.provisioning.akash.messages import CloseDeployment, DeploymentID
from engram.provisioning.akash.sending import Sender, SendingSettings
from engram.provisioning.akash.signing import Rejected, Signing, SigningSettings
from engram.provisioning.akash.transactions import Outgoing, Subject, TxState
from engram.provisioning.errors import Unavailable
from tests.provisioning.akash.worlds import KEY

WANTED: Final = (CloseDeployment(DeploymentID(KEY.address, 7)),)
NOW: Final = "2026-11-29T18:00:00Z"
NOW_S: Final = 1_795_975_200.0

Answers = dict[str, Callable[[], Response]]


def ok(answer: object) -> Callable[[], Response]:
    return lambda: Response(200, {}, json.dumps(answer).encode())


def status(code: int, text: str = "slow down") -> Callable[[], Response]:
    return lambda: Response(code, {}, text.encode())


def block(height: int = 100, time: str = NOW) -> Callable[[], Response]:
    return ok({"block": {"header": {"chain_id": "akashnet-2", "height": str(height), "time": time}}})


def honest() -> Answers:
    return {
        "blocks/latest": block(),
        "syncing": ok({"syncing": False}),
        "simulate": ok({"gas_info": {"gas_used": "100000"}}),
        "accounts/": ok({"account": {"address": KEY.address, "account_number": "5"}}),
        "balances/": ok({"balances": [{"denom": "uact", "amount": "7000000"}]}),
        "deployment/v1beta4/params": ok({"params": {"min_deposits": [{"denom": "uact", "amount": "500000"}]}}),
        "deployments/info": ok({"deployment": {"id": {"owner": KEY.address, "dseq": "7"}, "state": "active"}}),
        "/txs/": status(404),
    }


class Several:
    """Endpoints a, b, c …, each with answers of its own."""

    def __init__(self, *endpoints: Answers) -> None:
        self.endpoints = dict(zip("abcdef", endpoints, strict=False))
        self.asked: list[tuple[str, str]] = []

    async def request(self, method: str, url: str, **_: Any) -> Response:
        name, path = url.removeprefix("http://")[0], url[8:]
        self.asked.append((name, path))
        answers = self.endpoints[name]
        return next(answer for part, answer in answers.items() if part in path)()


class At:
    """A clock that stands."""

    def __init__(self, at: float = NOW_S) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def chain_of(http: Several, at: float = NOW_S) -> Chain:
    urls = tuple(f"http://{name}" for name in http.endpoints)
    settings = Settings(akash=AkashSettings(endpoints=urls, poll_s=0.001))
    return open_chain(settings, KEY.address, http, At(at))  # type: ignore[arg-type]


def sender_of(chain: Chain) -> Sender:
    ledger = open_inline()
    signing = Signing(chain, KEY, ledger, At(), SigningSettings(chain_id="akashnet-2"))
    return Sender(chain, signing, ledger, At(), SendingSettings(look_s=0.01))


async def prepared(http: Several) -> Outgoing:
    made = await sender_of(chain_of(http)).prepare(WANTED, Subject.CLOSE, None)
    assert isinstance(made, Outgoing)
    return made


@pytest.mark.parametrize("gas", ["40000000", "999999999999999999", "-1", "0"])
async def test_an_endpoint_cannot_have_the_account_burned_as_fees(gas: str) -> None:
    liar = honest() | {"simulate": ok({"gas_info": {"gas_used": gas}})}
    made = await prepared(Several(liar, honest()))
    assert made.gas_limit == 200_000
    assert made.fee_uakt == 5_000
    with pytest.raises(Unavailable, match="gas"):
        await prepared(Several(liar))


def refused(text: str) -> Callable[[], Response]:
    return lambda: Response(400, {}, json.dumps({"code": 3, "message": text}).encode())


async def test_one_endpoint_alone_cannot_have_a_session_refused() -> None:
    liar = honest() | {"simulate": refused("deployment invalid: insufficient balance")}
    assert (await prepared(Several(liar, honest()))).gas_limit == 200_000
    for http in (Several(liar), Several(liar, liar)):
        made = await sender_of(chain_of(http)).prepare(WANTED, Subject.CLOSE, None)
        assert isinstance(made, Rejected)


async def test_a_simulation_that_took_too_long_is_no_refusal() -> None:
    late = honest() | {"simulate": refused("unordered transaction has a timeout_timestamp that has already passed")}
    assert (await prepared(Several(late, honest()))).gas_limit == 200_000
    with pytest.raises(Unavailable, match="passed"):
        await prepared(Several(late, late))


def test_gas_that_ran_out_raises_the_next_limit_only_so_far() -> None:
    assert sending_rules.gas_limit(100_000, 10**15) == sending_rules.MOST_GAS


@pytest.mark.parametrize("time", ["2100-01-01T00:00:00Z", "2026-11-29T18:30:00Z"])
async def test_a_block_of_the_future_is_not_believed(time: str) -> None:
    """A timeout that follows it is not over for years: nothing could be signed in its place, no close either."""
    liar = honest() | {"blocks/latest": block(100, time)}
    made = await prepared(Several(liar, honest()))
    ordering = tx.decode_tx(made.raw).ordering
    assert isinstance(ordering, tx.Unordered)
    assert ordering.timeout_ns / 1e9 < NOW_S + 60
    with pytest.raises(Unavailable, match="future"):
        await prepared(Several(liar))


async def test_an_endpoint_that_is_far_ahead_does_not_make_the_others_stale() -> None:
    liar = honest() | {"blocks/latest": block(10**17)}
    chain = chain_of(Several(liar, honest(), honest()))
    assert (await chain.endpoints.head()).height == 100
    assert [endpoint.url for endpoint in await chain.endpoints.usable()] == ["http://b", "http://c"]
    assert "10000000" in chain.endpoints.troubles()["http://a"]


def test_which_heads_are_believed() -> None:
    """A height that the others' heights and times cannot lead to; a chain that stood still is no such case."""
    assert believed([Head(100, 0.0), Head(102, 12.0), Head(90, -60.0)]) == [True, True, True]
    assert believed([Head(10**9, 0.0), Head(100, 0.0), Head(101, 6.0)]) == [False, True, True]
    assert believed([Head(1, 0.0), Head(100, 0.0), Head(101, 6.0)]) == [True, True, True]
    assert believed([Head(5_000, 0.0), Head(100, -29_400.0), Head(110, -29_340.0)]) == [True, True, True]
    assert believed([Head(10**9, 0.0), Head(100, 0.0)]) == [True, True]
    assert believed([Head(7, 0.0)]) == [True]
    assert believed([]) == []


def test_our_clock_is_behind_where_at_least_two_agree_and_none_shows_our_time() -> None:
    hour = Head(100, 3_600.0)
    assert behind_s([hour, Head(101, 3_606.0)], 0.0) == 3_600.0
    for heads in (
        [hour],
        [hour, Head(100, 0.0)],
        [hour, Head(101, 3_606.0), Head(100, 0.0)],
        [hour, Head(100, 7_200.0)],
        [Head(100, 1e9), Head(101, 1e9 + 6.0)],
        [Head(100, 60.0), Head(101, 66.0)],
        [],
    ):
        assert behind_s(heads, 0.0) == 0.0, heads


async def test_two_endpoints_of_the_far_future_are_not_believed() -> None:
    liar = honest() | {"blocks/latest": block(100, "2100-01-01T00:00:00Z")}
    with pytest.raises(Unavailable, match=r"of the future: \d+ s ahead"):
        await prepared(Several(liar, liar))


@pytest.mark.parametrize("trouble", [status(429), status(403), status(302), status(200, "<html>"), ok({"balances": 3})])
async def test_an_endpoint_that_refuses_or_answers_with_garbage_is_passed_over(trouble: Callable[[], Response]) -> None:
    strange = honest() | {"balances/": trouble, "deployments/info": trouble, "accounts/": trouble, "simulate": trouble}
    chain = chain_of(Several(strange, honest()))
    assert await chain.balance("uact") == (7_000_000, 7_000_000)
    found = await chain_of(Several(strange, honest())).deployment(7)
    assert found is not None
    assert found.is_active
    assert (await prepared(Several(strange, honest()))).gas_limit == 200_000


@pytest.mark.parametrize("shown", [{}, {"deployment": {"id": {"dseq": "8"}, "state": "closed"}}, {"message": "hello"}])
async def test_an_answer_to_another_question_closes_no_deployment(shown: object) -> None:
    """An empty document decodes as a deployment that is not active: its row would be closed, and its lease paid on."""
    found = await chain_of(Several(honest() | {"deployments/info": ok(shown)}, honest())).deployment(7)
    assert found is not None
    assert found.is_active
    with pytest.raises(Unavailable, match="something else"):
        await chain_of(Several(honest() | {"deployments/info": ok(shown)})).deployment(7)


async def test_an_endpoint_that_knows_transactions_only_as_garbage_keeps_none_open() -> None:
    strange = honest() | {"/txs/": status(200, "<html>")}
    included = honest()
    http = Several(strange, included)
    sender = sender_of(chain_of(http))
    made = await sender.prepare(WANTED, Subject.CLOSE, None)
    assert isinstance(made, Outgoing)
    included["/txs/"] = ok({"tx_response": {"height": "101", "txhash": made.name, "code": 0}})
    await sender.commit(made)
    again = sender_of(chain_of(http))  # the gateway was started again: it looks first
    again._ledger = sender._ledger
    assert (await again.follow(made)).state is TxState.INCLUDED


@pytest.mark.parametrize(
    ("answer", "of"),
    [
        ({"bids": [{"bid": {"id": {"gseq": 10**30}}}]}, m.BidsAnswer),
        ({"bids": [{"bid": {"id": {"oseq": -1}}}]}, m.BidsAnswer),
        ({"tx_response": {"code": 10**30}}, c.TxAnswer),
        ({"leases": [{"lease": {"state": "reclaiming", "reclamation": {"deadline": 10**400}}}]}, m.LeasesAnswer),
    ],
)
def test_numbers_that_the_ledger_cannot_hold_are_refused_where_they_are_decoded(answer: Any, of: type) -> None:
    with pytest.raises(BadAnswer):
        Response(200, {}, json.dumps(answer).encode()).decode(of)


def test_a_cost_is_a_number_that_the_ledger_can_hold() -> None:
    coins = tuple(c.Coin("uact", "9" * 23) for _ in range(20))
    info = m.DeploymentInfo(escrow_account=m.Escrow(m.EscrowState(transferred=coins)))
    assert 0 < info.spent_uact < 1 << 63
    assert m.DeploymentInfo().spent_uact == 0


@pytest.mark.parametrize("amount", ["50000001", "9" * 20, "-5"])
async def test_an_endpoint_cannot_have_the_account_locked_up_in_one_deposit(amount: str) -> None:
    liar = honest()
    liar["deployment/v1beta4/params"] = ok({"params": {"min_deposits": [{"denom": "uact", "amount": amount}]}})
    with pytest.raises(Unavailable, match="min_deposits"):
        await chain_of(Several(liar)).min_deposit_uact(most=50_000_000)
    assert await chain_of(Several(honest())).min_deposit_uact(most=50_000_000) == 500_000


async def test_bids_of_what_is_no_address_are_left_out() -> None:
    def bid(provider: str) -> object:
        price = {"denom": "uact", "amount": "9"}
        number = {"owner": KEY.address, "dseq": "7", "gseq": 1, "oseq": 1, "provider": provider}
        return {"bid": {"id": number, "state": "open", "price": price}}

    liar = honest() | {"bids/list": ok({"bids": [bid("../../x?y"), bid(""), bid(KEY.address)]})}
    assert [one.provider for one in await chain_of(Several(liar)).bids(7)] == [KEY.address]


def provider(host: str) -> Callable[[], Response]:
    return ok({"provider": {"owner": "p", "host_uri": f"https://{host}:8443"}})


def certificate(text: str) -> Callable[[], Response]:
    return ok({"certificates": [{"certificate": {"state": "valid", "cert": base64.b64encode(text.encode()).decode()}}]})


def lease(state: str) -> Callable[[], Response]:
    owner = {"owner": KEY.address, "dseq": "7", "gseq": 1, "oseq": 1, "provider": "p", "bseq": 0}
    return ok({"leases": [{"lease": {"id": owner, "state": state}}]})


async def test_an_endpoint_cannot_have_the_manifest_sent_to_somebody_else() -> None:
    """Address and certificate of a provider stand on chain: one that makes both up would get token and node."""
    true = honest() | {"providers/": provider("true"), "certificates/": certificate("true")}
    false = honest() | {"providers/": provider("false"), "certificates/": certificate("false")}
    for several in (Several(false, true, true), Several(true, false, true)):
        chain = chain_of(several)
        assert await chain.provider("p") == "https://true:8443"
        assert await chain.certificates("p") == ["true"]
    for several in (Several(false, true), Several(true, false)):
        for read in (chain_of(several).provider, chain_of(several).certificates):
            with pytest.raises(Unavailable, match="do not agree"):
                await read("p")
    assert await chain_of(Several(true)).provider("p") == "https://true:8443"


async def test_an_endpoint_alone_ends_no_lease() -> None:
    true, false = honest() | {"leases/": lease("active")}, honest() | {"leases/": lease("closed")}
    (shown,) = await chain_of(Several(false, true, true)).leases_agreed(7)
    assert shown.is_serving
    with pytest.raises(Unavailable, match="do not agree"):
        await chain_of(Several(false, true)).leases_agreed(7)
    (shown,) = await chain_of(Several(false, false)).leases_agreed(7)
    assert not shown.is_serving


def windows(least: str, most: str) -> Callable[[], Response]:
    return ok({"params": {"min_reclamation_window": least, "max_reclamation_window": most}})


@pytest.mark.parametrize(
    ("least", "most", "asked"),
    [("3600s", "2592000s", 5_000), ("7200s", "2592000s", 7_200), ("5000.5s", "9000s", 5_001), ("60s", "4000s", 4_000)],
)
async def test_the_notice_that_is_asked_for_is_within_the_chains_bounds(least: str, most: str, asked: int) -> None:
    chain = chain_of(Several(honest() | {"market/v1beta5/params": windows(least, most)}))
    assert await chain.notice_s(5_000) == asked


async def test_parameters_are_the_word_of_two_and_are_not_read_for_each_deployment() -> None:
    true = honest() | {"market/v1beta5/params": windows("7200s", "9000s")}
    false = honest() | {"market/v1beta5/params": windows("60s", "60s")}
    http = Several(false, true, true)
    chain = chain_of(http)
    assert [await chain.notice_s(3_600) for _ in range(3)] == [7_200] * 3
    assert len([path for _, path in http.asked if path.endswith("market/v1beta5/params")]) == 3
    with pytest.raises(Unavailable):
        await chain_of(Several(honest() | {"market/v1beta5/params": windows("soon", "9000s")})).notice_s(3_600)
