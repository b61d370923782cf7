"""What the Docker backend makes of an engine that does what it should not. The engine is a double on a real socket."""

import json
from pathlib import Path

import pytest
import trio

from config.model import DockerSettings, Settings
from engram.provisioning import NoCapacity, Offers, Rejected, Unavailable, Unknown
from engram.provisioning.docker import endings, engine, holdings, images, removing
from engram.provisioning.docker import factory as factories
from engram.provisioning.docker.backend import DockerBackend
from tests.fakes.engine import dropped, said
from tests.fakes.responder import Answer
from tests.provisioning import contract
from tests.provisioning.conftest import MakePorts
from tests.provisioning.docker.doubled import NAME, Bench
from tests.provisioning.test_local import a_spec


async def test_a_creation_that_is_refused_after_it_was_done_is_taken(bench: Bench) -> None:
    bench.double.after["create"] = [lambda: said(500, {"message": "internal error"})]
    node = await bench.backend.launch(bench.spec())
    assert node.alive
    assert bench.double.calls.count("create") == 1


async def test_podmans_refusal_of_a_name_in_use_is_looked_at_and_not_believed(bench: Bench) -> None:
    spec = bench.spec()
    await bench.backend.launch(spec)
    bench.double.end(NAME)
    hidden = bench.double.containers.pop(NAME)

    def refused_and_there() -> Answer:
        bench.double.containers[NAME] = hidden
        return said(500, {"cause": "that name is already in use", "message": "creating container storage"})

    bench.double.before["create"] = [refused_and_there]
    assert (await bench.backend.launch(spec)).alive


async def test_a_start_whose_answer_is_lost_is_of_unknown_outcome_and_found_running(bench: Bench) -> None:
    bench.double.after["start"] = [dropped]
    spec = bench.spec()
    with pytest.raises(Unknown):
        await bench.backend.launch(spec)
    assert (await bench.backend.launch(spec)).alive
    assert (bench.double.calls.count("create"), bench.double.calls.count("start")) == (1, 1)


async def test_an_engine_that_restarts_between_creation_and_start_finds_the_container_again(bench: Bench) -> None:
    bench.double.before["put"] = [dropped]
    spec = bench.spec()
    with pytest.raises(Unknown):
        await bench.backend.launch(spec)
    assert not (await bench.backend.list())[0].alive
    assert (await bench.backend.launch(spec)).alive
    assert json.loads(bench.double.files[NAME]["launch.json"])["launch_token"] == spec.token
    assert bench.double.calls.count("create") == 1


async def test_a_container_that_runs_without_a_process_is_dead(bench: Bench) -> None:
    spec = bench.spec()
    await bench.backend.launch(spec)
    bench.double.containers[NAME]["State"]["Pid"] = 0
    found = await bench.backend.inspect(spec.token)
    assert found is not None
    assert not found.alive


async def test_a_removal_that_takes_its_time_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "LOOK_EVERY_S", 0.01)
    spec = bench.spec()
    await bench.backend.launch(spec)
    bench.double.removing_for = 5
    await bench.backend.destroy(spec.token)
    assert bench.double.containers == {}
    assert bench.double.calls.count("remove") == 1


async def test_a_removal_that_never_ends_is_of_unknown_outcome(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(removing, "REMOVE_S", 0.2)
    spec = bench.spec()
    await bench.backend.launch(spec)
    bench.double.removing_for = 1_000_000
    with pytest.raises(Unknown, match="does not go"):
        await bench.backend.destroy(spec.token)


async def test_a_launch_waits_for_a_container_of_its_name_that_is_being_removed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "LOOK_EVERY_S", 0.01)
    spec = bench.spec()
    await bench.backend.launch(spec)
    bench.double.removing_for = 3
    bench.double.containers[NAME]["State"]["Status"] = "removing"
    bench.double.containers[NAME]["State"]["Running"] = False
    bench.double.removing_for = 3
    assert (await bench.backend.launch(spec)).alive
    assert bench.double.calls.count("create") == 2


