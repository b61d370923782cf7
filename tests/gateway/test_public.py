"""What anybody may ask, the operator's listener, and the document that describes it all."""

import json
import re
from typing import Any

import jsonschema
import pytest
import trio

from engram.api.gateway import ROUTES, openapi_document
from engram.api.route import Route
from engram.gateway import probes, public
from engram.gateway.public import readiness
from engram.hotkeys import Keypair
from engram.sessions import SessionEvent
from tests.chain import samples
from tests.gateway.surface import running_gateway
from tests.gateway.test_purchases import assert_error


async def test_public_answers_have_the_originals_fields() -> None:
    async with running_gateway() as gateway:
        assert (await gateway.client.get(gateway.url + "/health")).json() == {
            "status": "ok",
            "service": "engram-cloud-gateway",
        }
        tiers = (await gateway.client.get(gateway.url + "/tiers")).json()["tiers"]
        original = [
            {name: tier[name] for name in ("tier", "cpu_vcpu", "memory_gb", "storage_gb", "price_akt_per_hour")}
            for tier in tiers
        ]
        assert original == [
            {"tier": "lite", "cpu_vcpu": 1, "memory_gb": 2, "storage_gb": 10, "price_akt_per_hour": 0.05},
            {"tier": "standard", "cpu_vcpu": 2, "memory_gb": 4, "storage_gb": 20, "price_akt_per_hour": 0.1},
            {"tier": "pro", "cpu_vcpu": 4, "memory_gb": 8, "storage_gb": 40, "price_akt_per_hour": 0.18},
        ]
        assert all(tier["price_usd_per_hour"] == tier["price_akt_per_hour"] * 2 for tier in tiers)
        nodes = (await gateway.client.get(gateway.url + "/nodes")).json()
        ours = {"not_enforced", "backends", "price_usd_per_hour", "longest_start_s"}
        assert nodes.keys() == {"note", "akash_network", "available"} | ours
        assert nodes["price_usd_per_hour"] == {"lite": 0.1, "standard": 0.2, "pro": 0.36}
        assert nodes["not_enforced"] == ["cpu"]
        note = "Nodes run as processes on the gateway's own machine."
        assert nodes["note"] == note
        assert nodes["backends"] == [
            {"name": "local", "answers": True, "places": 10, "free": 10, "note": note, "not_enforced": ["cpu"]}
        ]
        assert nodes["akash_network"] == "akashnet-2"
        assert nodes["available"] is True


async def test_nodes_says_when_a_place_comes_free_and_how_long_starts_take_here() -> None:
    async def nodes() -> dict[str, Any]:
        gateway.clock.advance(public.STARTS_KEPT_S)
        shown: dict[str, Any] = (await gateway.client.get(gateway.url + "/nodes")).json()
        return shown

    async with running_gateway(places=2) as gateway:
        assert (await nodes()).keys().isdisjoint({"usual_start_s", "free_at"})
        took = []
        for hours, start_s in ((2.0, 40.0), (1.0, 60.0)):
            session_id = (await gateway.buy(hours=hours))["session_id"]
            gateway.clock.advance(start_s)
            await gateway.happen(session_id, SessionEvent.NODE_READY)
            took.append(start_s)
            assert (await nodes())["usual_start_s"] == pytest.approx(sum(took) / len(took), abs=0.1)
        active_at = gateway.clock.now() - public.STARTS_KEPT_S
        full = await nodes()
        assert [reason["code"] for reason in full["cannot_sell"]] == ["no_capacity"]
        assert full["free_at"] == pytest.approx(active_at + 3_600, abs=0.1)
        await gateway.happen(session_id, SessionEvent.DEGRADE)
        gateway.clock.advance(500)
        await gateway.happen(session_id, SessionEvent.RECOVER)  # which is no start
        assert (await nodes())["usual_start_s"] == pytest.approx(50.0, abs=0.1)


