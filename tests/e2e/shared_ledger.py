"""Several gateway processes on one PostgreSQL ledger."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.gateway_process import FAST, GatewayProcess


@contextlib.contextmanager
def running(
    address: str, folder: Path, settings: str = FAST, *, number: int = 2, lease_s: float = 2.0
) -> Iterator[list[GatewayProcess]]:
    """Started, each with a data folder of its own."""
    settings = f'{settings}\n[ledger]\nurl = "{address}"\nlease_s = {lease_s}\n'
    started = [GatewayProcess(folder / f"g{each}", settings=settings) for each in range(number)]
    try:
        for each in started:
            each.start()
        yield started
    finally:
        for each in started:
            if each.is_running():
                each.terminate()
            for node in each.nodes():
                os.kill(node, 9)


def of_one_operator(folder: Path) -> str:
    """Settings of gateways that take each other's quotes: play money goes to the same key."""
    key = folder / "refund-key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    return f'{FAST}\n[payments]\nrefund_key_file = "{key}"\n'
