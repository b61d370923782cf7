"""The table of rows is a dict in less room."""

import hashlib
import random
import tracemalloc

import pytest

from engram.archive import row_table
from engram.archive.row_table import RowTable


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % number).digest() for number in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_a_dict_is(seed: int) -> None:
    rng, table, held = random.Random(seed), RowTable(), dict[bytes, int]()
    several = digests(300)
    for _ in range(3_000):
        digest, number = rng.choice(several), rng.randrange(2**32)
        match rng.randrange(3):
            case 0:
                assert table.put(digest, number) == held.get(digest)
                held[digest] = number
            case 1:
                table.discard(digest)
                held.pop(digest, None)
            case _:
                assert table.get(digest) == held.get(digest)
    assert list(table.items()) == sorted(held.items())
    assert len(table) == len(held)
    numbers = set(list(held.values())[::2])
    table.discard_numbers(numbers)
    assert dict(table.items()) == {digest: number for digest, number in held.items() if number not in numbers}


def test_a_digest_is_not_found_across_two_entries() -> None:
    """In one bucket, where the end of one entry and the beginning of the next are the digest that is looked for."""
    prefix = bytes(2)
    first, second = prefix + b"a" * 28 + prefix, prefix + b"b" * 30
    table = RowTable()
    number = int.from_bytes(prefix + b"cc")
    table.put(first, number)
    table.put(second, 7)
    across = first[30:] + number.to_bytes(4) + second[:26]
    assert row_table._bucket(across) == row_table._bucket(first)
    assert table.get(across) is None
    assert (table.get(first), table.get(second)) == (number, 7)


def test_a_row_takes_less_than_in_a_dict() -> None:
    several, table = digests(60_000), RowTable()
    tracemalloc.start()
    try:
        for number, digest in enumerate(several):
            table.put(digest, number)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(table) < 90  # the buckets' own 1.2 MB are a third of it here
