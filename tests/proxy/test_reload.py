"""New settings: nothing that runs is cut, counters and health survive, and a bad file changes nothing."""

from contextlib import AsyncExitStack

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from config.errors import ConfigError
from engram.http.dialling import Pools
from engram.http.errors import NotSent
from engram.proxy.backends.group import Group
from engram.proxy.planning import read_at_start
from engram.proxy.reloading import Reloading
from engram.proxy.settings.model import BackendSettings, LimitSettings, ProxySettings, RouteSettings
from engram.proxy.settings.reading import Loaded
from tests.proxy.backends import answer, backend
from tests.proxy.harness import calling, change, proxying, settings_for
from tests.proxy.signing import raw, signed

OPEN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"


async def test_open_streams_outlive_reloads_that_touch_other_things() -> None:
    streams = 100
    async with backend(OPEN, "wait", b"3\r\ntwo\r\n0\r\n\r\n") as servers:
        settings = change(settings_for(servers.port), "server", max_connections_per_address=0)
        settings = change(settings, "limits", concurrent_per_key=200)
        async with proxying(settings) as proxied, trio.open_nursery() as nursery:
            whole: list[bytes] = []

            async def read(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                async with calling(proxied) as client:
                    await client.send(signed("/inference"))
                    await client.read_until(b"one\r\n")
                    task_status.started()
                    whole.append(await client.read_until(b"0\r\n\r\n"))

            for _ in range(streams):
                await nursery.start(read)
            for number in range(50):
                extra = RouteSettings(path=f"/x{number}", backend="other")
                other = BackendSettings(urls=(f"http://127.0.0.1:{number + 1}",))
                changed = change(settings, "limits", queue=number)
                await proxied.reload(
                    msgspec.structs.replace(
                        changed,
                        routes=(*settings.routes, extra),
                        backends={**settings.backends, "other": other},
                    )
                )
            assert proxied.state.admission.places.taken == streams
            servers.go_on.set()
            with trio.fail_after(10):
                while len(whole) < streams:
                    await trio.lowlevel.checkpoint()
            await proxied.ended(streams)
            assert {ended.code for ended in proxied.ends} == {"done"}
            assert proxied.in_progress == 0


async def test_counters_and_health_survive_and_new_bounds_count_at_once() -> None:
    limits = LimitSettings(requests_per_minute_per_address=0, requests_per_minute_per_key=6)
    async with backend(answer()) as servers:
        settings = settings_for(servers.port, limits=limits)
        async with proxying(settings) as proxied, calling(proxied) as client:
            for _ in range(10):
                assert (await client.ask(signed("/inference"))).status == 200
            group = proxied.state.plan.groups["servers"]
            await proxied.reload(change(settings, "capacity", profile="booleans"))
            assert proxied.state.plan.groups["servers"] is group
            assert (await client.ask(signed("/inference"))).status == 429
            await proxied.reload(change(settings, "bodies", spool_bytes=7))
            assert proxied.state.spool._room._in_all == 7
            await proxied.reload(change(settings, "limits", requests_per_minute_per_key=0))
            assert (await client.ask(signed("/inference"))).status == 200


async def test_a_changed_group_takes_over_and_the_old_one_keeps_no_connection() -> None:
    async with (
        backend(answer(b"old")) as old,
        backend(answer(b"new")) as new,
        proxying(settings_for(old.port, backend={"keep_alive_s": 60.0})) as proxied,
        calling(proxied) as client,
    ):
        assert (await client.ask(signed("/inference"))).body == b"old"
        group = proxied.state.plan.groups["servers"]
        await proxied.end()
        assert group.upstream.idle == 1
        await proxied.reload(settings_for(new.port))
        assert group.upstream.idle == 0
        assert (await client.ask(signed("/inference"))).body == b"new"


async def test_connections_of_before_count_for_the_bound_of_a_changed_group() -> None:
    async with backend("wait", answer()) as servers:

        def bounded(connections: int, keep_alive_s: float) -> ProxySettings:
            more = {"connections": connections, "keep_alive_s": keep_alive_s}
            return settings_for(servers.port, backend=more, route={"connect_s": 0.05})

        async with proxying(bounded(1, 1.0)) as proxied, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(calling(proxied)) for _ in range(4)]
            await clients[0].send(signed("/inference"))
            await servers.began.wait()
            await proxied.reload(bounded(1, 2.0))
            assert (await clients[1].ask(signed("/inference"))).json()["code"] == "backend_full"
            await proxied.reload(bounded(2, 2.0))
            await clients[2].send(signed("/inference"))
            with trio.fail_after(5):
                while servers.requests < 2:
                    await trio.lowlevel.checkpoint()
            await proxied.reload(bounded(1, 2.0))
            assert (await clients[3].ask(signed("/inference"))).json()["code"] == "backend_full"
            servers.go_on.set()
            for client in (clients[0], clients[2], clients[3]):
                if client is clients[3]:
                    await client.send(signed("/inference"))
                assert (await client.read()).status == 200


async def test_places_that_are_taken_away_while_in_use_are_gone_when_they_are_given_back() -> None:
    pools, origin = Pools(2, 1.0), (False, "a", 1)
    assert [pools.enter_now(origin) for _ in range(3)] == [True, True, False]
    pools.change(1, 1.0)
    pools.leave(origin)
    assert not pools.enter_now(origin), "the other one is the only place"
    pools.change(2, 1.0)
    assert [pools.enter_now(origin) for _ in range(2)] == [True, False]
    for room in (1, 3, 2):
        pools.change(room, 1.0)
    for _ in range(2):
        pools.leave(origin)
    assert [pools.enter_now(origin) for _ in range(3)] == [True, True, False]


