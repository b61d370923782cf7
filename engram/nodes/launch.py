"""The launch file of a node: one JSON file of mode 0600 with everything it needs to start.

The provisioner writes it (`write`), the node reads it (`read`). It names the node's place in the ledger
(session and launch token), its address, its folder, its own key, who may administer it, when it must end and
how much storage it may use. It holds no private key: `hotkey_file` is the path of the key, a file of mode 0600 as well.
On a machine of somebody else, where the key stays with the gateway, `hotkey` names it and the same fields come as
environment variables (`engram.nodes.environment`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from config.addresses import is_http_url
from config.keys import mask_url
from config.model import MinerSettings
from engram import wire
from engram.hotkeys import MalformedHotkey, ss58

SCHEMA = 1
API_KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable with the embedding server's key, used when no file is named."""
_MOST_NUMBERS = 8_192
_BOUNDS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "port": (1, 65_535),
        "ends_at": (0, 253_402_300_799),  # the last second of the year 9999
        "storage_bytes": (1, 2**60),
        "memory_bytes": (1, 2**60),
        "netuid": (0, 65_535),
        "chain_reset_after_s": (0, 31_536_000),
    }
)
"""The least and the greatest value of each number; a test checks that none is missing."""


class LaunchFileError(Exception):
    """The launch file is missing, unreadable, readable by others, or has an invalid value."""


class EmbedderLaunch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which embedder turns texts into vectors.

    `weights_dir` has `model.safetensors` and `tokenizer.json`. Without it they are downloaded from `hub_url` into
    `cache_dir`; without `hub_url` the installed weights are used. `cache_dir` also keeps the graph built from them
    (all nodes of a machine may share it); without it the node's own folder is used, which counts towards its quota.
    `openai` asks the server at `url` (such as `https://api.openai.com/v1`) for vectors of `model`, which have
    `dimension` numbers; its key, if it needs one, is the content of `api_key_file` or of OPENAI_API_KEY.
    """

    kind: Literal["minilm", "openai", "hash"] = "minilm"
    weights_dir: str | None = None
    hub_url: str | None = None
    cache_dir: str | None = None
    url: str = ""
    model: str = ""
    dimension: int = 0
    api_key_file: str | None = None


class QdrantLaunch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Qdrant server or cluster that holds the vector index; its key is the content of `api_key_file`."""

    url: str
    api_key_file: str | None = None


class LaunchFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a node needs to start. Times are unix seconds (UTC), sizes are bytes."""

    schema: Literal[1] = 1
    session_id: str
    launch_token: str
    host: str = "127.0.0.1"
    port: int
    data_dir: str
    hotkey_file: str = ""
    """The node's own key; empty when `hotkey` names one that the gateway keeps."""
    hotkey: str = ""
    """Address of a hotkey that the gateway keeps: the node signs with a session key, which the gateway certifies."""
    gateway: str = ""
    """Base URL at which a node without its hotkey asks for the hotkey's signature; empty: it has none to ask."""
    controller_public_key: str
    """64 hex digits: the only key that may administer the node and use its private namespaces."""
    ends_at: float | None = None
    """When the node ends by itself, even without a gateway; null: never."""
    storage_bytes: int = 10 * 1024**3
    memory_bytes: int = 2 * 1024**3
    netuid: int = 450
    chain_endpoint: str = ""
    chain_endpoints: tuple[str, ...] = ()
    """JSON-RPC addresses of the chain, whose answers are compared; `chain_endpoint` is added if named."""
    chain_reset_after_s: float = 0.0
    """The gateway's chain.reset_after_s, for the node's own chain syncer."""
    environment: Literal["local", "testnet", "mainnet"] = "local"
    """On mainnet every writing or private request must be signed; elsewhere public ones need not be."""
    embedder: EmbedderLaunch | None = None
    """null: the embedder of the settings."""
    qdrant: QdrantLaunch | None = None
    """Where the index is; null: in the node's folder, by the embedded engine."""
    miner: MinerSettings | None = None
    """The gateway's settings for its nodes; null: the settings of the node's process."""
    log_file: str | None = None
    """File to which stdout and stderr are appended; null: they are not redirected."""

    def controller(self) -> bytes:
        """Return the controller's 32-byte public key. Raises MalformedHotkey, but not for a launch file from `read`."""
        text = self.controller_public_key
        return bytes.fromhex(text) if len(text) == 64 and _is_hex(text) else ss58.decode(text)

    def named_hotkey(self) -> bytes | None:
        """Return the public key that `hotkey` names; None: the node has the key. Raises MalformedHotkey."""
        return ss58.decode(self.hotkey) if self.hotkey else None

    def chain(self) -> tuple[str, ...]:
        """Return the addresses of the chain without duplicates; empty when the node follows no chain."""
        return tuple(dict.fromkeys(url for url in (self.chain_endpoint, *self.chain_endpoints) if url))

    def __repr__(self) -> str:
        return f"LaunchFile(session_id={self.session_id!r}, address='{self.host}:{self.port}')"