async def test_what_the_engine_never_creates_is_not_started(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "LOOK_EVERY_S", 0.01)
    bench.double.before["create"] = [lambda: said(500, {"message": "no space left on device"})] * 3
    with pytest.raises(NoCapacity, match="no space left"):
        await bench.backend.launch(bench.spec())
    bench.double.before["create"] = [lambda: said(400, {"message": "invalid mount"})]
    with pytest.raises(Rejected, match="invalid mount"):
        await bench.backend.launch(bench.spec())


async def test_an_end_that_nobody_told_of_is_seen_when_the_stream_is_opened_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "EVENTS_S", 0.2)
    monkeypatch.setattr(endings, "RETRY_S", 0.01)
    spec = bench.spec()
    await bench.backend.launch(spec)
    async with contract.watched(bench.backend) as exits:
        bench.double.end(NAME)
        with trio.fail_after(5.0):
            assert await exits.receive() == spec.token


async def test_an_engine_that_goes_away_is_listened_to_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "RETRY_S", 0.01)
    bench.double.before["events"] = [dropped, lambda: said(500, {"message": "starting"})]
    spec = bench.spec()
    await bench.backend.launch(spec)
    bench.double.end(NAME)
    async with contract.watched(bench.backend) as exits:
        with trio.fail_after(5.0):
            assert await exits.receive() == spec.token


async def offered(backend: DockerBackend, reasons: list[str]) -> Offers | None:
    """What the backend offers; None, and the reason noted, while it offers nothing."""
    try:
        return await backend.offers()
    except Unavailable as error:
        reasons.append(str(error))
        return None


async def test_an_image_that_is_missing_is_pulled_and_until_then_nothing_is_offered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "RETRY_S", 0.05)
    bench.double.images.clear()
    layer = {"id": "a", "status": "Downloading", "progressDetail": {"current": 3, "total": 4}}
    bench.double.pulls = [[layer, {"error": "unexpected EOF"}], [layer, {"id": "a", "status": "Pull complete"}]]
    with pytest.raises(Unavailable, match="has no image engram-node:latest"):
        await bench.backend.launch(bench.spec())
    reasons: list[str] = []
    async with contract.watched(bench.backend):
        with trio.fail_after(5.0):
            while (offers := await offered(bench.backend, reasons)) is None:  # noqa: ASYNC110  # the engine's state
                await trio.sleep(0.01)
    assert any("it cannot be pulled (unexpected EOF)" in reason for reason in reasons)
    assert bench.double.calls.count("pull") == 2
    assert (offers.places, offers.not_enforced) == (3, ("storage",))


@pytest.mark.parametrize(("offered", "prefix"), [("1.41", "/v1.41/"), ("1.52", "/v1.47/")])
async def test_the_lower_one_of_both_versions_is_spoken(bench: Bench, offered: str, prefix: str) -> None:
    bench.double.api_version = offered
    await bench.backend.launch(bench.spec())
    assert {path for path in bench.double.paths if not path.startswith(prefix)} == {"/_ping"}


async def test_an_engine_that_is_not_there_is_unavailable_and_nothing_was_done(
    tmp_path: Path, backend_ports: MakePorts
) -> None:
    settings = Settings(docker=DockerSettings(host=f"unix://{tmp_path}/no.sock"))
    backend = factories.docker_backend(backend_ports(settings))
    for call in (backend.offers(), backend.list(), backend.launch(a_spec()), backend.destroy(contract.token("t1"))):
        with pytest.raises(Unavailable, match="No such file or directory"):
            await call


async def test_the_nodes_hotkey_goes_into_its_container_on_this_machine_alone(bench: Bench) -> None:
    spec = bench.spec()
    await bench.backend.launch(spec)
    files = bench.double.files[NAME]
    orders = json.loads(files["launch.json"])
    assert (orders["hotkey_file"], orders["hotkey"]) == ("/data/hotkey", "")
    assert files["hotkey"] == Path(spec.hotkey_file).read_bytes()
    assert json.dumps(bench.double.containers[NAME]["Asked"]).count("key") == 0
