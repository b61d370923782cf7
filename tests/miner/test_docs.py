"""The lines that the page on nodes shows work as they stand, but for where the node and the key are."""

import re
from pathlib import Path

import pytest

from engram.hotkeys import wallet
from tests.miner.nodes import CONTROLLER, ROOT, node


def test_the_python_that_the_page_shows_stores_finds_and_proves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "miner.md").read_text(encoding="utf-8")
    match = re.search(r"## From Python\n```python\n(.*?)```", page, re.DOTALL)
    assert match is not None
    hotkeys = tmp_path / ".bittensor" / "wallets" / "engram" / "hotkeys"
    hotkeys.mkdir(parents=True)
    wallet.write_hotkey_file(hotkeys / "me", CONTROLLER)
    monkeypatch.setenv("HOME", str(tmp_path))
    with node(tmp_path) as running:
        shown: dict[str, object] = {}
        exec(match.group(1).replace(":18100", f":{running.port}"), shown)
        assert "Otters" in getattr(shown["best"], "text", "")
