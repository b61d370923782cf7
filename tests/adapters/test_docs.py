"""The LangChain example of docs/miner.md runs as it stands there, behind the example of the SDK before it."""

import re
from pathlib import Path

from engram.sdk import NodeClient
from tests.miner.nodes import CONTROLLER, NodeProcess

PAGE = (Path(__file__).parents[2] / "docs" / "miner.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_runs(running: NodeProcess) -> None:
    names = {"NodeClient": NodeClient, "url": f"http://127.0.0.1:{running.port}", "keypair": CONTROLLER}
    [example] = [block for block in BLOCKS if "langchain" in block]
    exec(example, names)
    assert vars(names["best"])["page_content"] == "Otters hold hands while they sleep."
    names["client"].close()  # type: ignore[attr-defined]  # what the example has made
