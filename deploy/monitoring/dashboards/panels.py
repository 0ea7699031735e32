"""What the dashboards have in common: how a graph, a number and a dashboard look here.

The description of every panel states what it shows and which values are healthy. Panels with an alert link to its
runbook. The links begin with ``docs/runbooks/``; the chart adds the address of the documentation as prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

_WIDTH = 24
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
Steps = Sequence[tuple[float, Literal["orange", "red"]]]


def number(
    title: str, about: str, query: str, *, unit: str, steps: Steps = (), runbook: str | None = None
) -> stat.Panel:
    """Describe one number, with its history in the background.

    Parameters
    ----------
    title, about
        What it shows, and which values are healthy.
    query
        In PromQL.
    unit
        Grafana's name of the unit.
    steps
        The values from which on it is orange or red; green below.
    runbook
        The alert that uses the same query.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(_SOURCE)
        .unit(unit)
        .thresholds(_thresholds(steps))
        .color_mode(BigValueColorMode.VALUE if steps else BigValueColorMode.NONE)
        .graph_mode(BigValueGraphMode.AREA)
        .height(4)
        .span(_WIDTH // 6)
        .with_target(Dataquery().expr(query).ref_id("A"))
    )
    return panel.links([_runbook(runbook)]) if runbook else panel


def graph(
    title: str,
    about: str,
    *queries: tuple[str, str],
    unit: str,
    steps: Steps = (),
    most: float | None = None,
    stacked: bool = False,
    runbook: str | None = None,
) -> timeseries.Panel:
    """Describe a graph over time.

    Parameters
    ----------
    title, about
        What it shows, and which values are healthy.
    queries
        PromQL, and the legend of the line.
    unit
        Grafana's name of the unit.
    steps
        The values from which on it is orange or red, drawn as dashed lines.
    most
        The end of the axis; it fits the data by default.
    stacked
        Whether lines are stacked, as parts of a whole.
    runbook
        The alert that uses the same query.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(_SOURCE)
        .unit(unit)
        .min(0)
        .thresholds(_thresholds(steps))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .fill_opacity(30 if stacked else 8)
        .height(8)
        .span(_WIDTH // 3)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if steps:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED))
    if most is not None:
        panel.max(most)
    if runbook:
        panel.links([_runbook(runbook)])
    for letter, (query, legend) in zip("ABCDEF", queries, strict=False):
        panel.with_target(Dataquery().expr(query).legend_format(legend).ref_id(letter))
    return panel


def dashboard(name: str, title: str, about: str, *, variables: Sequence[tuple[str, str]]) -> Dashboard:
    """Create a dashboard without panels.

    Parameters
    ----------
    name
        Name of its file, and part of its uid.
    title, about
        What it shows.
    variables
        Variables to filter by: the label, and a metric that has it.
    """
    begun = (
        Dashboard(title)
        .uid(f"cytoray-{name}")
        .description(about)
        .tags(["cytoray"])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            DashboardLink("Cytoray")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["cytoray"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for label, metric in variables:
        begun.with_variable(
            QueryVariable(label)
            .label(label.capitalize())
            .datasource(_SOURCE)
            .query(f"label_values({metric}, {label})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")  # also series without this label, as on one machine
        )
    return begun


def _thresholds(steps: Steps) -> ThresholdsConfig:
    green = Threshold(value=None, color="green")
    return (
        ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([green, *(Threshold(value=value, color=color) for value, color in steps)])
    )


def _runbook(alert: str) -> DashboardLink:
    return (
        DashboardLink(f"Runbook {alert}")
        .type(DashboardLinkType.LINK)
        .url(f"docs/runbooks/{alert}.md")
        .target_blank(True)
    )
