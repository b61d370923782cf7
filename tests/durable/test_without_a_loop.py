"""What only reads a file starts without trio: the index worker of each node does."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["engram.durable.connection", "engram.memory.index.edge_worker"])
def test_it_is_imported_without_trio(module: str) -> None:
    code = f"import sys, {module}; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_needs_a_loop_is_named_where_all_is_and_nothing_else_is() -> None:
    import engram.durable

    assert {name for name in engram.durable.__all__ if hasattr(engram.durable, name)} == set(engram.durable.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Reader'"):
        _ = engram.durable.Reader
