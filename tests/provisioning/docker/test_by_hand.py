"""What somebody at the engine does by hand to containers and volumes, and what is not ours."""

from typing import Any

import pytest

from engram.provisioning import NoCapacity, Rejected, Unavailable, Unknown
from engram.provisioning.docker import holdings, removing
from tests.fakes.engine import said
from tests.provisioning import contract
from tests.provisioning.docker.doubled import NAME, Bench


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "LOOK_EVERY_S", 0.01)


async def test_a_renamed_container_serves_on_and_goes_with_its_session(bench: Bench) -> None:
    spec = bench.spec()
    node = await bench.backend.launch(spec)
    bench.double.rename(NAME, "mine")
    assert await bench.backend.inspect(spec.token) == node
    assert await bench.backend.list() == [node]
    assert await bench.backend.launch(spec) == node
    assert bench.double.calls.count("create") == 1
    await bench.backend.stop(spec.token)
    assert not bench.double.containers["mine"]["State"]["Running"]
    await bench.backend.destroy(spec.token)
    assert (bench.double.containers, bench.double.volumes) == ({}, {})


async def test_a_container_that_is_removed_by_hand_is_made_again_on_what_it_stored(bench: Bench) -> None:
    spec = bench.spec()
    first = await bench.backend.launch(spec)
    bench.double.files[NAME]["memory"] = b"kept"
    del bench.double.containers[NAME]
    left = await bench.backend.inspect(spec.token)
    assert left is not None
    assert (left.alive, left.endpoint, left.store) == (False, first.endpoint, first.store)
    assert await bench.backend.list() == [left]
    again = await bench.backend.launch(spec)
    assert (again.alive, again.store) == (True, first.store)
    assert bench.double.files[NAME]["memory"] == b"kept"


async def test_a_volume_that_is_removed_by_hand_is_noticed_by_the_name_of_what_is_stored(bench: Bench) -> None:
    spec = bench.spec()
    first = await bench.backend.launch(spec)
    del bench.double.containers[NAME], bench.double.volumes[NAME]
    assert await bench.backend.inspect(spec.token) is None
    assert (await bench.backend.launch(spec)).store not in ("", first.store)


async def test_a_volume_that_is_left_alone_is_listed_and_destroyed(bench: Bench) -> None:
    """As a gateway that is killed between the two leaves it."""
    spec = bench.spec()
    await bench.backend.launch(spec)
    del bench.double.containers[NAME]
    (left,) = await bench.backend.list()
    await bench.backend.destroy(left.token)
    assert bench.double.volumes == {}


async def test_a_volume_of_somebody_else_with_our_name_is_never_touched(bench: Bench) -> None:
    spec = bench.spec()
    other = {"Name": NAME, "Labels": {"engram.ledger": "ffffffff"}}
    bench.double.volumes[NAME] = other
    with pytest.raises(Rejected, match=f"a volume {NAME} is there that is not ours"):
        await bench.backend.launch(spec)
    await bench.backend.destroy(spec.token)
    assert (bench.double.volumes, bench.double.containers) == ({NAME: other}, {})
    assert await bench.backend.inspect(spec.token) is None
    assert await bench.backend.list() == []


async def test_a_container_that_only_bears_our_labels_is_never_touched(bench: Bench) -> None:
    """An image that is committed from a container keeps its labels."""
    spec = bench.spec()
    node = await bench.backend.launch(spec)
    copy: dict[str, Any] = {
        **bench.double.containers[NAME],
        "Id": "c0",
        "Name": "/look-into-it",
        "Mounts": [{"Type": "volume", "Name": "3f", "Destination": "/data"}],
    }
    bench.double.containers["look-into-it"] = copy
    assert await bench.backend.list() == [node]
    await bench.backend.destroy(spec.token)
    assert bench.double.containers == {"look-into-it": copy}
    assert await bench.backend.list() == []


