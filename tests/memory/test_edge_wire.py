"""Frames between node and worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.memory.index.edge_wire import HEADER, LARGEST_FRAME, Frames, Search, decode_request, frame


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 7))
def test_frames_come_out_whole_however_the_bytes_arrive(bodies: list[bytes], piece: int) -> None:
    stream = b"".join(HEADER.pack(len(body)) + body for body in bodies)
    frames = Frames()
    received: list[bytes] = []
    for start in range(0, len(stream), piece):
        received += frames.feed(stream[start : start + piece])
    assert received == bodies


def test_a_message_comes_back_as_it_was_sent() -> None:
    message = Search(7, "mine", b"\x00\x01", 10, [["mark", "other"], ["third"]])
    (body,) = Frames().feed(frame(message))
    assert decode_request(body) == message


def test_a_frame_beyond_the_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        Frames().feed(HEADER.pack(LARGEST_FRAME + 1))
