"""Every code block of docs/actors.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.crashes import may_crash

TEXT = (Path(__file__).parents[2] / "docs" / "actors.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@may_crash(RuntimeError, ValueError)
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_code_block_of_the_documentation_runs(number: int) -> None:
    exec(compile(BLOCKS[number], f"docs/actors.md, block {number}", "exec"), {"__name__": f"block_{number}"})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 4


def test_every_public_name_is_documented() -> None:
    import actors
    import actors.testing

    for module in (actors, actors.testing):
        for name in getattr(module, "__all__", None) or vars(module):
            thing = getattr(module, name)
            if isinstance(thing, type) and thing.__module__.startswith("actors"):
                assert thing.__doc__, name
                for attribute, member in vars(thing).items():
                    if callable(member) and not attribute.startswith("_") and hasattr(member, "__code__"):
                        assert member.__doc__, f"{name}.{attribute}"
