"""Change one file of thousands of small data sets, check each, and count how often the check names the file.

    python tests/bench/mutated_datasets.py --count 5000
    python tests/bench/mutated_datasets.py --first SEED --count 1 --show

Half of the mutations are in headers, tags, XML and ``zarr.json``. What counts are those that change what
``read_image`` returns: an error, or other axes, shape, type, pixels, channel names, pixel size or warnings. A finding
names a file when its ``file`` is that file, or its sentence has the file's name. Each seed gives the same mutation
every time. The exit status is 1 below 95 %, with a traceback (also when 8 GiB are not enough), or when the check
finds fault with a folder as it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import read_image
from cytoray_analysis.images.names import is_image_name
from dataset_mutations import KINDS, change_file, is_mask
from folder_checks import check_folder
from tiny_datasets import TINY, make_tiny

WANTED = 0.95
_SHOWN = 60
_MOST_MEMORY = 2**33  # addresses; a check of such images that needs more is a fault
_TRUE = {"few-divisions"}  # of movies as short as these


@dataclass
class Outcome:
    """What became of mutations.

    Attributes
    ----------
    changed, named, in_file
        By kind and data set: mutations that change what a reader returns, those that a finding names, and those
        that are the ``file`` of a finding.
    missed
        Those that no finding names: the seed, and what was done to what.
    tracebacks
        What the check raised, with the seed.
    false_alarms
        Findings about folders as they were.
    """

    tried: Counter[str] = field(default_factory=Counter)
    changed: Counter[tuple[str, str]] = field(default_factory=Counter)
    named: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_file: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Take in what became of others."""
        for name in ("tried", "changed", "named", "in_file"):
            getattr(self, name).update(getattr(other, name))
        for name in ("missed", "tracebacks", "false_alarms"):
            getattr(self, name).extend(getattr(other, name))


def mutate_all(seeds: range, show: bool, data: str, kinds: str) -> Outcome:
    """Make the data sets, and change one file after the other."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    os.environ.setdefault("TQDM_DISABLE", "1")
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: make_tiny(name, Path(scratch) / name) for name in TINY if name.startswith(data)}
        for name, folder in folders.items():
            found = [finding for finding in check_folder(folder) if finding.code not in _TRUE]
            outcome.false_alarms += [f"{name}: {finding}" for finding in found]
        for seed in seeds:
            rng = np.random.default_rng(seed)
            name = str(rng.choice(list(folders)))
            _mutate_one(folders[name], name, seed, rng, outcome, show, kinds)
    return outcome


def _mutate_one(
    folder: Path, name: str, seed: int, rng: np.random.Generator, outcome: Outcome, show: bool, kinds: str
) -> None:
    files = [path for path in sorted(folder.rglob("*")) if _is_image(path)]
    path = files[rng.integers(len(files))]
    before = _state(path)
    with _Restored(path):
        changed = change_file(path, rng, files, kinds)
        outcome.tried[changed.kind] += 1
        key = (changed.kind, name)
        try:
            if _same(before, _state(path)):
                return
            outcome.changed[key] += 1
            findings = check_folder(folder)
        except Exception:  # noqa: BLE001 - this is what is looked for
            outcome.tracebacks.append(f"seed {seed}: {traceback.format_exc()}")
            return
        names = {path.relative_to(folder).as_posix(), *(one.relative_to(folder).as_posix() for one in changed.also)}
        in_file = any(one in finding.file for one in names for finding in findings)
        named = in_file or any(one in finding.problem for one in names for finding in findings)
        outcome.in_file[key] += in_file
        outcome.named[key] += named
        if not named or show:
            outcome.missed.append(f"seed {seed}: {name} {path.relative_to(folder)}: {changed}")
        if show:
            outcome.missed += [f"    {finding}" for finding in findings]


def _is_image(path: Path) -> bool:
    """Whether a path is an image, not a part of one."""
    inside = any(parent.suffix == ".zarr" for parent in path.parents)
    return not inside and (path.suffix == ".zarr" or is_image_name(path))


class _Restored:
    """Keep a copy of a file or folder, and put it back whatever lies there then."""

    def __init__(self, path: Path) -> None:
        self.path, self.siblings = path, set(path.parent.iterdir())
        self.kept = path.parents[2].parent / f"kept-{os.getpid()}"

    def __enter__(self) -> None:
        _copy(self.path, self.kept)

    def __exit__(self, *error: object) -> None:
        for path in (*(set(self.path.parent.iterdir()) - self.siblings), self.path):
            _remove(path)
        _copy(self.kept, self.path)
        _remove(self.kept)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _state(path: Path) -> Any:
    """Return all that a reader says of a file, or that it refuses it."""
    labels = is_mask(path)
    try:
        image = read_image(path, labels=labels)
        pixels = image.read()
    except CytorayError as error:
        return type(error).__name__
    size = dict(image.pixel_size) if image.pixel_size else None
    return image.axes, pixels.shape, str(pixels.dtype), pixels, image.channels, size, image.warnings


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return False  # as it was, every file can be read
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(one, other, strict=True))


def _report(outcome: Outcome, seconds: float) -> dict[str, Any]:
    return {
        "mutations": outcome.tried.total(),
        "changed": outcome.changed.total(),
        "named": outcome.named.total(),
        "share": round(outcome.named.total() / max(1, outcome.changed.total()), 4),
        "share_as_file": round(outcome.in_file.total() / max(1, outcome.changed.total()), 4),
        "tracebacks": len(outcome.tracebacks),
        "findings_of_folders_as_they_were": len(outcome.false_alarms),
        "seconds": round(seconds, 1),
    }


def _table(outcome: Outcome) -> Iterator[str]:
    yield f"{'kind of mutation':<34}{'tried':>7}{'changed':>9}{'named':>7}{'share':>8}"
    for title, place in (("", 0), ("data set", 1)):
        if title:
            yield f"\n{title:<34}{'':>7}{'changed':>9}{'named':>7}{'share':>8}"
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for key, count in outcome.changed.items():
            sums[key[place]][0] += count
            sums[key[place]][1] += outcome.named[key]
        for name in KINDS if place == 0 else TINY:
            changed, named = sums[name]
            tried = str(outcome.tried[name]) if place == 0 else ""
            share = f"{named / changed:8.1%}" if changed else f"{'–':>8}"
            yield f"{name:<34}{tried:>7}{changed:>9}{named:>7}{share}"


def main() -> None:
    """Read the options, do it, print the tables and the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="print every finding")
    parser.add_argument("--data", default="", help="how the names of data sets begin")
    parser.add_argument("--kinds", default="", help="how the names of mutations begin")
    options = parser.parse_args()
    begun, outcome = time.monotonic(), Outcome()
    steps = min(options.processes, options.count)
    parts = [range(options.first + part, options.first + options.count, steps) for part in range(steps)]
    with ProcessPoolExecutor(steps) as pool:
        for one in pool.map(mutate_all, parts, *([one] * steps for one in (options.show, options.data, options.kinds))):
            outcome.add(one)
    print("\n".join(_table(outcome)))
    for title, lines in (
        ("not named", outcome.missed if options.show else outcome.missed[:_SHOWN]),
        ("tracebacks", outcome.tracebacks[:5]),
        ("findings of folders as they were", sorted(set(outcome.false_alarms))),
    ):
        if lines:
            print(f"\n{title}:\n" + "\n".join(lines))
    report = _report(outcome, time.monotonic() - begun)
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["share"] < WANTED or outcome.tracebacks or outcome.false_alarms else 0)


if __name__ == "__main__":
    main()
