"""Writes `deploy/grafana/*.json` from the tables."""

from pathlib import Path
from typing import Final

from deploy.dashboards.boards import BOARDS
from deploy.dashboards.build import built

FOLDER: Final = Path(__file__).parents[1] / "grafana"


def main() -> None:
    """Write every dashboard."""
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(built(board), encoding="utf-8")


if __name__ == "__main__":
    main()
