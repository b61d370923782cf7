"""Providers: what they bid for, what they check, how they leave, and what goes wrong with them."""

import json
import ssl
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
import trio.testing
from msgspec.structs import replace
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from tests.doubles.akash import manifests, market
from tests.doubles.akash.account import Account, manifest, spec
from tests.doubles.akash.client import Client, leased, pinned
from tests.doubles.akash.double import Options, running
from tests.doubles.akash.genesis import VERSION
from tests.doubles.akash.provider import Provider, Tenancy
from tests.doubles.akash.workloads import TOKEN_VARIABLE

DSEQ = 7


async def bids(client: Client, **given: Any) -> set[str]:
    """Names of the providers that bid for such a deployment."""
    await client.done(client.owner.create(DSEQ, VERSION, **given))
    client.double.make_blocks(3, 6.0)
    found = [bid.provider for bid in client.double.chain.state.bids.values() if bid.dseq == DSEQ]
    return {name for name, each in client.double.providers.items() if each.address in found}


def holder(client: Client, address: str) -> Provider:
    return next(each for each in client.double.providers.values() if each.address == address)


def tenancy(client: Client, address: str) -> Tenancy:
    found = holder(client, address).tenancy(client.owner.address, DSEQ)
    assert found
    return found


# ------------------------------------------------------------------------------------------------------ bidding


async def test_a_lite_node_costs_what_the_default_script_asks(client: Client) -> None:
    """8.65 uact for a block, with two endpoints and a root volume."""
    await bids(client)
    prices = sorted(bid.price / 10**18 for bid in client.double.chain.state.bids.values())
    assert prices[0] == pytest.approx(8.653, abs=0.001)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, {"ada", "brunel", "curie"}),
        ({"groups": (spec(price=9),)}, {"ada"}),
        ({"groups": (spec(attributes=(("region", "us-west"),)),)}, {"ada", "curie"}),
        ({"groups": (spec(any_of=("akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63",)),)}, {"ada", "brunel", "curie"}),
        ({"groups": (spec(any_of=("akash18qa2a2ltfyvkyj0ggj3hkvuj6twzyumuaru9s4",)),)}, set()),
        ({"window_s": 3_600}, {"ada", "brunel"}),
    ],
)
async def test_providers_bid_for_what_they_can_hold(client: Client, given: dict[str, Any], names: set[str]) -> None:
    assert await bids(client, **given) == names


async def test_a_provider_that_is_told_not_to_bid_does_not(client: Client) -> None:
    client.double.faults.providers["ada"].no_bids = True
    assert await bids(client) == {"brunel", "curie"}


async def test_open_bids_are_withdrawn_after_five_minutes(client: Client) -> None:
    await bids(client)
    client.double.make_blocks(52, 6.0)
    assert {bid.state for bid in client.double.chain.state.bids.values()} == {"closed"}


# ------------------------------------------------------------------------------------------------------ manifests


async def put(client: Client, provider: str, url: str, document: Any, **leases: Any) -> httpx2.Response:
    async with await pinned(client, provider) as gateway:
        return await gateway.put(f"{url}/deployment/{DSEQ}/manifest", json=document, headers=client.bearer(**leases))


async def test_a_lease_that_the_provider_has_not_seen_is_404_at_first(client: Client) -> None:
    await client.done(client.owner.create(DSEQ, manifests.version(manifest())))
    client.double.make_blocks(2, 6.0)
    provider = client.double.providers["ada"]
    raw = client.unordered(client.owner.lease(DSEQ, provider.address))
    await client.broadcast(raw)
    client.double.make_blocks(1, 6.0)
    answer = await put(client, provider.address, provider.host_uri, manifest())
    assert (answer.status_code, answer.text) == (404, "no lease for deployment\n")
    client.double.make_blocks(1, 6.0)
    assert (await put(client, provider.address, provider.host_uri, manifest())).status_code == 200


