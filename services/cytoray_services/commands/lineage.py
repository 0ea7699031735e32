"""``cytoray models show --lineage``: print and draw the origin of a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cytoray_analysis.files import write_whole
from cytoray_services.commands.output import print_json

if TYPE_CHECKING:
    from cytoray_services.registry import ModelVersion, Registry


def show_lineage(registry: Registry, version: ModelVersion, picture: Path | None, json: bool) -> None:
    """Print the lineage of a version, and write its picture if a path is given."""
    from cytoray_services.promotion.lineage import lineage_of
    from cytoray_services.promotion.lineage_picture import draw_lineage

    lineage = lineage_of(registry, version)
    if picture is not None:
        write_whole(picture, draw_lineage(lineage))
    if json:
        print_json({**vars(lineage), "picture": picture})
        return
    labels = {node.key: " ".join(node.label.split("\n")) for node in lineage.nodes}
    width = max((len(labels[edge.before]) for edge in lineage.edges), default=0)
    for edge in lineage.edges:
        what = f"   ({edge.label})" if edge.label else ""
        typer.echo(f"{labels[edge.before]:{width}}  →  {labels[edge.after]}{what}")
    for node in lineage.nodes:
        if node.detail:
            typer.echo(f"{node.kind:8} {node.detail}")
    if picture is not None:
        typer.echo(f"picture: {picture}")
