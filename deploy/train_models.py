"""Train models that come with Cytoray on one machine without Ray, such as a borrowed one with an accelerator.

    python deploy/train_models.py --pack data.tar nuclei cells-phase       # here: only the images that they need
    python deploy/train_models.py --data data.tar --out runs --minutes 6 nuclei cells-phase   # there
    python deploy/ship_model.py nuclei --checkpoints runs/nuclei           # here: decoding, scores, card

A run that was interrupted continues if its folder in ``--out`` is there. It ends with the epochs of its recipe, or
with its share of the minutes; the learning rate falls accordingly.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import torch

from cytoray_analysis.errors import CytorayError
from cytoray_training.recipe import Recipe, load_recipe

RECIPES = Path(__file__).resolve().parents[1] / "training" / "recipes" / "shipped"


def main() -> int:
    """Pack data, or train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--pack", type=Path, metavar="TAR", help="write the data of these models, and train nothing")
    parser.add_argument("--data", type=Path, metavar="TAR", help="what --pack wrote; by default the recipes' own data")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the training runs")
    parser.add_argument("--minutes", type=float, help="for all models together; by default the epochs of the recipes")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides")
    arguments = parser.parse_args()
    try:
        recipes = {name: load_recipe(RECIPES / f"{name}.yaml", []) for name in arguments.names}
    except CytorayError as error:
        print(f"error: {error.message}" + (f"\n hint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_status
    if arguments.pack is not None:
        pack(recipes, arguments.pack)
        return 0
    with tempfile.TemporaryDirectory() as unpacked:
        if arguments.data is not None:
            with tarfile.open(arguments.data) as archive:
                archive.extractall(unpacked, filter="data")
        ends = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
        for index, (name, recipe) in enumerate(recipes.items()):
            overrides = [*arguments.overrides]
            if arguments.data is not None:
                overrides.append(f"data.root=[{', '.join(str(Path(unpacked, place.name)) for place in roots(recipe))}]")
            if ends is not None:
                share = (ends - time.monotonic()) / 60 / (len(recipes) - index)
                overrides.append(f"training.minutes={max(share, 0.1):.2f}")
            status = train(name, arguments.out / name, overrides)
            if status:
                return status
    return 0


def roots(recipe: Recipe) -> list[Path]:
    """Return the folders with the data of a recipe."""
    return [Path(root) for root in recipe.data.roots]


def pack(recipes: dict[str, Recipe], path: Path) -> None:
    """Write the data of recipes into one archive."""
    with tarfile.open(path, "w:gz") as archive:
        for root in dict.fromkeys(root for recipe in recipes.values() for root in roots(recipe)):
            archive.add(root, root.name)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MB")


def train(name: str, folder: Path, overrides: list[str]) -> int:
    """Train one model in a process of its own, on all accelerators of this machine, and return the exit status."""
    devices = torch.cuda.device_count()
    overrides = [f"scale.gpus_per_worker={min(devices, 1)}", "training.engine=torch", *overrides]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(max(devices, 1))]
    command += ["-m", "cytoray_training.standalone", str(RECIPES / f"{name}.yaml"), "--folder", str(folder)]
    command += [word for one in overrides for word in ("--set", one)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
