"""Picture of the lineage of a version: data on the left, aliases on the right."""

from __future__ import annotations

import networkx

from cytoray_analysis.pictures import figure_png, new_figure
from cytoray_services.promotion.lineage import Lineage

COLOURS = {
    "data": "#cfe8d5",
    "recipe": "#dfe3f5",
    "code": "#dfe3f5",
    "weights": "#f3e2c7",
    "run": "#eeeeee",
    "version": "#fbe3a2",
    "alias": "#f6cfc4",
}
_COLUMN, _ROW = 2.7, 0.85  # inches


def draw_lineage(lineage: Lineage) -> bytes:
    """Draw a lineage, PNG.

    Inputs are to the left of their results; the version of the lineage has a thick border.
    """
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(node.key for node in lineage.nodes)
    graph.add_edges_from((edge.before, edge.after) for edge in lineage.edges)
    columns = _columns(graph)
    rows = max(map(len, columns))
    places = {
        key: (number * _COLUMN, ((len(column) - 1) / 2 - row) * _ROW)
        for number, column in enumerate(columns)
        for row, key in enumerate(column)
    }
    figure = new_figure(width=len(columns) * _COLUMN, height=max(2.0, (rows + 0.6) * _ROW))
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-_COLUMN / 2, (len(columns) - 0.5) * _COLUMN)
    axes.set_ylim(-(rows + 0.3) / 2 * _ROW, (rows + 0.3) / 2 * _ROW)
    for edge in lineage.edges:
        (x0, y0), (x1, y1) = places[edge.before], places[edge.after]
        arrow = {"arrowstyle": "-|>", "color": "#777777", "shrinkA": 48, "shrinkB": 48, "linewidth": 1}
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=arrow, zorder=1)
        if edge.label:
            share = 0.5
            spot = (x0 + (x1 - x0) * share, y0 + (y1 - y0) * share + 0.06)
            axes.text(*spot, edge.label, ha="center", va="bottom", fontsize=7, color="#555555", zorder=4)
    for node in lineage.nodes:
        box = {
            "boxstyle": "round,pad=0.4",
            "facecolor": COLOURS[node.kind],
            "edgecolor": "black" if node.key == lineage.version else "#999999",
            "linewidth": 2 if node.key == lineage.version else 0.8,
        }
        axes.text(*places[node.key], node.label, ha="center", va="center", fontsize=8.5, bbox=box, zorder=3)
    return figure_png(figure)


def _columns(graph: networkx.DiGraph[str]) -> list[list[str]]:
    """Place every node in the column before its first successor; nodes without a successor come last."""
    depth: dict[str, int] = {}
    order = list(networkx.topological_sort(graph))
    for key in order:
        depth[key] = 1 + max((depth[before] for before in graph.predecessors(key)), default=-1)
    for key in reversed(order):
        after = [depth[follower] for follower in graph.successors(key)]
        if after and not list(graph.predecessors(key)):
            depth[key] = min(after) - 1
    columns: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=0))]
    for key in graph.nodes:
        columns[depth[key]].append(key)
    return columns
