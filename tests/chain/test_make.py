import pytest

from engram.chain.read.recorded.make import make, split_at_block
from engram.chain.read.recorded.node import read_recording
from tests.chain.samples import codec, scale
from tests.shared import SHARED, needs_shared

VECTORS = SHARED / "vectors" / "chain"


@pytest.mark.shared
@needs_shared
def test_the_recording_that_ships_is_what_make_makes_of_the_recorded_files() -> None:
    assert make(VECTORS) == read_recording()


def test_the_block_number_is_found_where_it_stands() -> None:
    parts = split_at_block(codec(), scale())
    assert bytes.fromhex(parts.before_block) + b"\x31\x11" + bytes.fromhex(parts.after_block) == scale()


@pytest.mark.parametrize("octets", [b"\x00"])
def test_what_is_no_metagraph_cannot_be_split(octets: bytes) -> None:
    with pytest.raises(ValueError, match="no metagraph"):
        split_at_block(codec(), octets)