async def test_a_manifest_of_another_version_is_422(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    answer = await put(client, provider, url, manifest({"OTHER": "x"}))
    assert (answer.status_code, answer.text) == (422, "manifest version validation failed\n")


def wrong_manifests() -> list[tuple[str, Any]]:
    service: dict[str, Any]
    rows = []
    for reason, change in (
        ("service name 'Miner' is invalid", lambda service: service.update(name="Miner")),
        ("env var '1A' is invalid", lambda service: service.update(env=["1A=b", "=", "x"])),
        ("expose is not sorted", lambda service: service["expose"].reverse()),
        ("zero global services", lambda service: [each.update({"global": False}) for each in service["expose"]]),
        ("resources differ", lambda service: service["resources"]["cpu"]["units"].update(val="2000")),
        ("no resource 2", lambda service: service["resources"].update(id=2)),
        ("overutilized", lambda service: service.update(count=2)),
        ("has no image", lambda service: service.update(image="")),
    ):
        document = manifest()
        (service,) = document[0]["services"]
        change(service)
        rows.append((reason, document))
    return [*rows, ("group names differ", manifest(name="other")), ("cannot unmarshal", {"name": "x"})]


@pytest.mark.parametrize(("reason", "document"), wrong_manifests(), ids=[row[0] for row in wrong_manifests()])
async def test_a_manifest_that_does_not_fit_is_refused_with_its_reason(reason: str, document: Any) -> None:
    with pytest.raises(manifests.Invalid, match=reason):
        manifests.check(json.dumps(document).encode(), manifests.version(document), [spec()])


async def test_what_is_no_json_is_422_and_what_is_not_there_is_404(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    async with await pinned(client, provider) as gateway:
        headers = client.bearer()
        broken = await gateway.put(f"{url}/deployment/{DSEQ}/manifest", content=b"{", headers=headers)
        assert broken.status_code == 422
        for path in ("/nowhere", f"/lease/{DSEQ}/1/2/status", f"/lease/{DSEQ}/1/1/status"):
            assert (await gateway.get(url + path, headers=headers)).status_code == 404
        assert (await gateway.get(url + "/address")).json() == {"address": provider}
        assert (await gateway.get(url + "/status")).json()["cluster"] == {"leases": 1}
        assert (await gateway.get(url + "/version")).status_code == 200


# ------------------------------------------------------------------------------------------------ authentication


async def test_a_scope_opens_its_own_routes(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    answer = await put(client, provider, url, manifest(), access="scoped", scope=["status"])
    assert (answer.status_code, answer.json()) == (401, {"message": "unauthorized access"})
    granted = {"provider": provider, "access": "scoped", "scope": ["send-manifest"]}
    assert (await put(client, provider, url, manifest(), access="granular", permissions=[granted])).status_code == 200


async def test_without_a_token_and_with_one_of_yesterday_there_is_401(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    yesterday = client.owner.token(client.owner.claims(client.double.now() - 86_400))
    async with await pinned(client, provider) as gateway:
        for headers in ({}, {"Authorization": f"Bearer {yesterday}"}, {"Authorization": "Bearer x.y.z"}):
            answer = await gateway.get(f"{url}/lease/{DSEQ}/1/1/status", headers=headers)
            assert answer.status_code == 401
            assert list(answer.json()) == ["message"]


async def test_the_lease_of_another_owner_is_not_there(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    other = Account(b"other")
    client.double.chain.fund(other.address, uakt=10**9)
    row = client.double.chain.state.accounts.get(other.address)
    assert row
    raw = other.sign(other.close(1), number=row.number)
    await client.broadcast(raw)
    client.double.make_blocks(1, 6.0)
    token = other.token(other.claims(client.double.now()))
    async with await pinned(client, provider) as gateway:
        answer = await gateway.get(f"{url}/lease/{DSEQ}/1/1/status", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 404


# ------------------------------------------------------------------------------------------------------- workloads


async def served(client: Client, provider: str, url: str) -> None:
    """Send the manifest and wait until its workload is ready."""
    assert (await put(client, provider, url, manifest())).status_code == 200
    with trio.fail_after(5):
        await holder(client, provider).ready(tenancy(client, provider))


async def status(client: Client, provider: str, url: str) -> httpx2.Response:
    async with await pinned(client, provider) as gateway:
        return await gateway.get(f"{url}/lease/{DSEQ}/1/1/status", headers=client.bearer())


async def test_the_status_has_nulls_until_the_workload_is_ready(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    holder(client, provider).faults.never_ready = True
    await put(client, provider, url, manifest())
    found = (await status(client, provider, url)).json()
    assert found["services"]["miner"]["available"] == 0
    assert found["services"]["miner"]["uris"] is None
    assert found["forwarded_ports"] is None
    assert found["ips"] is None


async def test_the_same_manifest_again_starts_nothing_twice(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    await served(client, provider, url)
    before = tenancy(client, provider).workload
    await put(client, provider, url, manifest())
    await served(client, provider, url)
    assert tenancy(client, provider).workload is before


async def test_a_lease_without_a_manifest_is_left_after_five_minutes(client: Client) -> None:
    await leased_at(client, "curie")
    client.double.make_blocks(53, 6.0)
    assert lease_of(client).reason == "lease_closed_reason_manifest_timeout"


async def leased_at(client: Client, name: str) -> Provider:
    provider = client.double.providers[name]
    await client.done(client.owner.create(DSEQ, manifests.version(manifest())))
    client.double.make_blocks(2, 6.0)
    await client.done(client.owner.lease(DSEQ, provider.address))
    return provider


def lease_of(client: Client) -> Any:
    (row,) = client.double.chain.state.leases.values()
    return row


async def test_a_workload_that_is_never_ready_ends_its_lease_as_unstable(client: Client) -> None:
    """akash-network/node#1676: the group is paused, the deployment stays active with its deposit."""
    provider = await leased_at(client, "curie")
    provider.faults.never_ready = True
    await put(client, provider.address, provider.host_uri, manifest())
    client.double.make_blocks(80, 6.0)
    assert (lease_of(client).state, lease_of(client).reason) == ("closed", market.UNSTABLE)
    group = client.double.chain.state.groups.get((client.owner.address, DSEQ, 1))
    assert group
    assert group.state == "paused"
    state = (await client.http.get(client.double.control_url + "/state")).json()["chain"]
    assert state["active_without_lease"] == 1


async def test_a_provider_that_promised_notice_gives_it_before_it_leaves(client: Client) -> None:
    provider = await leased_at(client, "ada")
    await served(client, provider.address, provider.host_uri)
    await client.http.post(client.double.control_url + "/leave", json={"provider": "ada", "reason": "decommission"})
    client.double.make_blocks(2, 6.0)
    assert lease_of(client).state == "reclaiming"
    assert (await status(client, provider.address, provider.host_uri)).json()["services"]["miner"]["available"] == 1
    client.double.make_blocks(1, 86_400.0)
    client.double.make_blocks(2, 6.0)
    assert (lease_of(client).state, lease_of(client).reason) == ("closed", "lease_closed_reason_decommission")


async def test_a_workload_stops_when_its_lease_ends(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    await served(client, provider, url)
    workload = tenancy(client, provider).workload
    assert workload
    await client.done(client.owner.close(DSEQ))
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(httpx2.ConnectError):
        await client.http.get(f"http://127.0.0.1:{workload.port}/health")


async def test_a_provider_notices_that_nothing_is_left_when_it_withdraws(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    await served(client, provider, url)
    blocks = 500_000 * 10**18 // lease_of(client).price
    client.double.chain.state.height += blocks
    client.double.make_blocks(12, 6.0)
    assert lease_of(client).state == "insufficient_funds"
    info = await client.get(
        "/akash/deployment/v1beta4/deployments/info",
        {"id.owner": client.owner.address, "id.dseq": str(DSEQ)},
    )
    (funds,) = info.json()["escrow_account"]["state"]["funds"]
    assert funds["amount"].startswith("-")
    assert info.json()["escrow_account"]["state"]["state"] == "overdrawn"


async def test_a_dead_provider_cuts_connections_and_a_lost_workload_leaves_an_empty_status(client: Client) -> None:
    """akash-network/support#121: the lease is active, the workload is gone."""
    provider, url = await leased(client, DSEQ, manifest())
    await served(client, provider, url)
    holder(client, provider).faults.loses_workloads = True
    assert (await status(client, provider, url)).json() == {"services": {}, "forwarded_ports": None, "ips": None}
    holder(client, provider).faults.dead = True
    with pytest.raises(httpx2.RemoteProtocolError):
        await status(client, provider, url)
    assert lease_of(client).state == "active"


async def test_a_provider_that_ignores_a_manifest_answers_200_and_knows_nothing(client: Client) -> None:
    """akash-network/console#3372: an empty 200 is not ready."""
    provider, url = await leased(client, DSEQ, manifest())
    holder(client, provider).faults.ignores_manifest = True
    assert (await put(client, provider, url, manifest())).status_code == 200
    assert (await status(client, provider, url)).status_code == 404


async def test_logs_come_as_frames_and_end(client: Client) -> None:

    provider, url = await leased(client, DSEQ, manifest())
    await served(client, provider, url)
    context = ssl.create_default_context(cadata=holder(client, provider).certificate.pem.decode())
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    port = int(url.rpartition(":")[2])
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context, https_compatible=True)
    wire = WSConnection(ConnectionType.CLIENT)
    headers = [(name.encode(), value.encode()) for name, value in client.bearer().items()]
    target = f"/lease/{DSEQ}/1/1/logs?service=miner&follow=false&tail=10"
    await stream.send_all(wire.send(Request(host="provider", target=target, extra_headers=headers)))
    seen: list[Any] = []
    with trio.fail_after(5):
        while not any(isinstance(event, CloseConnection) for event in seen):
            wire.receive_data(bytes(await stream.receive_some(4096)))
            seen += wire.events()
    assert isinstance(seen[0], AcceptConnection)
    (line,) = [json.loads(event.data) for event in seen if isinstance(event, TextMessage)]
    assert line["message"] == "stub: listening"
    await trio.aclose_forcefully(stream)


async def test_a_provider_may_answer_in_the_nodes_place(certificates: Path) -> None:
    """It knows the launch token, which stands in the manifest; it has no key of the node."""
    owner = Account()
    options = Options(block_s=0, funded=(owner.address,), stub_nodes=False, certificates=str(certificates))
    async with running(options) as double, httpx2.AsyncClient(timeout=10) as http:
        client = Client(double, owner, http)
        double.faults.providers["ada"].answers_itself = True
        document = manifest({TOKEN_VARIABLE: "abc-1"})
        provider, url = await leased(client, DSEQ, document)
        assert (await put(client, provider, url, document)).status_code == 200
        found = tenancy(client, provider)
        with trio.fail_after(5):
            await holder(client, provider).ready(found)
        assert found.workload
        health = await http.get(f"http://127.0.0.1:{found.workload.port}/health")
        assert health.json()["launch_token"] == "abc-1"


async def test_a_provider_may_let_a_workload_run_on_after_its_lease(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    await served(client, provider, url)
    holder(client, provider).faults.keeps_running = True
    workload = tenancy(client, provider).workload
    assert workload
    await client.done(client.owner.close(DSEQ))
    await trio.testing.wait_all_tasks_blocked()
    assert await workload.is_ready()
    (left,) = holder(client, provider).left_running
    assert left is workload


async def test_a_manifest_that_comes_twice_while_the_image_is_pulled_starts_one_workload(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    found = holder(client, provider)
    found.script = replace(found.script, pull_s=0.2)
    for _ in range(3):
        assert (await put(client, provider, url, manifest())).status_code == 200
    with trio.fail_after(5):
        await found.ready(tenancy(client, provider))
    await trio.sleep(0.3)
    workload = tenancy(client, provider).workload
    assert workload
    assert workload.starts == 1


async def test_a_provider_may_have_a_new_certificate_and_send_on_elsewhere(client: Client) -> None:
    provider, url = await leased(client, DSEQ, manifest())
    name = holder(client, provider).script.name
    async with await pinned(client, provider) as gateway:
        await client.http.post(client.double.control_url + "/rotate", json={"provider": name})
        with pytest.raises(httpx2.ConnectError):
            await gateway.get(f"{url}/address")
    async with await pinned(client, provider) as gateway:
        assert (await gateway.get(f"{url}/address")).status_code == 200
        holder(client, provider).faults.redirects = "http://169.254.169.254/"
        answer = await gateway.get(f"{url}/address")
        assert (answer.status_code, answer.headers["location"]) == (307, "http://169.254.169.254/")
