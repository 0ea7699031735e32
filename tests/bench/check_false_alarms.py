"""How often the check of data sets complains of sets that are in order: whole ones, and random subsets of them.

    python tests/bench/check_false_alarms.py DATA [--subsets 200] [--windows 15]

DATA holds ``classification/``, ``labelfree/``, ``segmentation/`` and ``tracking/``, a folder of labelled images each.
Every file is read once; the facts about it serve all subsets. A subset keeps the split of each image and at least one
image of each split. Of a movie, subsets are windows of consecutive frames, written as a movie of their own. Counts go
to ``false_alarms.json``, from which ``false_alarms.py`` writes the tables of docs/false-alarms.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from false_alarms import Found, SetCounts, store

from cytoray_analysis.bundle import TaskChoice
from cytoray_analysis.tracking.ctc import movie_files, read_tracks
from cytoray_services.datasets import Dataset, Finding
from cytoray_services.datasets.check import open_for_check, usual_splits
from cytoray_services.datasets.check.checks import findings_of, read_facts
from cytoray_services.datasets.check.findings import Checked, Facts, Files, files_of

SMALLEST, LARGEST = 6, 40  # images of a subset
FRAMES = (6, 16)  # of a window


@dataclass(frozen=True)
class Source:
    """A labelled set: its folder below DATA, how its columns are called, and what its masks hold."""

    folder: str
    columns: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        place = self.folder.split("/")[-1] + (" (movie)" if self.folder.startswith("tracking") else "")
        return f"{place}, classes" if self.classes else place

    @property
    def task(self) -> TaskChoice | None:
        return TaskChoice(name="semantic_segmentation", arguments={"classes": self.classes}) if self.classes else None


SOURCES = (
    *(Source(f"classification/{name}") for name in ("bccd", "chula_rbc12", "pbc_acevedo")),
    Source("labelfree/ecoli_bf_fluo", {"input": "input_brightfield", "target": "target_fluorescence"}),
    Source("labelfree/ecoli_phase_yfp", {"input": "input_phase", "target": "target_yfp"}),
    *(
        Source(f"segmentation/{name}")
        for name in (
            "axon_sem", "bbbc039", "bbbc050_3d", "bccd_leukocytes", "drosophila_ovary", "dsb2018", "dsb2018_cytology",
            "ecoli_brightfield", "gonuclear_ovules_3d", "nucls_he", "plantseg_ovule_cells_3d", "stardist_sample_3d",
            "usiigaci_t98g", "usiigaci_t98g_more", "yeast_phase",
        )
    ),
    Source("segmentation/axon_sem", {"mask": "semantic"}, ("background", "myelin", "axon")),
    Source("segmentation/drosophila_ovary", {"mask": "semantic"}, ("background", "follicle", "nurse", "cytoplasm")),
    Source("segmentation/nucls_he", {"mask": "types"}, ("background", "other", "tumour")),
    *(
        Source(f"tracking/{name}")
        for name in (
            "C2C12_phase_sample", "DIC-C2DH-HeLa", "Fluo-N2DH-SIM+", "Fluo-N2DL-HeLa", "PhC-C2DL-PSC", "yeast_phase",
        )
    ),
)  # fmt: skip


def check_source(source: Source, data: Path, subsets: int, windows: int, work: Path) -> SetCounts:
    """Check a set as it is, and parts of it."""
    root = data / source.folder
    if source.folder.endswith("stardist_sample_3d"):  # its two files have names of their own
        root = paired(root, work / "stardist")
    dataset = opened(root, source)
    facts = read_facts(dataset, task=source.task)
    whole = findings(dataset, facts, source.task)
    found = Counter((finding.severity, finding.code) for finding in set_of_files(whole))
    print(f"{source.name}: {len(dataset.images)} images", file=sys.stderr, flush=True)
    for finding in whole:
        print(f"    {finding.severity} {finding.code} {finding.file}: {finding.problem}", file=sys.stderr, flush=True)
    random = np.random.default_rng(0)
    if dataset.truth_kind == "lineage":
        images = sum(1 for _ in movie_files(dataset.items[0].image))
        parts = [
            findings(movie, read_facts(movie), None)
            for movie in windows_of(dataset, images, windows, random, work / source.name)
        ]
    else:
        images = len(dataset.images)
        parts = [
            findings(part, {files_of(item): facts[files_of(item)] for item in part.items}, source.task)
            for part in subsets_of(dataset, subsets, random)
        ]
    in_parts = Counter(key for part in parts for key in {(finding.severity, finding.code) for finding in part})
    for severity, code, file in sorted({(one.severity, one.code, one.file) for part in parts for one in part}):
        if severity != "note" or code == "unlike-others":
            times = sum(any((one.code, one.file) == (code, file) for one in part) for part in parts)
            print(f"    in parts: {severity} {code} {file} {times} times", file=sys.stderr, flush=True)
    return SetCounts(
        source.name,
        "class masks" if source.classes else dataset.truth_kind,
        images,
        len(parts),
        tuple(
            Found(severity, code, any((one.severity, one.code) == (severity, code) for one in whole),
                  found[severity, code], in_parts[severity, code])
            for severity, code in sorted({*found, *in_parts, *((one.severity, one.code) for one in whole)})
        ),
    )  # fmt: skip


def opened(root: Path, source: Source) -> Dataset:
    """Open a set, or end."""
    dataset = open_for_check(root, columns=source.columns or None)
    if isinstance(dataset, Finding):
        sys.exit(f"{root}: {dataset.problem}")
    return dataset


def findings(dataset: Dataset, facts: Mapping[Files, Facts], task: TaskChoice | None) -> list[Finding]:
    """Return what the check says, given what was read."""
    return findings_of(Checked(dataset, facts, required_splits=usual_splits(dataset), task=task))


def set_of_files(found: Iterable[Finding]) -> list[Finding]:
    """Return one finding of each code and file; what is said of the whole set is left out."""
    return list({(one.code, one.file): one for one in found if one.file != "."}.values())


def subsets_of(dataset: Dataset, count: int, random: np.random.Generator) -> Iterator[Dataset]:
    """Yield different random subsets of 6 to 40 images, fewer where a set is too small for so many."""
    images = dataset.images
    splits = [items[0].split for items in images]
    largest = min(LARGEST, len(images) - 1)
    seen: set[tuple[int, ...]] = set()
    for _ in range(20 * count if largest >= SMALLEST else 0):
        if len(seen) == count:
            return
        chosen = tuple(sorted(random.permutation(len(images))[: random.integers(SMALLEST, largest + 1)].tolist()))
        if chosen in seen or {splits[place] for place in chosen} != set(splits):
            continue
        seen.add(chosen)
        yield replace(dataset, items=tuple(item for place in chosen for item in images[place]))


def windows_of(dataset: Dataset, frames: int, count: int, random: np.random.Generator, work: Path) -> Iterator[Dataset]:
    """Yield the movies that different windows of consecutive frames are."""
    fewest, most = FRAMES[0], min(FRAMES[1], frames - 1)
    spans = [(start, length) for length in range(fewest, most + 1) for start in range(frames - length + 1)]
    for number in sorted(random.permutation(len(spans))[:count].tolist()):
        start, length = spans[number]
        yield opened(cut_movie(dataset.root, start, length, work / str(number)), Source(""))


def cut_movie(root: Path, start: int, length: int, target: Path) -> Path:
    """Write links to the frames of a window and to their truth, numbered from 0, and the tracks within it."""
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        for path in sorted(folder.glob("*.tif")):
            digits = "".join(character for character in path.stem if character.isdigit())
            if start <= int(digits) < start + length:
                link = target / folder.relative_to(root) / path.name.replace(digits, f"{int(digits) - start:03d}")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
        if (folder / "man_track.txt").is_file():
            table = tracks_within(read_tracks(folder / "man_track.txt").tolist(), start, start + length - 1)
            text = "".join(" ".join(map(str, row)) + "\n" for row in table)
            (target / folder.relative_to(root) / "man_track.txt").write_text(text)
    return target


def tracks_within(table: Sequence[Sequence[int]], first: int, last: int) -> list[tuple[int, int, int, int]]:
    """Cut tracks to a window; parents that end before it are forgotten."""
    kept = [
        (label, max(begin, first) - first, min(end, last) - first, parent if begin > first else 0)
        for label, begin, end, parent in table
        if begin <= last and end >= first
    ]
    there = {label for label, *_ in kept}
    return [(label, begin, end, parent if parent in there else 0) for label, begin, end, parent in kept]


def paired(root: Path, target: Path) -> Path:
    """Link the one image and the one mask of a folder under one name."""
    for folder in ("images", "masks"):
        (target / folder).mkdir(parents=True)
        (target / folder / "volume.tif").symlink_to(next((root / folder).glob("*.tif")))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--subsets", type=int, default=200, help="of each set, at most")
    parser.add_argument("--windows", type=int, default=15, help="of each movie, at most")
    parser.add_argument("--only", default="", help="sets whose folder holds this text; nothing is stored then")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        counts = [
            check_source(source, words.data, words.subsets, words.windows, Path(folder))
            for source in SOURCES
            if words.only in source.folder
        ]
    if not words.only:
        store("check", counts)


if __name__ == "__main__":
    main()