def embedder_of(settings: MinerSettings) -> EmbedderLaunch:
    """Return the embedder that the settings name; without `miner.cache_dir` it has no cache folder yet."""
    return EmbedderLaunch(
        kind=settings.embedder,
        weights_dir=settings.weights_dir or None,
        hub_url=settings.hub_url if settings.weights == "hub" else None,
        cache_dir=settings.cache_dir or None,
        url=settings.embedding_url,
        model=settings.embedding_model,
        dimension=settings.embedding_dimension,
    )


def write(path: Path, launch: LaunchFile) -> None:
    """Write the file atomically with mode 0600, also over a file with another mode.

    Raises LaunchFileError when a field is invalid, OSError when it cannot be written.
    """
    check(launch)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(msgspec.json.format(msgspec.json.encode(launch)))
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)


def read(path: Path) -> LaunchFile:
    """Read and check the file. Raises LaunchFileError that names the file and says what would be right."""
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(1_000_000)
    except OSError as error:
        raise LaunchFileError(f"{path}: {error.strerror}") from error
    if mode & 0o077:
        raise LaunchFileError(f"{path}: mode is {mode:04o}, others can read it; it must be 0600 (chmod 600 {path})")
    try:
        launch = wire.decode(content, LaunchFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LaunchFileError(f"{path}: {error}") from error
    check(launch, where=str(path))
    return launch


def check(launch: LaunchFile, where: str = "launch file") -> None:
    """Raise LaunchFileError when a field is invalid; `where` names the source in the text."""
    for name, (least, most) in _BOUNDS.items():
        value = getattr(launch, name)
        if value is not None and not least <= value <= most:
            raise LaunchFileError(f"{where}: {name} is {value}; it must be {least} to {most}")
    for name, url in _urls(launch):
        if not is_http_url(url):
            raise LaunchFileError(f"{where}: {name} is {mask_url(url)!r}, which is no http(s) URL")
    try:
        launch.controller()
    except MalformedHotkey as error:
        raise LaunchFileError(
            f"{where}: controller_public_key must be an address, as `engram wallet show` prints it, or 64 hex digits;"
            f" {error}"
        ) from None
    try:
        launch.named_hotkey()
    except MalformedHotkey as error:
        raise LaunchFileError(f"{where}: hotkey must be an address; {error}") from None
    for name in ("session_id", "launch_token", "data_dir"):
        if not getattr(launch, name):
            raise LaunchFileError(f"{where}: {name} must not be empty")
    if bool(launch.hotkey_file) == bool(launch.hotkey):
        raise LaunchFileError(
            f"{where}: one of hotkey_file (the node has its key) and hotkey (the gateway keeps it) must be given,"
            f" {'not both' if launch.hotkey else 'and none is'}"
        )
    for name in ("data_dir", "hotkey_file", "log_file"):
        _check_path(getattr(launch, name), f"{where}: {name}")
    if launch.embedder is not None:
        for name in ("weights_dir", "cache_dir", "api_key_file"):
            _check_path(getattr(launch.embedder, name), f"{where}: embedder.{name}")
        check_embedder(launch.embedder, where)
    if launch.qdrant is not None:
        _check_path(launch.qdrant.api_key_file, f"{where}: qdrant.api_key_file")


def _check_path(path: str | None, where: str) -> None:
    if path is not None and path.startswith("~"):
        raise LaunchFileError(f"{where} is {path}: write the whole path, ~ stands for nothing here")


def _urls(launch: LaunchFile) -> Iterator[tuple[str, str]]:
    for url in launch.chain():
        yield "chain_endpoints", f"http{url[2:]}" if url.startswith(("ws://", "wss://")) else url
    if launch.gateway:
        yield "gateway", launch.gateway
    if launch.qdrant is not None:
        yield "qdrant.url", launch.qdrant.url
    if launch.embedder is not None:
        for name in ("url", "hub_url"):
            if url := getattr(launch.embedder, name):
                yield f"embedder.{name}", url


def check_embedder(chosen: EmbedderLaunch, where: str) -> None:
    """Raise LaunchFileError when an `openai` embedder lacks a required field."""
    if chosen.kind == "openai" and not (chosen.url and chosen.model and 0 < chosen.dimension <= _MOST_NUMBERS):
        raise LaunchFileError(
            f"{where}: embedder openai needs url, model and dimension (at most {_MOST_NUMBERS} numbers a vector)"
        )


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)
