"""The list of panels that stay empty in `make demo-monitoring`, which must all have data there but those of the list.

The demo itself is a test for the night (tests/e2e/test_demo_monitoring.py).
"""

from urllib.parse import unquote

from deploy.dashboards.boards import BOARDS
from tests.monitoring.panels import EMPTY, filled, surprises

PANELS = {(board.name, panel.title) for board in BOARDS for row in board.rows for panel in row.panels}


def test_the_list_names_panels_that_are_there_and_may_only_shrink() -> None:
    assert EMPTY.keys() <= PANELS
    assert len(EMPTY) <= 3


def test_a_panel_that_is_empty_and_one_that_is_not_any_more_are_both_told() -> None:
    found = {panel: panel not in EMPTY for panel in PANELS}
    assert surprises(found) == []
    assert surprises(found | {("fleet", "Nodes"): False}) == ["fleet: Nodes is empty"]
    [filled_now] = surprises(found | {("fleet", "Margin, 7 days"): True})
    assert filled_now == "fleet: Margin, 7 days has data: take it off the list"


async def test_a_query_that_is_answered_with_no_number_is_no_data() -> None:
    async def ask(path: str) -> dict[str, object]:
        expression = unquote(path)
        if "engram_nodes{" in expression:
            return {"result": [{"value": [0, "NaN"]}, {"value": [0, "2"]}]}
        return {"result": [{"value": [0, "NaN"]}]}

    found = await filled(ask)
    assert {panel for panel, has in found.items() if has} == {("fleet", "Nodes")}
    assert found.keys() == PANELS
