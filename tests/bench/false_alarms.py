"""The tables of docs/false-alarms.md, from stored counts.

    python tests/bench/false_alarms.py        writes the tables again

``check_false_alarms.py`` and ``threshold_false_alarms.py`` store the counts in ``false_alarms.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scale import written
from sureness import show_share

from cytoray_analysis.files import write_whole
from cytoray_services.datasets import check

PAGE = Path(__file__).resolve().parents[2] / "docs" / "false-alarms.md"
COUNTS = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Found:
    """What the check said with one code about a set: of the whole, of how many files, and of how many parts."""

    severity: str
    code: str
    whole: bool
    files: int
    parts: int


@dataclass(frozen=True)
class SetCounts:
    """What the check said about a set and parts of it."""

    name: str
    kind: str
    images: int
    parts: int
    found: tuple[Found, ...]


def store(part: str, counts: Sequence[Any]) -> None:
    """Keep counts beside those of the other parts."""
    kept = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    kept[part] = [asdict(one) for one in counts]
    write_whole(COUNTS, (json.dumps(kept, indent=1) + "\n").encode())


_HEADINGS = re.compile(r"^(Every data set|Masks|Masks of classes|Target images|Classes|Lineages)\b.*:$")
_ROW = re.compile(r"^(``.+?)  +(error|warning|note) +(.+)$")
# Kinds of sets by the heading of the table in cytoray_services.datasets.check.
_KINDS = {
    "Every data set": {"labels", "class masks", "image", "class", "lineage"},
    "Masks": {"labels", "lineage"},
    "Masks of classes": {"class masks"},
    "Target images": {"image"},
    "Classes": {"class"},
    "Lineages": {"lineage"},
}
# They count and compare numbers: where they speak, it is so. Small subsets lack classes and divisions indeed.
COUNTED = {
    "class-imbalance", "class-missing", "class-without-pixels", "few-divisions", "listed-twice", "no-split-column",
    "no-test-split", "nothing-to-score", "rare-class", "shared-group", "shared-image", "single-class", "split-missing",
}  # fmt: skip
# Faults that are there, as the data's own README says.
TRUE = {("fragmented-ids", "usiigaci_t98g"), ("fragmented-ids", "usiigaci_t98g_more")}


@dataclass(frozen=True)
class Code:
    """A row of the table of the check's codes."""

    name: str
    severity: str
    meaning: str
    kinds: frozenset[str]


def codes() -> Iterator[Code]:
    """Read the table of the check's own documentation."""
    kinds: frozenset[str] = frozenset()
    rows: list[tuple[str, str, list[str], frozenset[str]]] = []
    for line in (check.__doc__ or "").splitlines():
        if heading := _HEADINGS.match(line):
            title = "Masks of classes" if line.startswith("Masks of classes") else heading[1]
            kinds = frozenset(_KINDS[title])
        elif row := _ROW.match(line):
            rows.append((row[1], row[2], [row[3]], kinds))
        elif rows and line.startswith(" " * 20):
            rows[-1][2].append(line.strip())
    for names, severity, meaning, kinds in rows:
        for name in re.findall(r"``(.+?)``", names):
            yield Code(name, severity, " ".join(meaning), kinds)


def with_variants(counts: Sequence[SetCounts]) -> list[Code]:
    """Return the codes of the check, and those that were found with another severity than the table's.

    Raises
    ------
    ValueError
        Something was found that the table does not explain.
    """
    known = list(codes())
    listed = {(code.name, code.severity) for code in known}
    for severity, name in sorted({(here.severity, here.code) for one in counts for here in one.found}):
        if (name, severity) not in listed:
            places = [place for place, code in enumerate(known) if code.name == name]
            if not places:
                raise ValueError(f"expected a code of the table in cytoray_services.datasets.check, got {name!r}")
            known.insert(places[-1] + 1, replace(known[places[-1]], severity=severity))
    return known


def check_table(counts: Sequence[SetCounts], *, counted: bool) -> str:
    """Return the rows of codes that judge, or of those that count."""
    lines = []
    for code in with_variants(counts):
        if (code.name in COUNTED) != counted:
            continue
        sets = [one for one in counts if one.kind in code.kinds and (code.name, one.name) not in TRUE]
        key = (code.name, code.severity)
        found = [(one, here) for one in sets for here in one.found if (here.code, here.severity) == key]
        whole, parts, files = (sum(getattr(here, name) for _, here in found) for name in ("whole", "parts", "files"))
        where = ", ".join(f"{one.name} {here.parts}" for one, here in found if here.parts and not counted)
        lines.append(
            f"| `{code.name}` | {code.severity} | {code.meaning.replace('``', '`')} | {show_share(whole, len(sets))} | "
            f"{show_share(parts, sum(one.parts for one in sets))}{f': {where}' if where else ''} | "
            f"{show_share(files, sum(one.images for one in sets))} |"
        )
    head = "| code | severity | what it means | whole sets | parts | images |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(lines)


def sets_table(counts: Sequence[SetCounts]) -> str:
    """Return which sets were checked."""
    rows = [f"| {one.name} | {one.kind} | {one.images:,} | {one.parts} |" for one in counts]
    return "| set | truth | images or frames | parts |\n|---|---|---|---|\n" + "\n".join(rows)


def drift_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return how many canaries that are the same model are accused of drift, look by look and in a whole step."""
    lines = []
    for row in rows:
        beside = f"{row['others']:.0f} for each"
        requests, far = row["requests"], show_share(row["far"], row["canaries"])
        if not requests:
            requests, far = "**all looks**", "–"
        lines.append(
            f"| {row['population']} ({row['answers']}) | {requests} | {beside} | {far} | "
            f"{show_share(row['accused'], row['canaries'])} |"
        )
    head = "| answers drawn from | canary's requests | other version's | distance above 0.2 | withdrawn by the rule |\n"
    return head + "|---|---|---|---|---|\n" + "\n".join(lines)


def range_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return how many validation images are warned about, by set and way to scale."""
    lines, names = [], list(dict.fromkeys(row["name"] for row in rows))
    for name in names:
        of = {row["method"]: row for row in rows if row["name"] == name}
        shown = [show_share(of[method]["warned"], of[method]["images"]) for method in ("percentile", "zscore")]
        lines.append(f"| {name} | {of['zscore']['train']} | {shown[0]} | {shown[1]} |")
    apart = [row for row in rows if "both kinds" not in row["name"]]
    sums = [
        show_share(*(sum(row[key] for row in apart if row["method"] == method) for key in ("warned", "images")))
        for method in ("percentile", "zscore")
    ]
    lines.append(f"| all, the two kinds of dsb2018 apart | | {sums[0]} | {sums[1]} |")
    return "| set | training images | `percentile` | `zscore` |\n|---|---|---|---|\n" + "\n".join(lines)


def page(text: str, kept: dict[str, Any]) -> str:
    """Return the page with its tables as the counts have them."""
    counts = [SetCounts(**{**one, "found": tuple(Found(**found) for found in one["found"])}) for one in kept["check"]]
    text = written(text, "sets", sets_table(counts))
    text = written(text, "judged", check_table(counts, counted=False))
    text = written(text, "counted", check_table(counts, counted=True))
    text = written(text, "drift", drift_table(kept["drift"]))
    return written(text, "range", range_table(kept["range"]))


if __name__ == "__main__":
    write_whole(PAGE, page(PAGE.read_text(encoding="utf-8"), json.loads(COUNTS.read_text())).encode())
