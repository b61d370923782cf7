"""Announcing many nodes: none of them, nor its provider's name server, holds up another."""

from typing import Any, cast

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from engram.hotkeys import Keypair
from engram.provisioning import announcing
from engram.provisioning.errors import NodeKeyError
from engram.provisioning.model import NodeKey
from engram.sessions import RunningSession

PLACES = 300


class _Announcers:
    """The supervisor of the announcers, and the registry that has it."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def supervisor(self, name: str) -> "_Announcers":
        return self

    async def children(self) -> list[Any]:
        return []

    async def start_child(self, child: Any) -> None:
        self.started.append(child.id)


class _Nodes:
    """Active nodes in the ledger, and the keys of all but those without one."""

    def __init__(self, *hosts: str, keyless: tuple[str, ...] = ()) -> None:
        self._hosts, self._keyless = hosts, keyless

    async def read(self, query: object) -> list[tuple[RunningSession, NodeKey]]:
        blank = dict.fromkeys(RunningSession.__struct_fields__)
        return [
            (
                RunningSession(**cast(Any, blank | {"token": f"t{number}", "endpoint": f"http://{host}:31234"})),
                NodeKey(public_key=bytes(32), path=f"t{number}", source="operator", added_at=0.0),
            )
            for number, host in enumerate(self._hosts)
        ]

    async def keypair(self, key: NodeKey) -> Keypair:
        await trio.lowlevel.checkpoint()
        if key.path in self._keyless:
            raise NodeKeyError("its file is not readable")
        return Keypair.from_uri("//Alice")


@pytest.fixture
def announcers(monkeypatch: pytest.MonkeyPatch) -> _Announcers:
    made = _Announcers()

    class Child(msgspec.Struct):
        id: str

    monkeypatch.setattr(announcing, "_child", lambda ports, token, address, keypair: Child(token))
    return made


async def follow(announcers: _Announcers, nodes: _Nodes) -> list[Any]:
    fields = dict.fromkeys(announcing.AnnouncingPorts.__struct_fields__)
    ports = announcing.AnnouncingPorts(
        **cast(Any, fields | {"registry": announcers, "ledger": nodes, "ring": nodes, "allows_private": True})
    )
    with capture_logs() as logs:
        await announcing._follow(ports, {})
    return logs


async def test_a_key_that_cannot_be_read_keeps_no_other_node_from_being_announced(announcers: _Announcers) -> None:
    logs = await follow(announcers, _Nodes("127.0.0.1", "127.0.0.2", keyless=("t0",)))
    assert announcers.started == ["t1"]
    assert [(line["event"], line["node"]) for line in logs] == [("node_not_announced", "t0")]


async def test_nodes_beyond_the_bound_are_logged(announcers: _Announcers) -> None:
    logs = await follow(announcers, _Nodes(*["127.0.0.1"] * PLACES))
    assert len(announcers.started) == announcing.MOST
    assert [(line["event"], line["nodes"]) for line in logs] == [("nodes_not_announced", PLACES - announcing.MOST)]


async def test_names_that_nobody_answers_for_cost_all_nodes_together_one_bound(
    announcers: _Announcers, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def getaddrinfo(host: str, *_: Any, **__: Any) -> Any:
        if host.startswith("silent"):
            await trio.sleep_forever()
        return [(0, 0, 0, "", (host, 0))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    began = trio.current_time()
    logs = await follow(announcers, _Nodes(*[f"silent{n}" for n in range(announcing.LOOKUPS_AT_ONCE)], "127.0.0.1"))
    assert trio.current_time() - began <= announcing.LOOKUP_S
    assert announcers.started == [f"t{announcing.LOOKUPS_AT_ONCE}"]
    assert {line["event"] for line in logs} == {"node_not_resolved"}