async def test_what_is_shown_is_what_is_charged() -> None:
    async with running_gateway(pricing={"lite_usd_per_hour": 0.25}) as gateway:
        for tier in (await gateway.client.get(gateway.url + "/tiers")).json()["tiers"]:
            asked = await gateway.ask("POST", "/sessions", {"tier": tier["tier"], "duration_hours": 24})
            assert asked.json()["amount_usd"] == pytest.approx(tier["price_akt_per_hour"] * 24 * 2)


async def test_terms_say_when_money_comes_back() -> None:
    async with running_gateway() as gateway:
        terms = (await gateway.client.get(gateway.url + "/terms")).json()
        assert terms["payment_flow"] == "upfront"
        assert "sent back" in terms["refunds"]
        assert "not refunded" in terms["early_stop"]


async def test_a_subnet_that_is_not_synced_is_a_404_with_those_that_are() -> None:
    async with running_gateway() as gateway:
        missing = await gateway.client.get(gateway.url + "/bittensor/metagraph?netuid=3")
        body = assert_error(missing, 404, code="netuid_not_synced")
        assert body["synced"] == []
        for bad in ("abc", "-1", "70000", "1e3", "%00", "٣", "1" * 5000):
            assert_error(await gateway.client.get(gateway.url + f"/bittensor/metagraph?netuid={bad}"), 400)
        assert_error(await gateway.client.get(gateway.url + "/bittensor/metagraph?fields=nothing"), 400)


async def test_a_synced_subnet_is_shown_with_the_originals_fields() -> None:
    async with running_gateway() as gateway:
        gateway.services.subnets.publish(samples.read(samples.scale(), head=samples.recorded_head()), [])
        shown = await gateway.client.get(gateway.url + "/bittensor/metagraph?netuid=450")
        body = shown.json()
        assert body.keys() == {"network", "block", "netuid", "note", "neurons"}
        assert body["netuid"] == 450
        assert isinstance(body["block"], int)
        assert body["neurons"]
        assert (await gateway.client.get(gateway.url + "/bittensor/metagraph")).json() == body
        same = await gateway.client.get(
            gateway.url + "/bittensor/metagraph", headers={"If-None-Match": shown.headers["ETag"]}
        )
        assert (same.status_code, same.content) == (304, b"")
        assert {"content-length", "content-type", "transfer-encoding"}.isdisjoint(same.headers)
        assert (same.headers["ETag"], same.headers["Cache-Control"]) == (shown.headers["ETag"], "max-age=6")
        ready = await gateway.client.get(gateway.url + "/ready")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        assert "engram_chain_block" in (await gateway.client.get(gateway.ops_url + "/metrics")).text


async def test_parts_that_sales_depend_on_are_named_when_they_do_not_run() -> None:
    assert await probes.parts_probe(lambda: ["payments", "fleet"])() == "payments, fleet"
    assert await probes.parts_probe(list)() == ""


async def test_a_probe_that_hangs_counts_as_unwell(autojump_clock: object) -> None:
    checks = await readiness({"slow": trio.sleep_forever, "well": probes.parts_probe(list)})
    assert checks == {"slow": "no answer in time", "well": ""}


async def test_readiness_names_what_is_wrong() -> None:
    async with running_gateway() as gateway:
        ready = await gateway.client.get(gateway.url + "/ready")
        assert ready.status_code == 503
        assert ready.headers["Retry-After"]
        assert ready.json() == {"ready": False, "checks": {"ledger": "", "chain": "no subnet has been read yet"}}
        gateway.ledger.close()
        assert "closed" in (await gateway.client.get(gateway.url + "/ready")).json()["checks"]["ledger"]


