"""The codec: what goes out comes back, and what is no packet is refused by name and by nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.worker.packets import (
    MOST_ATTACHMENTS,
    BadPacket,
    Connected,
    ConnectionRefused,
    Decoder,
    Disconnected,
    Frame,
    IgnoredPacket,
    Opened,
    OversizedPacket,
    Packet,
    Ping,
    SocketAck,
    SocketEvent,
    ack_frames,
    event_frames,
    size_of,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text().filter(lambda key: key != "_placeholder"), inner, max_size=4)
    ),
    max_leaves=20,
)


def decoded(*frames: Frame) -> Packet | None:
    decoder, packet = Decoder(1_000), None
    for frame in frames:
        assert packet is None
        packet = decoder.feed(frame)
    return packet


@given(st.text(), st.lists(JSON, max_size=3), st.none() | st.integers(0, 10**15 - 1))
def test_events_come_back_as_they_went_out(name: str, arguments: list[Any], ack_id: int | None) -> None:
    assert decoded(*event_frames(name, arguments, ack_id)) == SocketEvent(name, arguments, ack_id)


@given(st.integers(0, 10**15 - 1), st.lists(JSON, max_size=3))
def test_acknowledgements_come_back_as_they_went_out(ack_id: int, arguments: list[Any]) -> None:
    assert decoded(*ack_frames(ack_id, arguments)) == SocketAck(ack_id, arguments)


@pytest.mark.parametrize(
    ("frames", "packet"),
    [
        (
            ['0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'],
            Opened("a", 25_000, 20_000, 1_000_000),
        ),
        (["1"], Disconnected()),
        (["2"], Ping()),
        (["2probe"], Ping()),
        (["3"], IgnoredPacket("pong")),
        (["6"], IgnoredPacket("noop")),
        (["40"], Connected()),
        (['40{"sid":"b"}'], Connected()),
        (["40/,{}"], Connected()),
        (["40/other,{}"], IgnoredPacket("namespace")),
        (['42/other,["a"]'], IgnoredPacket("namespace")),
        (["41"], Disconnected()),
        (['44{"message":"No"}'], ConnectionRefused("No")),
        (['44"No"'], ConnectionRefused("No")),
        (["44"], ConnectionRefused("None")),
        (['42["job",{"type":"inference"}]'], SocketEvent("job", [{"type": "inference"}])),
        (['42/?a=1,12["job"]'], SocketEvent("job", [], 12)),
        (["430[]"], SocketAck(0, [])),
        (['451-["a",{"_placeholder":true,"num":0}]', b"x"], SocketEvent("a", [b"x"])),
        (['451-["a"]', b"x" * 1_001], OversizedPacket(SocketEvent("a", []))),
        (['452-["a"]', b"x" * 600, b"x" * 600], OversizedPacket(SocketEvent("a", []))),
        (
            ['462-7[[{"num":1,"_placeholder":true}],{"_placeholder":true,"num":0}]', b"x", b"y"],
            SocketAck(7, [[b"y"], b"x"]),
        ),
    ],
)
def test_what_servers_send(frames: list[Frame], packet: Packet) -> None:
    assert decoded(*frames) == packet


@pytest.mark.parametrize(
    "frames",
    [
        [""],
        ["x"],
        ["5"],
        ["0"],
        ["0{}"],
        ['0{"sid":"a","pingInterval":"x","pingTimeout":1}'],
        ["4"],
        ["47[]"],
        ["42"],
        ["42{}"],
        ["42[]"],
        ["42[1]"],
        ['42["a"'],
        ['42["\\ud800"]'],
        ["43[]"],
        ["42" + "[" * 100_000],
        ['450-["a"]'],
        ['45["a"]'],
        [f'45{MOST_ATTACHMENTS + 1}-["a"]'],
        ['45999/x,["a"]'],
        ['451-["a"]', "2x"],
        ['451-["a"]', '42["a"]'],
        ['451-["a",{"_placeholder":true,"num":1}]', b"x"],
        ['451-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]', b"x"],
        ['451-["a",{"_placeholder":true,"num":"0"}]', b"x"],
        ['451-["a",{"_placeholder":true}]', b"x"],
        [b"x"],
        ["42" + "9" * 5_000 + '["a"]'],
        ["45" + "9" * 5_000 + '-["a"]'],
    ],
)
def test_what_is_no_packet_is_refused(frames: list[Frame]) -> None:
    with pytest.raises(BadPacket):
        decoded(*frames)


@given(st.lists(st.text() | st.binary() | st.from_regex(r"[0-6][0-6]?[0-9]{0,3}-?\[.*\]", fullmatch=True), max_size=4))
def test_nothing_else_is_raised(frames: list[Frame]) -> None:
    decoder = Decoder(100)
    try:
        for frame in frames:
            decoder.feed(frame)
    except BadPacket:
        pass


@pytest.mark.parametrize("value", [object(), {1: object()}, float])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        event_frames("a", [value])


def test_a_value_too_deep_for_json_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="cannot be sent"):
        event_frames("a", [deep])


def test_the_size_of_a_packet_is_that_of_its_largest_frame() -> None:
    assert size_of(event_frames("ä", [])) == len('42["ä"]'.encode())
    assert size_of(ack_frames(1, [b"x" * 200])) == 200


def test_the_text_of_an_event_is_what_the_original_client_writes() -> None:
    (frame,) = event_frames("authenticate", [{"hotkey": "5F", "gpu_info": {"gpu_count": 0}}])
    assert frame == '42["authenticate",{"hotkey":"5F","gpu_info":{"gpu_count":0}}]'
    assert json.loads(str(frame)[2:])[0] == "authenticate"
