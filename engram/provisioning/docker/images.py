"""Sees that the engine has the image of nodes, and pulls it where it has not.

Pulling takes minutes, so it is no part of a launch: until the image is there the backend answers that it cannot be
used, and why, and the gateway sells none of its places.
"""

from typing import Final, final

import structlog
import trio

from engram.provisioning.docker.engine import Engine
from engram.provisioning.docker.engine_model import Progress
from engram.provisioning.errors import Unavailable

RETRY_S: Final = 15.0
"""A pull that failed is not tried again before this, and then when the image is missed again."""
LOGGED_EVERY_S: Final = 10.0
MOST_LAYERS: Final = 1_000
"""Layers of one pull whose progress is noted."""

_log = structlog.get_logger("engram.provisioning.docker")


@final
class ImageKeeper:
    """The image that containers are made of."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self._engine = engine
        self._wanted = trio.Event()
        self._state = ""

    async def require(self) -> None:
        """Return when the engine has the image; otherwise wake the pull and raise Unavailable."""
        if await self._engine.has_image(self.name):
            self._state = ""
            return
        self._wanted.set()
        raise Unavailable(f"the engine has no image {self.name}{self._state and f': {self._state}'}")

    async def run(self) -> None:
        """Pull the image each time it is missed. Runs for ever."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                await self._pull()
            except Unavailable as error:
                self._state = f"it cannot be pulled ({error})"
                _log.warning("image_not_pulled", image=self.name, reason=str(error))
                await trio.sleep(RETRY_S)

    async def _pull(self) -> None:
        if await self._engine.has_image(self.name):
            return
        self._state = "it is being pulled"
        layers: dict[str, tuple[int, int]] = {}
        logged = trio.current_time()
        _log.info("image_pull", image=self.name)
        async with self._engine.pull(self.name) as lines:
            async for line in lines:
                if line.error:
                    raise Unavailable(line.error)
                note(layers, line)
                self._state = f"it is being pulled, {percent(layers)} % of what is known"
                if trio.current_time() - logged >= LOGGED_EVERY_S:
                    logged = trio.current_time()
                    _log.info("image_pull", image=self.name, percent=percent(layers))
        if not await self._engine.has_image(self.name):
            raise Unavailable("the pull ended and the image is not there")
        self._state = ""
        _log.info("image_pulled", image=self.name)


def note(layers: dict[str, tuple[int, int]], line: Progress) -> None:
    """Note how much of a layer has come; lines that say nothing of it are ignored."""
    detail = line.progress_detail or {}
    current, size = detail.get("current"), detail.get("total")
    if line.id not in layers and len(layers) >= MOST_LAYERS:
        return
    if line.status == "Downloading" and isinstance(current, int) and isinstance(size, int) and size > 0:
        layers[line.id] = (min(current, size), size)
    elif line.id in layers and line.status in ("Download complete", "Extracting", "Pull complete"):
        _, known = layers[line.id]
        layers[line.id] = (known, known)


def percent(layers: dict[str, tuple[int, int]]) -> int:
    """Return how much of the layers that are known has come.

    >>> percent({"a": (5, 10), "b": (0, 10)}), percent({})
    (25, 0)
    """
    total = sum(total for _, total in layers.values())
    return 100 * sum(current for current, _ in layers.values()) // total if total else 0
