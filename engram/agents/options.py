"""What `engram miner mcp` hands to the process that serves: read from its command line, so it holds no secret."""

from typing import Literal

import msgspec

EmbedderName = Literal["minilm", "hash"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The node, the key, what of it agents may use, and where they reach it."""

    url: str
    key: str | None = None
    """Hotkey file."""
    namespaces: tuple[str, ...] = ()
    """Private ones."""
    public: bool = False
    """Whether agents may also use the namespace that everyone can read."""
    embedder: EmbedderName = "minilm"
    listen: str | None = None
    """HOST:PORT of HTTP; None: standard input and output."""
    hosts: tuple[str, ...] = ()
    """Names that HTTP clients reach it by, beside the address that it is bound to."""
    open_loopback: bool = False
    """Whether programs on this machine need no token."""
    revoked: str = ""
    """File that keeps revoked tokens."""
