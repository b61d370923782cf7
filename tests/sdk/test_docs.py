"""The Python in docs/miner.md runs as it stands there, on a node of this key."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from engram.hotkeys import wallet
from tests.miner.nodes import CONTROLLER, node

pytestmark = pytest.mark.serial

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "miner.md").read_text(encoding="utf-8"), re.DOTALL)
_SHARES_OF_ONE_NODE = 'NodeClient(url, keypair, namespace="vault") as other'


def test_the_examples_define_every_name_they_use_and_run(tmp_path: Path) -> None:
    wallet.write_hotkey_file(tmp_path / ".bittensor" / "wallets" / "default" / "hotkeys" / "default", CONTROLLER)
    first, shares, adapter = BLOCKS
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with node(tmp_path / "one") as one, node(tmp_path / "two") as two:
        assert _SHARES_OF_ONE_NODE in shares
        shares = shares.replace(
            _SHARES_OF_ONE_NODE, _SHARES_OF_ONE_NODE.replace("url", f'"http://127.0.0.1:{two.port}"')
        )
        code = (first + shares).replace("http://127.0.0.1:18100", f"http://127.0.0.1:{one.port}")
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert CONTROLLER.public_key.hex() in done.stdout
    assert "Otters hold hands" in done.stdout
    assert "EngramVectorStore" in adapter
