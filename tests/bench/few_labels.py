"""How good is a model from a few labelled images: started from another model, or from random weights?

python tests/bench/few_labels.py nuclei DATASET [--labels 2 4 8 16] [--seeds 3] [--before DATASET] [--home FOLDER]
    [--set training.epochs=12]

For each number of labels and each seed, that many images of the split `train` become a folder of their own. One model
is trained on it from the start, another one from random weights, each with the recipe of `cytoray recipe init`. Both
are scored on the split `val`, which neither read, as is the start itself. With --before, started models are scored on
data of the start as well: what they have forgotten. Prints tables in Markdown; differences are paired by seed. Training
runs that were completed are not repeated. With --set, the recipes of both ways get the same values, such as an equal
number of crops.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset, open_dataset
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.registry import load_bundle
from cytoray_services.settings import load_settings

METRICS = ("msa", "ap50")
WAYS = ("start", "scratch")
CYTORAY = [sys.executable, "-c", "from cytoray_services.commands.root import main; main()"]


def few_images(dataset: Dataset, count: int, seed: int, folder: Path) -> Path:
    """Link some training images with their masks into a folder; more of them begin with the same images."""
    items = dataset.split("train").items
    chosen = np.random.default_rng(seed).permutation(len(items))[:count]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in chosen.tolist():
        item = items[number]
        assert item.truth is not None
        for kind, path in (("images", item.image), ("masks", item.truth)):
            target = folder / kind / f"{item.image.stem}{path.suffix}"
            if not target.exists():
                target.symlink_to(path.resolve())
    return folder


def train(data: Path, way: str, start: str, seed: int, home: Path, given: Sequence[str]) -> Path:
    """Train on a folder; return the bundle."""
    recipe, result = (data.parent / f"{data.name}-{way}{suffix}" for suffix in (".yaml", ".json"))
    if not result.exists():
        words = ["--start", start] if way == "start" else []
        if not recipe.exists():
            _run(["recipe", "init", str(data), *words, "--out", str(recipe)], home)
        changes = [*given, f"training.seed={seed}", f"model.name={data.name}-{way}"]
        done = _run(["train", str(recipe), *(f"--set={one}" for one in changes), "--json"], home)
        result.write_text(done, encoding="utf-8")
    return Path(json.loads(result.read_text(encoding="utf-8"))["bundle"])


def _run(words: list[str], home: Path) -> str:
    environment = os.environ | {"CYTORAY_HOME": str(home)}
    return subprocess.run([*CYTORAY, *words], env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout


def scores(bundle: Bundle, dataset: Dataset) -> dict[str, float]:
    """Score a model on the split `val`."""
    found = evaluate(Predictor(bundle), dataset.split("val")).metrics
    return {name: found[name] for name in METRICS}


def row(label: str, found: list[dict[str, float]]) -> str:
    """Return a row of a table: means over seeds, and their range where there are several."""
    cells = []
    for name in METRICS:
        values = [one[name] for one in found]
        cells.append(f"{fmean(values):.3f}" + (f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""))
    return f"| {label} | " + " | ".join(cells) + " |"


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("start")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--labels", type=int, nargs="*", default=(2, 4, 8, 16))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--before", type=Path, nargs="*", default=())
    parser.add_argument("--home", type=Path, default=Path("few-labels"))
    parser.add_argument("--set", nargs="*", default=())
    words = parser.parse_args()
    dataset, before = open_dataset(words.dataset), [open_dataset(path) for path in words.before]
    head = "| model | " + " | ".join(METRICS) + " |\n|---|" + "---|" * len(METRICS)
    start = load_bundle(words.start, load_settings())[0]
    print(f"{words.dataset.name}, val\n\n{head}\n{row(words.start, [scores(start, dataset)])}", flush=True)
    forgotten: dict[int, list[list[dict[str, float]]]] = {}
    for count in words.labels:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for seed in range(words.seeds):
            name = f"{words.dataset.name.replace('_', '-')}-{count}-{seed}"
            data = few_images(dataset, count, seed, words.home / name)
            for way in WAYS:
                bundle = Bundle.load(train(data, way, words.start, seed, words.home, words.set))
                found[way].append(scores(bundle, dataset))
                if way == "start" and before:
                    forgotten.setdefault(count, []).append([scores(bundle, one) for one in before])
        for way in WAYS:
            print(row(f"{count} labels, {way}", found[way]), flush=True)
        gains = [
            {name: one[name] - other[name] for name in METRICS}
            for one, other in zip(found["start"], found["scratch"], strict=True)
        ]
        print(row(f"{count} labels, gain of the start", gains), flush=True)
    for index, one in enumerate(before):
        print(f"\n{one.root.name}, val, of the start\n\n{head}\n{row(words.start, [scores(start, one)])}")
        for count, by_seed in forgotten.items():
            print(row(f"{count} labels, start", [of[index] for of in by_seed]), flush=True)


if __name__ == "__main__":
    main()