def test_other_authorities_take_over_no_connection_and_a_group_without_checks_no_old_verdict() -> None:
    settings = BackendSettings(urls=("https://a", "https://a/"), ca_file="one.pem", health_path="/up")
    former = Group("g", settings, lambda: 0.0, None)
    (server,) = former.servers
    former.checked(server, "down")
    checked = Group("g", msgspec.structs.replace(settings, failures=9), lambda: 0.0, None, former)
    checked.succeed(former)
    assert checked.upstream is former.upstream
    assert (checked.servers, server.unhealthy) == ((server,), True)
    other = msgspec.structs.replace(settings, ca_file="two.pem", health_path="")
    group = Group("g", other, lambda: 0.0, None, checked)
    group.succeed(checked)
    assert group.upstream is not former.upstream
    assert (group.servers, server.unhealthy, group.retired(server).is_set()) == ((server,), False, False)


async def test_a_stream_of_a_removed_backend_goes_on_to_its_end() -> None:
    async with (
        backend(OPEN, "wait", b"3\r\ntwo\r\n0\r\n\r\n") as old,
        backend(answer(b"new")) as new,
        proxying(settings_for(old.port)) as proxied,
        calling(proxied) as client,
        calling(proxied) as other,
    ):
        await client.send(signed("/inference"))
        await client.read_until(b"one\r\n")
        await proxied.reload(settings_for(new.port))
        assert (await other.ask(signed("/inference"))).body == b"new"
        assert old.open == 1
        old.go_on.set()
        assert (await client.read_until(b"0\r\n\r\n")).startswith(b"3\r\ntwo")
        await proxied.ended(2)
        with trio.fail_after(5):
            await old.closed.wait()
        assert (proxied.in_progress, {ended.code for ended in proxied.ends}) == (0, {"done"})


async def test_trusted_proxies_are_exempt_from_the_bound_of_connections_from_the_reload_on_that_names_them() -> None:
    async with backend(answer()) as servers:
        settings = change(settings_for(servers.port), "server", max_connections_per_address=1)
        trusting = change(settings, "server", trusted_proxies=("127.0.0.1/32",))
        async with proxying(settings) as proxied, calling(proxied) as first:
            assert (await first.ask(signed("/inference"))).status == 200
            for now, status in ((settings, 503), (trusting, 200), (settings, 503)):
                await proxied.reload(now)
                async with calling(proxied) as second:
                    assert (await second.ask(raw("GET", "/"))).status == status


async def test_a_file_of_authorities_that_does_not_load_is_named() -> None:
    async with backend(answer()) as servers:
        settings = settings_for(servers.port)
        async with proxying(settings) as proxied:
            secure = BackendSettings(urls=("https://127.0.0.1:1",), ca_file="/nowhere/ca.pem")
            with pytest.raises(ConfigError, match=r"backends\.servers: ca_file does not load"):
                await proxied.reload(msgspec.structs.replace(settings, backends={"servers": secure}))


@pytest.mark.parametrize("error", [NotSent("no URL"), ValueError("no hotkey"), OSError("no disk")])
async def test_a_fault_that_no_rule_foresees_keeps_the_old_settings_and_is_told(error: Exception) -> None:
    async with backend(answer(b"old")) as servers, proxying(settings_for(servers.port)) as proxied:
        state, plan = proxied.state, proxied.state.plan

        def load() -> Loaded:
            raise error

        with capture_logs() as logs:
            await Reloading(state, proxied.planner, proxied.loaded, load).reload("signal")
        assert state.plan is plan
        assert str(error) in state.settings_error
        assert [str(error) in line["problems"][0] for line in logs if line["event"] == "settings_kept"] == [True]
        sampled = state.metrics.registry.get_sample_value("engram_proxy_settings_total", {"outcome": "refused"})
        assert sampled == 1.0
        async with calling(proxied) as client:
            assert (await client.ask(signed("/inference"))).body == b"old"


async def test_a_file_of_authorities_whose_name_is_none_is_named_like_any() -> None:
    async with proxying(settings_for(9)) as proxied:
        secure = BackendSettings(urls=("https://127.0.0.1:1",), ca_file="a\0b")
        with pytest.raises(ConfigError, match=r"backends\.servers: ca_file does not load"):
            await proxied.reload(msgspec.structs.replace(settings_for(9), backends={"servers": secure}))


async def test_a_quota_that_its_folder_in_memory_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxying(settings_for(9)) as proxied:
        monkeypatch.setattr("engram.proxy.exchange.spool._file_system", lambda _: "tmpfs")
        with pytest.raises(ConfigError, match=r"bodies\.spool_bytes: .* is in memory"):
            await proxied.reload(change(settings_for(9), "bodies", spool_bytes=2**40))


def test_what_is_only_read_at_a_start_is_named() -> None:
    settings = settings_for(1)
    assert read_at_start(settings, change(settings, "limits", queue=1)) == ()
    assert read_at_start(settings, change(settings, "server", port=9)) == ("server.port",)
    assert read_at_start(settings, change(settings, "auth", netuid=9, min_stake=1)) == ("auth.netuid",)