async def test_the_operators_listener_tells_status_and_metrics_and_the_public_one_does_not() -> None:
    async with running_gateway() as gateway:
        session_id = (await gateway.buy())["session_id"]
        status = (await gateway.client.get(gateway.ops_url + "/status")).json()
        assert status["selling"] is True
        assert status["sessions"] == {"provisioning": 1}
        assert status["payments"] == {"settled": 1}
        assert "root/payments/payment_verifier" in [node["path"] for node in status["tree"]]
        assert status["libraries"]["trio"]
        metrics = await gateway.client.get(gateway.ops_url + "/metrics")
        assert metrics.headers["Content-Type"].startswith("text/plain")
        assert 'engram_sessions{state="provisioning"} 1.0' in metrics.text
        assert session_id not in metrics.text
        assert (await gateway.client.get(gateway.ops_url + "/health")).status_code == 200
        for path in ("/status", "/metrics"):
            assert (await gateway.client.get(gateway.url + path)).status_code == 404
        assert (await gateway.client.get(gateway.ops_url + "/sessions/x")).status_code == 404


async def test_unknown_paths_and_methods_are_errors_of_the_usual_form() -> None:
    async with running_gateway() as gateway:
        assert_error(await gateway.client.get(gateway.url + "/nothing"), 404)
        assert_error(await gateway.client.put(gateway.url + "/sessions"), 405)
        assert_error(await gateway.client.post(gateway.url + "/sessions", content=b"x" * 300_000), 413)


async def test_browsers_may_read_what_they_need() -> None:
    async with running_gateway(http={"cors_origins": ["https://app.example"]}) as gateway:
        asked = await gateway.ask("POST", "/sessions", {}, headers={"Origin": "https://app.example"})
        exposed = asked.headers["Access-Control-Expose-Headers"].lower()
        for name in ("PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "X-Gateway-Sig", "X-Gateway-Hotkey", "Retry-After"):
            assert name.lower() in exposed


async def test_every_route_is_in_the_document_and_nothing_else() -> None:
    async with running_gateway() as gateway:
        routes = {
            (method.lower(), re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule))
            for rule in gateway.public.url_map.iter_rules()
            if not rule.rule.startswith("/app")  # files, which are no part of the API
            for method in rule.methods - {"HEAD", "OPTIONS"}
        }
        fast = {("get", "/health"), ("get", "/ready")}
        document = (await gateway.client.get(gateway.url + "/openapi.json")).json()
        described = {(method, path) for path, methods in document["paths"].items() for method in methods}
        assert described == routes | fast
        assert document["openapi"] == "3.1.0"


def _schema(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"components": document["components"]}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.id)
def test_every_example_is_what_its_schema_says(route: Route[Any, Any]) -> None:
    document: dict[str, Any] = json.loads(openapi_document())
    described = document["paths"][route.plain_path][route.method.lower()]
    bodies = [described["requestBody"]] if "requestBody" in described else []
    for each in [*bodies, *described["responses"].values()]:
        content = each.get("content", {}).get("application/json")
        if content is not None:
            jsonschema.Draft202012Validator(_schema(document, content["schema"])).validate(content["example"])


async def test_real_answers_are_what_the_document_says() -> None:
    async with running_gateway() as gateway:
        document = (await gateway.client.get(gateway.url + "/openapi.json")).json()
        session = await gateway.buy()
        session_id, payment_id = session["session_id"], session["payment_id"]
        asks = [
            ("get", "/tiers", {}),
            ("get", "/nodes", {}),
            ("get", "/identity", {}),
            ("get", "/terms", {}),
            ("get", "/ready", {}),
            ("get", "/bittensor/metagraph", {}),
            ("post", "/sessions", {}),
            ("get", "/sessions/{session_id}", {"session_id": session_id}),
            ("get", "/sessions/{session_id}", {"session_id": "none"}),
            ("get", "/sessions/hotkey/{hotkey}", {"hotkey": Keypair.generate().ss58}),
            ("post", "/sessions/{session_id}/ticket", {"session_id": session_id}),
            ("post", "/sessions/{session_id}/extend", {"session_id": session_id}),
            ("get", "/payments/{payment_id}", {"payment_id": payment_id}),
            ("delete", "/sessions/{session_id}", {"session_id": session_id}),
        ]
        for method, template, parts in asks:
            answer = await gateway.ask(method.upper(), template.format(**parts), {} if method == "post" else None)
            responses = document["paths"][template][method]["responses"]
            schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
            jsonschema.Draft202012Validator(_schema(document, schema)).validate(answer.json())
