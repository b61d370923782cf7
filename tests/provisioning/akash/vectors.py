"""Data of akash-network's own implementations, as tests/data/akash/NOTES.md tells."""

import functools
import gzip
import json
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[2] / "data" / "akash"


@functools.cache
def vectors(name: str) -> Any:
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def public_mnemonic() -> str:
    """Words that anybody can read upstream: never an account of one's own."""
    words: str = vectors("peer-tx-vectors")["mnemonic"]
    return words
