"""Makes the embedder that a node's launch file names, or else its settings."""

from __future__ import annotations

import os
from pathlib import Path

from config.model import MinerSettings
from engram.http.client import HttpClient
from engram.memory.embed.hash_embedder import HashEmbedder
from engram.memory.embed.minilm import MiniLmEmbedder
from engram.memory.embed.openai_embedder import OpenAiEmbedder
from engram.memory.embed.protocol import Embedder
from engram.memory.embed.weights_hub import Hub
from engram.miner.errors import NodeError
from engram.nodes import launch as launches
from engram.nodes.launch import LaunchFile

CACHE = "cache"


def make_embedder(launch: LaunchFile, settings: MinerSettings) -> Embedder:
    """Return the embedder; only the file with its key is read yet.

    Raises LaunchFileError when a required value is missing, NodeError when its key is invalid.
    """
    chosen = launch.embedder or launches.embedder_of(settings)
    launches.check_embedder(chosen, "miner.embedding_url, embedding_model, embedding_dimension")
    match chosen.kind:
        case "hash":
            return HashEmbedder()
        case "openai":
            return OpenAiEmbedder(HttpClient(), chosen.url, chosen.model, chosen.dimension, _key(chosen.api_key_file))
        case "minilm":
            cache = Path(chosen.cache_dir) if chosen.cache_dir else Path(launch.data_dir) / CACHE
            hub = Hub(HttpClient(), chosen.hub_url, cache) if chosen.hub_url else None
            return MiniLmEmbedder(Path(chosen.weights_dir) if chosen.weights_dir else None, cache, hub)


def _key(file: str | None) -> str | None:
    where = file or launches.API_KEY_VARIABLE
    text = os.environ.get(where, "") if file is None else Path(file).read_text(encoding="utf-8")
    key = text.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise NodeError(f"{where} does not hold a key of the embedding server, which is one ASCII word")
    return key or None
