"""The REST surface of the chain, and what goes wrong at one of its nodes."""

import base64

import httpx2
import pytest
import trio

from tests.doubles.akash.account import manifest
from tests.doubles.akash.client import Client, leased
from tests.doubles.akash.genesis import GENESIS_S, VERSION
from tests.doubles.akash.messages import Coin, MintAct


def encoded(raw: bytes) -> dict[str, str]:
    return {"tx_bytes": base64.b64encode(raw).decode(), "mode": "BROADCAST_MODE_SYNC"}


INFO = "/akash/deployment/v1beta4/deployments/info"
LATEST = "/cosmos/base/tendermint/v1beta1/blocks/latest"


async def info(client: Client, dseq: int, node: int = 0) -> httpx2.Response:
    return await client.get(INFO, {"id.owner": client.owner.address, "id.dseq": str(dseq)}, node)


async def test_accounts_and_balances_are_strings(client: Client) -> None:
    owner = client.owner.address
    account = (await client.get(f"/cosmos/auth/v1beta1/accounts/{owner}")).json()["account"]
    assert account["pub_key"] is None
    assert account["sequence"] == "0"
    assert account["account_number"].isdigit()
    balances = (await client.get(f"/cosmos/bank/v1beta1/balances/{owner}")).json()["balances"]
    assert balances == [{"denom": "uact", "amount": "1000000000"}, {"denom": "uakt", "amount": "1000000000"}]
    unknown = await client.get("/cosmos/auth/v1beta1/accounts/akash1nobody")
    assert (unknown.status_code, unknown.json()["code"]) == (404, 5)
    await client.done(client.owner.create(1, VERSION))
    account = (await client.get(f"/cosmos/auth/v1beta1/accounts/{owner}")).json()["account"]
    assert base64.b64decode(account["pub_key"]["key"]) == client.owner.public_key


async def test_a_transaction_is_found_only_when_it_is_indexed(client: Client) -> None:
    sent = await client.broadcast(client.unordered(client.owner.create(1, VERSION)))
    assert (sent["code"], sent["height"]) == (0, "0")
    path = f"/cosmos/tx/v1beta1/txs/{sent['txhash']}"
    assert (await client.get(path)).status_code == 404
    client.double.make_blocks(1, 6.0)
    assert (await client.get(path)).status_code == 404
    client.double.make_blocks(1, 6.0)
    found = (await client.get(path)).json()["tx_response"]
    assert (found["code"], found["txhash"], found["height"]) == (0, sent["txhash"], "2")
    assert int(found["gas_used"]) > 0


async def test_a_refused_transaction_is_answered_200_with_its_code(client: Client) -> None:
    raw = client.unordered(client.owner.create(1, VERSION))
    await client.broadcast(raw)
    again = await client.broadcast(raw)
    assert (again["codespace"], again["code"]) == ("sdk", 19)
    bad = await client.broadcast(b"\xff")
    assert (bad["codespace"], bad["code"]) == ("sdk", 2)


async def test_a_simulation_answers_the_gas_or_the_messages_error(client: Client) -> None:
    raw = client.unordered(client.owner.create(1, VERSION), gas=0, fee=0)
    answer = await client.http.post(client.url + "/cosmos/tx/v1beta1/simulate", json=encoded(raw))
    assert int(answer.json()["gas_info"]["gas_used"]) > 100_000
    await client.done(client.owner.create(1, VERSION))
    raw = client.unordered(client.owner.create(1, VERSION), gas=0, fee=0)
    answer = await client.http.post(client.url + "/cosmos/tx/v1beta1/simulate", json=encoded(raw))
    assert answer.status_code == 500
    assert answer.json()["message"].startswith("failed to execute message; message index: 0: Deployment exists")


