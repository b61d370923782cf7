"""Builds Grafana's JSON of the dashboards, by Grafana's own typed builders."""

import json
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model

from deploy.dashboards.model import Board, Panel, Query

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT, _NUMBER_HEIGHT, _WIDTH = 7, 4, 24
_GRAPHS, _NUMBERS = 3, 6
"""Panels side by side."""


def built(board: Board) -> str:
    """Return a dashboard as Grafana imports it."""
    source = dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source")
    instances = (
        dashboard.QueryVariable("instance")
        .label("Instance")
        .datasource(SOURCE)
        .query('label_values(up{job="engram"}, instance)')
        .include_all(True)
        .multi(True)
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )
    made = (
        dashboard.Dashboard(board.title)
        .uid(f"engram-{board.name}")
        .tags(["engram"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .editable()
        .with_variable(source)
        .with_variable(instances)
    )
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_number(panel) if panel.is_number else _graph(panel))
    found = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    for variable in found["templating"]["list"]:
        for stray in [name for name in variable if name.startswith("auto")]:
            del variable[stray]  # fields of an interval, which Grafana's schema refuses here
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def _graph(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(_WIDTH // _GRAPHS)
        .height(_HEIGHT)
        .min(0)
        .fill_opacity(8)
        .show_points(common_model.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_model.LegendDisplayMode.LIST)
            .placement(common_model.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI))
    )
    for query, letter in zip(panel.queries, "ABC", strict=False):
        made = made.with_target(_target(query, letter))
    return made


def _number(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .title(panel.title)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(_WIDTH // _NUMBERS)
        .height(_NUMBER_HEIGHT)
    )
    for query, letter in zip(panel.queries, "ABC", strict=False):
        made = made.with_target(_target(query, letter).instant())
    return made


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(letter)


def queries(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return title and expression of every query in a dashboard's JSON, rows opened."""
    found = []
    for panel in document["panels"]:
        for each in [panel, *panel.get("panels", [])]:
            found += [(each["title"], target["expr"]) for target in each.get("targets", [])]
    return found
