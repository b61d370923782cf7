"""Where an archive lies: a folder, or a bucket. Nothing is ever decided from a listing alone; it may be cut."""

from collections.abc import Sequence
from typing import Final, Protocol

MOST_BYTES: Final = (1 << 24) + 4_096
"""No part is larger: what is compared with one that is there is read up to this."""


MOST_HEADER: Final = 65_536


class Place(Protocol):
    """Holds named parts. Each part is written whole or not at all, and never replaced."""

    @property
    def address(self) -> str:
        """Return how a person names this place."""
        ...

    @property
    def is_local(self) -> bool:
        """Return whether a part is stored in about the time that sealing it takes."""
        ...

    @property
    def keeps_forever(self) -> bool:
        """Return whether nothing is removed there, so that nothing is won by writing it again."""
        ...

    async def price(self, sizes: Sequence[int]) -> int:
        """Return what parts of these bytes cost together, in the place's smallest unit; 0 where nothing is charged.

        Raises TooDear above the limit that was set, PlaceUnavailable.
        """
        ...

    async def put(self, name: str, content: bytes) -> None:
        """Store a part; the same bytes again are no error.

        Raises AlreadyThere for other bytes under that name, PlaceUnavailable (it may have been stored).
        """
        ...

    async def get(self, name: str, most: int) -> bytes:
        """Return a part. Raises Missing, Damaged for more than `most` bytes, PlaceUnavailable."""
        ...

    async def resume(self, name: str) -> bool:
        """Return whether a part whose `put` was interrupted is there; what was begun is brought to its end.

        Raises as `put` does.
        """
        ...

    async def delete(self, name: str) -> None:
        """Remove a part; a missing one is no error. Raises PlaceUnavailable."""
        ...

    async def names(self, folder: str) -> list[str]:
        """Return the names of parts below `folder`, sorted. Raises PlaceUnavailable."""
        ...