async def test_a_deployment_is_shown_as_the_chain_shows_it(client: Client) -> None:
    await client.done(client.owner.create(1, VERSION, window_s=3_600))
    found = (await info(client, 1)).json()
    assert found["deployment"] == {
        "id": {"owner": client.owner.address, "dseq": "1"},
        "state": "active",
        "hash": base64.b64encode(VERSION).decode(),
        "created_at": "2",
        "reclamation": {"min_window": "3600s"},
    }
    (unit,) = found["groups"][0]["group_spec"]["resources"]
    assert unit["price"] == {"denom": "uact", "amount": "100.000000000000000000"}
    assert unit["resource"]["memory"]["quantity"]["val"] == "2147483648"
    assert unit["resource"]["endpoints"] == [
        {"kind": "SHARED_HTTP", "sequence_number": 0},
        {"kind": "RANDOM_PORT", "sequence_number": 0},
    ]
    assert found["escrow_account"]["state"]["funds"] == [{"denom": "uact", "amount": "500000.000000000000000000"}]
    missing = await info(client, 2)
    assert (missing.status_code, missing.json()["code"]) == (404, 5)


async def test_lists_have_pages_by_key_or_by_offset(client: Client) -> None:
    await client.done(*(client.owner.create(dseq, VERSION) for dseq in range(1, 6)), gas=5_000_000)
    path = "/akash/deployment/v1beta4/deployments/list"
    query = {"filters.owner": client.owner.address, "pagination.limit": "2"}
    seen, key = [], ""
    while True:
        found = (await client.get(path, query | ({"pagination.key": key} if key else {}))).json()
        seen += [row["deployment"]["id"]["dseq"] for row in found["deployments"]]
        key = found["pagination"]["next_key"]
        if key is None:
            break
    assert seen == ["1", "2", "3", "4", "5"]
    assert (await client.get(path, query | {"pagination.offset": "2"})).status_code == 400
    offset = await client.get(path, query | {"pagination.offset": "2", "filters.state": "active"})
    assert [row["deployment"]["id"]["dseq"] for row in offset.json()["deployments"]] == ["3", "4"]
    both = {"pagination.offset": "2", "pagination.key": "Mg==", "filters.state": "active"}
    assert (await client.get(path, query | both)).status_code == 400


async def test_a_lease_is_shown_with_its_payment(client: Client) -> None:
    provider, _ = await leased(client, 7, manifest())
    query = {"filters.owner": client.owner.address, "filters.state": "active"}
    (row,) = (await client.get("/akash/market/v1beta5/leases/list", query)).json()["leases"]
    assert row["lease"]["id"]["provider"] == row["escrow_payment"]["state"]["owner"] == provider
    assert row["lease"]["reason"] == "lease_closed_invalid"
    assert row["lease"]["price"] == row["escrow_payment"]["state"]["rate"]
    lost = await client.get("/akash/market/v1beta5/bids/list", query | {"filters.state": "lost"})
    assert len(lost.json()["bids"]) == 2


async def test_mints_are_followed_by_their_own_record(client: Client) -> None:
    owner = client.owner.address
    await client.done(MintAct(owner, owner, Coin("uakt", "10000000")))
    query = {"filters.source": owner, "filters.status": "ledger_record_status_pending"}
    (row,) = (await client.get("/akash/bme/v1/ledger", query)).json()["records"]
    assert row["id"]["source"] == owner
    client.double.make_blocks(10, 6.0)
    assert (await client.get("/akash/bme/v1/ledger", query)).json()["records"] == []
    query["filters.status"] = "ledger_record_status_executed"
    (executed,) = (await client.get("/akash/bme/v1/ledger", query)).json()["records"]
    assert executed["id"] == row["id"]


