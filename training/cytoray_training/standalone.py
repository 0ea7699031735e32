"""Train without Ray: ``torchrun --nproc-per-node 2 -m cytoray_training.standalone RECIPE [--set FIELD=VALUE]…``.

For debugging, and for clusters that start processes themselves. Checkpoints are in ``--folder``, by default
``home/runs/<model>-<identity>-standalone``; nothing is registered.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch
from torch import distributed

from cytoray_analysis.errors import CytorayError
from cytoray_services.settings import load_settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import load_recipe
from cytoray_training.run.loop import train
from cytoray_training.run.reporter import FolderReporter


def main() -> int:
    """Train in this process, started by torchrun; rank 0 prints the best scores as JSON."""
    parser = argparse.ArgumentParser(description="Train without Ray, under torchrun.")
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides")
    parser.add_argument("--folder", type=Path, help="of the training run, which continues if it has checkpoints")
    arguments = parser.parse_args()
    workers = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    try:
        recipe = load_recipe(arguments.recipe, list(dict.fromkeys([*arguments.overrides, f"scale.workers={workers}"])))
        plan = make_plan(recipe, load_settings())
        cuda = torch.cuda.is_available() and recipe.scale.gpus_per_worker > 0
        device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
        torch.set_num_threads(recipe.scale.cpus_per_worker)
        if workers > 1:
            distributed.init_process_group("nccl" if cuda else "gloo")
        folder = arguments.folder or plan.home / "runs" / f"{recipe.model.name}-{plan.identity[:12]}-standalone"
        progress = train(plan, FolderReporter(folder), device=device)
    except CytorayError as error:
        print(f"error: {error.message}" + (f"\n hint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_status
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"folder": str(folder), "best": progress.best}))
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
