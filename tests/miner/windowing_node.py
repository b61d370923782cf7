"""A node whose embedder makes windows of 60 characters, slowly enough to be killed between two of them. Else as any."""

import sys
from pathlib import Path

import trio

from config.model import MinerSettings
from engram.memory.embed.hash_embedder import HashEmbedder, hash_vector
from engram.roles.miner import main

WINDOW = 60


async def windows(self: HashEmbedder, text: str) -> list[bytes]:
    await trio.sleep(0.01)
    return [hash_vector(text[at : at + WINDOW], self.dimension) for at in range(WINDOW, len(text), WINDOW)]


if __name__ == "__main__":
    HashEmbedder.windows = windows  # type: ignore[method-assign]
    sys.exit(main(Path(sys.argv[2]), MinerSettings()))
