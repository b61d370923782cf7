"""What a container is asked to be, what is put into it, and what is read of a pull."""

import io
import tarfile

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning.docker import container, frames, images, orders, versions
from engram.provisioning.docker.container import Place
from engram.provisioning.docker.engine_model import About, Config, Container, ContainerMount, Progress, State
from tests.provisioning import contract
from tests.provisioning.test_local import a_spec

PLACE = Place(host="127.0.0.1", bound_to="127.0.0.1")
BARE = About()


def body(about: About = BARE, place: Place = PLACE) -> dict[str, object]:
    return container.body(
        a_spec(), image="i", ledger_id=contract.LEDGER_ID, volume="v", place=place, about=about, grace_s=8.2
    )


def test_an_init_process_and_a_network_are_asked_for_where_there_are_any() -> None:
    plain, more = body(), body(About(init="docker-init"), msgspec.structs.replace(PLACE, network="nodes"))
    assert plain["StopTimeout"] == 9
    host, fuller = plain["HostConfig"], more["HostConfig"]
    assert isinstance(host, dict)
    assert isinstance(fuller, dict)
    assert ("Init" in host, "NetworkMode" in host) == (False, False)
    assert (fuller["Init"], fuller["NetworkMode"]) == (True, "nodes")


def test_a_container_without_a_port_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs a port"):
        container.body(
            msgspec.structs.replace(a_spec(), port=None),
            image="i",
            ledger_id="x",
            volume="v",
            place=PLACE,
            about=About(),
            grace_s=1.0,
        )


def test_what_an_engine_cannot_hold_a_container_to_is_told() -> None:
    able = About(cpu_quota=True, memory_limit=True, pids_limit=True)
    assert container.not_enforced(able, storage=False) == ("storage",)
    assert container.not_enforced(msgspec.structs.replace(able, pids_limit=False), storage=True) == ("pids",)
    assert container.not_enforced(About(), storage=True) == ("cpu", "memory", "pids")


@pytest.mark.parametrize(
    ("state", "alive"),
    [
        (State(status="running", running=True, pid=7), True),
        (State(status="running", running=True, pid=0), False),
        (State(status="paused", running=True, paused=True, pid=7), False),
        (State(status="exited", pid=0), False),
    ],
)
def test_a_container_is_alive_when_it_has_a_process_that_runs(state: State, alive: bool) -> None:
    assert container.is_alive(Container(state=state)) is alive


OURS = {container.TOKEN: "t", container.LEDGER: "l"}


@pytest.mark.parametrize(
    ("name", "volume", "labels", "is_node"),
    [
        ("/engram-t", "", OURS, True),  # of before volumes had names
        ("/renamed", "engram-t", OURS, True),
        ("/from-a-committed-image", "", OURS, False),
        ("/from-a-committed-image", "another", OURS, False),
        ("/engram-t", "engram-t", {}, False),
        ("/engram-t", "engram-t", OURS | {container.LEDGER: "m"}, False),
        ("/engram-t", "engram-t", OURS | {container.TOKEN: "u"}, False),
    ],
)
def test_a_node_is_known_by_its_labels_and_its_name_or_volume(
    name: str, volume: str, labels: dict[str, str], is_node: bool
) -> None:
    found = Container(
        name=name, mounts=[ContainerMount(name=volume, destination="/data")], config=Config(labels=labels)
    )
    assert container.is_node(found, "t", "l") is is_node


def test_a_container_without_labels_or_volumes_is_read() -> None:
    assert (Container(config=Config()).labels, container.is_node(Container(), "t", "l")) == ({}, False)


def test_files_are_packed_for_the_nodes_user_alone() -> None:
    packed = orders.packed({"launch.json": b"{}", "hotkey": b"k"}, (65_532, 65_533))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        found = {m.name: (m.mode, m.uid, m.gid, m.size) for m in archive}
    assert found == {"launch.json": (0o600, 65_532, 65_533, 2), "hotkey": (0o600, 65_532, 65_533, 1)}


@given(st.binary(max_size=2_000))
def test_an_archive_that_is_none_holds_no_orders(content: bytes) -> None:
    assert orders.with_end(content, 1.0) is None


def test_an_archive_without_orders_holds_none() -> None:
    assert orders.with_end(orders.packed({"other": b"{}"}, (0, 0)), 1.0) is None
    assert orders.with_end(orders.packed({"launch.json": b"{}"}, (0, 0)), 1.0) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_read_as_a_log(content: bytes) -> None:
    assert len(frames.text(content)) <= len(content)


@given(st.text(max_size=12))
def test_no_version_is_spoken_that_an_engine_does_not_name(offered: str) -> None:
    prefix = versions.spoken(offered)
    assert not prefix or prefix.startswith("/v")


def test_the_progress_of_a_pull_counts_what_is_known_of_its_layers() -> None:
    layers: dict[str, tuple[int, int]] = {}
    for line in (
        Progress(status="Pulling from library/engram"),
        Progress(status="Downloading", id="a", progress_detail={"current": 50, "total": 100}),
        Progress(status="Downloading", id="b", progress_detail={"current": 900, "total": 300}),
        Progress(status="Downloading", id="c", progress_detail={}),
        Progress(status="Download complete", id="d"),
        Progress(status="Pull complete", id="a"),
    ):
        images.note(layers, line)
    assert layers == {"a": (100, 100), "b": (300, 300)}
    assert images.percent(layers) == 100