@pytest.mark.parametrize("path", ["/akash/deployment/v1beta5/params", "/akash/market/v2beta1/params"])
async def test_other_versions_are_not_implemented(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (501, 12)


async def test_a_stale_node_answers_from_the_past_and_loses_what_is_sent_to_it(client: Client) -> None:
    client.double.faults.nodes[1].stale = True
    assert (await client.get(LATEST, node=1)).json()["block"]["header"]["height"] == "1"
    await client.done(client.owner.create(1, VERSION))
    assert (await info(client, 1)).status_code == 200
    assert (await info(client, 1, node=1)).status_code == 404
    assert (await client.get(LATEST, node=1)).json()["block"]["header"]["height"] == "1"
    lost = await client.broadcast(client.unordered(client.owner.close(1)), node=1)
    assert lost["code"] == 0
    client.double.make_blocks(2, 6.0)
    assert (await client.get(f"/cosmos/tx/v1beta1/txs/{lost['txhash']}")).status_code == 404
    client.double.faults.nodes[1].stale = False
    assert (await info(client, 1, node=1)).status_code == 200


async def test_a_broadcast_may_take_effect_and_be_answered_500_or_never(client: Client) -> None:
    client.double.faults.nodes[0].broadcast_then_500 = 1
    raw = client.unordered(client.owner.create(1, VERSION))
    answer = await client.http.post(client.url + "/cosmos/tx/v1beta1/txs", json=encoded(raw))
    assert answer.status_code == 500
    client.double.faults.nodes[0].broadcast_then_hang = 1
    raw = client.unordered(client.owner.create(2, VERSION))
    with trio.move_on_after(0.2) as waited:
        await client.http.post(client.url + "/cosmos/tx/v1beta1/txs", json=encoded(raw))
    assert waited.cancelled_caught
    client.double.make_blocks(2, 6.0)
    assert {(await info(client, dseq)).status_code for dseq in (1, 2)} == {200}


async def test_a_second_writer_takes_the_sequence_first(client: Client) -> None:
    client.double.faults.chain.second_writer = 1
    row = client.double.chain.state.accounts.get(client.owner.address)
    assert row
    create = client.owner.create(1, VERSION)
    raw = client.owner.sign(create, number=row.number, sequence=0)
    refused = await client.broadcast(raw)
    assert refused["code"] == 32
    assert "expected 1, got 0" in refused["raw_log"]
    assert (await client.broadcast(client.owner.sign(create, number=row.number, sequence=1)))["code"] == 0


async def test_a_chain_may_refuse_unordered_transactions(client: Client) -> None:
    client.double.faults.nodes[0].no_unordered = True
    assert (await client.broadcast(client.unordered(client.owner.create(1, VERSION))))["code"] == 18


async def test_a_node_that_is_down_cuts_connections(client: Client) -> None:
    client.double.faults.nodes[0].down = True
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.get(LATEST)
    assert (await client.get(LATEST, node=1)).status_code == 200


async def test_the_control_endpoint_sets_faults_coins_and_time(client: Client) -> None:
    control = client.double.control_url
    sent = {"chain": {"no_blocks": True}, "nodes": {"1": {"down": True}}, "providers": {"ada": {"slow_s": 2}}}
    answer = await client.http.post(control + "/faults", json=sent)
    assert answer.status_code == 200
    assert client.double.faults.chain.no_blocks
    assert client.double.faults.nodes[1].down
    assert client.double.faults.providers["ada"].slow_s == 2
    await client.http.post(control + "/fund", json={"address": client.owner.address, "uact": 5})
    await client.http.post(control + "/drain", json={"address": client.owner.address, "denom": "uakt"})
    balances = (await client.get(f"/cosmos/bank/v1beta1/balances/{client.owner.address}")).json()["balances"]
    assert balances == [{"denom": "uact", "amount": "1000000005"}]
    state = await client.http.post(control + "/blocks", json={"count": 3, "step_s": 10})
    assert state.json()["chain"]["height"] == 4
    assert state.json()["chain"]["time_s"] == GENESIS_S + 30
    for path, wrong in (("/faults", {"chain": {"nonsense": 1}}), ("/nowhere", {}), ("/faults", {"nodes": {"9": {}}})):
        answer = await client.http.post(control + path, json=wrong)
        assert answer.status_code == 400, (path, answer.text)


async def test_gas_may_run_out_although_it_was_simulated(client: Client) -> None:
    client.double.faults.chain.out_of_gas = 1
    found = await client.done(client.owner.create(1, VERSION), gas=300_000)
    assert (found["codespace"], found["code"]) == ("sdk", 11)
    assert int(found["gas_used"]) > int(found["gas_wanted"])
    assert (await client.done(client.owner.create(1, VERSION)))["code"] == 0


async def test_a_node_may_answer_what_no_one_wants_to_read(client: Client) -> None:
    client.double.faults.nodes[0].garbage = 1
    assert (await client.get(LATEST)).text.startswith("<html>")
    client.double.faults.nodes[0].huge = 1
    assert len((await client.get(LATEST)).content) > 32 * 1024**2
    assert (await client.get(LATEST)).status_code == 200
