"""New settings: nothing that runs is cut, counters and health survive, and a bad file changes nothing."""

import msgspec
import pytest
import trio

from config.errors import ConfigError
from engram.proxy.planning import read_at_start
from engram.proxy.settings.model import BackendSettings, LimitSettings, RouteSettings
from tests.proxy.backends import answer, backend
from tests.proxy.harness import calling, change, proxying, settings_for
from tests.proxy.signing import signed

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


async def test_a_file_of_authorities_that_does_not_load_is_named() -> None:
    async with backend(answer()) as servers:
        settings = settings_for(servers.port)
        async with proxying(settings) as proxied:
            secure = BackendSettings(urls=("https://127.0.0.1:1",), ca_file="/nowhere/ca.pem")
            with pytest.raises(ConfigError, match=r"backends\.servers: ca_file does not load"):
                await proxied.reload(msgspec.structs.replace(settings, backends={"servers": secure}))


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
