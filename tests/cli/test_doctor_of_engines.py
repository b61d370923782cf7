"""What `engram doctor` says of a container engine."""

import trio

from config.model import DockerSettings, ProvisioningSettings, Settings
from engram.cli.doctor.engine import engine
from tests.fakes.engine import EngineDouble, said


def settings(host: str) -> Settings:
    provisioning = ProvisioningSettings(backends=("local", "docker"), miner_image="engram-node:latest")
    return Settings(provisioning=provisioning, docker=DockerSettings(host=host))


async def findings(host: str) -> list[tuple[str, str]]:
    return [(found.verdict, found.text) for found in await engine(settings(host))]


async def test_an_engine_with_the_image_is_good(nursery: trio.Nursery) -> None:
    host = await EngineDouble().serve(nursery)
    assert await findings(host) == [
        ("good", f"version unknown at {host}: 4 processors, 9 GB"),
        ("good", "engram-node:latest is there"),
    ]


async def test_a_missing_image_and_limits_that_are_not_held_are_noted(nursery: trio.Nursery) -> None:
    double = EngineDouble()
    double.images.clear()
    double.before["info"] = [lambda: said(200, {"NCPU": 1, "MemTotal": 2**30, "MemoryLimit": False})]
    found = await findings(await double.serve(nursery))
    assert [verdict for verdict, _ in found] == ["good", "note", "note"]
    assert "cpu and memory" in found[1][1]
    assert "is not there" in found[2][1]


async def test_an_engine_that_is_not_there_is_bad_and_says_which_setting_names_it() -> None:
    ((verdict, text),) = await findings("unix:///nowhere/engine.sock")
    assert verdict == "bad"
    assert text.startswith("unix:///nowhere/engine.sock: the engine: no connection")
    assert text.endswith("set docker.host")


async def test_nothing_is_said_where_no_node_runs_in_one() -> None:
    assert await engine(Settings()) == []
