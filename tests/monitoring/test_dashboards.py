"""The dashboards: current, of metrics that are exported, and as Grafana's own types have them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
import pytest

from deploy.dashboards.__main__ import FOLDER
from deploy.dashboards.boards import BOARDS
from deploy.dashboards.build import built, queries
from deploy.dashboards.model import Board
from tests.mcp.official_sides import MODULES, NODE
from tests.monitoring.promql import faults, labels_of, of_selector, selectors

WIDTH: Final = 24


def document(board: Board) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / f"{board.name}.json").read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: str(board.name))
def test_a_dashboard_is_current_and_reads_what_is_exported(board: Board) -> None:
    shown = document(board)
    assert built(board) == (FOLDER / f"{board.name}.json").read_text(encoding="utf-8"), (
        "run python -m deploy.dashboards"
    )
    assert queries(shown)
    for title, expression in queries(shown):
        assert faults(expression.replace("$instance", ".*")) == [], title
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= WIDTH for panel in shown["panels"])


def test_files_and_tables_are_the_same_dashboards() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {board.name for board in BOARDS}


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    for board in BOARDS:
        for row in board.rows:
            for panel in row.panels:
                for query in panel.queries:
                    kept = re.findall(r"by \(([^)]*)\)", query.expression)
                    labels = set(re.findall(r"\w+", kept[0])) if kept else {"instance", *labels_in(query.expression)}
                    named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
                    assert named <= labels or "sum(" in query.expression or "max(" in query.expression, panel.title


def labels_in(expression: str) -> set[str]:
    tree = promql.parse(expression.replace("$instance", ".*"))
    return {label for selector in selectors(tree) for label in labels_of(selector.name)}


def test_a_label_that_is_not_there_is_found_in_a_panel_too() -> None:
    [selector] = selectors(promql.parse('engram_nodes{backends="x"}'))
    assert list(of_selector(selector)) == ["engram_nodes has no label backends"]


@pytest.mark.heavy
@pytest.mark.external
@pytest.mark.skipif(
    not (MODULES / "@grafana" / "schema").is_dir() or shutil.which("node") is None,
    reason="there are no npm packages (scripts/setup-mcp-node)",
)
def test_grafana_s_own_types_take_every_dashboard(tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(MODULES)
    for board in BOARDS:
        text = built(board).replace('"$schema"', '"schema"')
        source = f'import type {{ Dashboard }} from "@grafana/schema";\nconst made: Dashboard = {text};\nvoid made;\n'
        (tmp_path / f"{board.name}.ts").write_text(source, encoding="utf-8")
    compiler = MODULES / "typescript" / "bin" / "tsc"
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext"]
    found = subprocess.run(
        [str(NODE), str(compiler), *options, *(str(path) for path in sorted(tmp_path.glob("*.ts")))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-4_000:]
