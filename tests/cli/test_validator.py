"""`engram validator` on a data folder where no validator has run."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_doctor import write


@pytest.mark.parametrize("command", [("status",), ("explain", "17")])
def test_where_none_has_run_the_way_to_start_one_is_told(run: Run, here: Path, command: tuple[str, ...]) -> None:
    (here / "data").mkdir(mode=0o700)
    write(here / "data", lambda connection: None)
    refused = run("validator", *command)
    assert refused.code == 1
    assert "no validator of subnet 450 has run in the data folder data yet" in refused.err
    assert "engram run validator" in refused.err
