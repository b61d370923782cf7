"""What commands on a node's data folder share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engram.cli.failures import CommandFailed

_TRUTH = "truth.db"
Data = Annotated[Path, Parameter(help="The node's data folder (`data_dir` of its launch file).")]


def truth_of(data: Path) -> Path:
    """Return the record database of a node's folder. Raises CommandFailed."""
    truth = data / _TRUTH
    if not truth.is_file():
        raise CommandFailed(f"{truth} is not there: name the data folder of a node")
    return truth
