"""The settings file that `make reverse-proxy-config` makes: the original's keys, with a hotkey to be filled in."""

import os
from pathlib import Path
from typing import Final

import msgspec

from engram import files
from engram.proxy.settings.model import FINNEY, LOCAL_SERVICE

PLACEHOLDER: Final = "<your-hotkey>"


def example() -> bytes:
    """Return the file's content."""
    document = {
        "server": {"host": "0.0.0.0", "port": 8080, "reload": False, "log_level": "INFO"},  # noqa: S104
        "auth": {
            "miner_hotkey": PLACEHOLDER,
            "allowed_delta_ms": 8000,
            "cache_duration": 3600,
            "chain_endpoint": FINNEY,
            "allowed_senders": [],
        },
        "services": {"training_server_url": LOCAL_SERVICE, "inference_server_url": LOCAL_SERVICE},
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def create(path: Path) -> bool:
    """Write the example; return False, and leave it alone, when there is a file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        files.put(path, example(), os.link)
    except FileExistsError:
        return False
    return True
