"""Write the dashboards as Grafana reads them: ``python deploy/monitoring/dashboards/build.py [FOLDER]``.

The default folder is in the chart. The files there are generated: change the sources next to this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cluster_board import cluster
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from service_board import service
from training_board import training

from cytoray_analysis.files import write_whole

CHART = Path(__file__).resolve().parents[3] / "helm" / "cytoray" / "files" / "dashboards"


def main(folder: Path) -> None:
    """Write one file for each dashboard."""
    for name, described in (("service", service()), ("training", training()), ("cluster", cluster())):
        board = described.build()
        for number, panel in enumerate(board.panels or [], start=1):
            panel.id_val = number  # part of the address of a single panel
        text = json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True)
        write_whole(folder / f"{name}.json", text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CHART)