async def test_a_volume_that_somebody_uses_is_of_unknown_outcome_and_says_why(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.spec()
    await bench.backend.launch(spec)
    bench.double.containers["look-into-it"] = {
        **bench.double.containers[NAME],
        "Id": "c0",
        "Name": "/look-into-it",
        "Config": {"Labels": {}},
    }
    monkeypatch.setattr(removing, "REMOVE_S", 0.2)
    with pytest.raises(Unknown, match="the volume engram-0123abcd-t1 does not go: 409 volume is in use"):
        await bench.backend.destroy(spec.token)
    del bench.double.containers["look-into-it"]
    await bench.backend.destroy(spec.token)
    assert bench.double.volumes == {}


async def test_a_container_whose_removal_failed_is_made_again_on_its_volume(bench: Bench) -> None:
    spec = bench.spec()
    first = await bench.backend.launch(spec)
    bench.double.end(NAME)
    bench.double.containers[NAME]["State"]["Status"] = "dead"
    again = await bench.backend.launch(spec)
    assert (again.alive, again.store) == (True, first.store)
    assert bench.double.calls.count("create") == 2


async def test_a_token_in_a_label_names_no_path_of_the_engine(bench: Bench) -> None:
    spec = bench.spec()
    evil = f"{contract.LEDGER_ID}-x/../../images/engram-node:latest"
    labels = {"engram.ledger": contract.LEDGER_ID, "engram.token": evil, "engram.session": spec.session_id}
    bench.double.containers["evil"] = {
        "Id": "e0",
        "Name": "/evil",
        "State": {"Status": "running", "Running": True, "Pid": 7},
        "Config": {"Labels": labels},
        "Mounts": [],
    }
    await bench.backend.launch(spec)
    assert [node.token for node in await bench.backend.list()] == [spec.token]
    assert "/images/engram-node:latest" not in [path for path in bench.double.paths if "/x/" in path]
    assert not any("/../" in path for path in bench.double.paths)


@pytest.mark.parametrize(
    ("limited_by", "podman", "options"),
    [("size", False, {"size": "13421772800"}), ("o", True, {"o": "size=13421772800"}), ("", False, {}), ("", True, {})],
)
async def test_storage_is_limited_where_the_engine_can_and_else_said_to_be_not(
    bench: Bench, limited_by: str, podman: bool, options: dict[str, str]
) -> None:
    """Podman takes the option of Docker and does nothing: it is not believed."""
    bench.double.limited_by, bench.double.is_podman = limited_by, podman
    assert ("storage" in (await bench.backend.offers()).not_enforced) is (not options)
    await bench.backend.launch(bench.spec())
    assert {name: volume["DriverOpts"] for name, volume in bench.double.volumes.items()} == {NAME: options}


async def test_an_engine_that_went_away_is_asked_again_what_it_can(bench: Bench) -> None:
    assert "storage" in (await bench.backend.offers()).not_enforced
    bench.double.before["_ping"] = [lambda: said(500, {"message": "starting"})]
    with pytest.raises(Unavailable, match="starting"):
        await bench.backend.offers()
    bench.double.limited_by = "size"
    assert "storage" not in (await bench.backend.offers()).not_enforced


async def test_a_container_that_is_said_to_be_there_and_is_not_is_not_asked_for_for_ever(bench: Bench) -> None:
    bench.double.before["create"] = [lambda: said(201, {"Id": "0"})] * 10
    with pytest.raises(NoCapacity, match="it said that it did"):
        await bench.backend.launch(bench.spec())
    assert bench.double.calls.count("create") == 3


async def test_a_full_disk_is_no_capacity_and_the_launch_goes_on_when_there_is_room(bench: Bench) -> None:
    full = said(500, {"message": "no space left on device"})
    spec = bench.spec()
    await bench.backend.offers()
    for call in ("make", "put"):
        bench.double.before[call] = [lambda: full]
        with pytest.raises(NoCapacity, match="no space left"):
            await bench.backend.launch(spec)
    assert (await bench.backend.launch(spec)).alive
    assert bench.double.calls.count("create") == 1


async def test_a_launch_that_was_begun_is_never_told_as_not_sent(bench: Bench) -> None:
    """Otherwise the session would be placed elsewhere, and have two nodes."""
    spec = bench.spec()
    bench.double.after["start"] = [lambda: _then_fail(bench)]
    with pytest.raises(Unknown, match="was begun"):
        await bench.backend.launch(spec)
    assert bench.double.containers[NAME]["State"]["Running"]
    assert (await bench.backend.launch(spec)).alive
    assert bench.double.calls.count("start") == 1


def _then_fail(bench: Bench) -> Any:
    bench.double.before["inspect"] = [lambda: said(500, {"message": "the engine goes down"})]
    return 204, {}, b""


async def test_a_container_of_before_volumes_had_names_is_started_again_and_goes_whole(bench: Bench) -> None:
    spec = bench.spec()
    await bench.backend.launch(spec)
    older = bench.double.containers[NAME]
    older["Config"]["Labels"].pop("engram.volume")
    older["Mounts"] = [{"Type": "volume", "Name": "3f", "Destination": "/data"}]
    bench.double.files["3f"] = {}
    del bench.double.volumes[NAME]
    bench.double.end(NAME)
    node = await bench.backend.launch(spec)
    assert (node.alive, node.store) == (True, "")
    assert bench.double.calls.count("create") == 1
    assert "launch.json" in bench.double.files["3f"]
    await bench.backend.destroy(spec.token)
    assert await bench.backend.list() == []
