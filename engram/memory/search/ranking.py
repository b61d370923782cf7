"""Cosines and variety of found records, on numpy: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def cosines(query: bytes, vectors: Sequence[bytes]) -> list[float]:
    """Return the cosine of a vector with each of the others (f32 little-endian, none of them zero)."""
    if not vectors:
        return []
    found = _units([query, *vectors])
    return [max(-1.0, min(1.0, float(each))) for each in found[1:] @ found[0]]


def diversified(relevance: Sequence[float], vectors: Sequence[bytes], diversity: float, most: int) -> list[int]:
    """Return the places of at most `most` records, by maximal marginal relevance.

    The next is always the one with the highest `(1 - diversity) * relevance - diversity * c`, where `c` is its highest
    cosine with one chosen before. Of equal ones the first is taken.
    Source: Carbonell and Goldstein, SIGIR 1998.
    """
    if not vectors:
        return []
    units = _units(vectors)
    worth = (1.0 - diversity) * np.asarray(relevance, dtype=np.float64)
    nearest = np.full(len(vectors), -np.inf)
    chosen: list[int] = []
    while len(chosen) < min(most, len(vectors)):
        score = worth - diversity * nearest if chosen else worth.copy()
        score[chosen] = -np.inf
        best = int(np.argmax(score))
        chosen.append(best)
        nearest = np.maximum(nearest, units @ units[best])
    return chosen


def _units(vectors: Sequence[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    found = np.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), -1).astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", found, found))
    units: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.divide(found, lengths[:, np.newaxis])
    return units
