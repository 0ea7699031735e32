"""Run all benchmarks and write their table into docs/benchmarks.md.

python tests/bench/bench.py [--only inference_speed …] [--dry-run]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from measure import Ratio, machine, ratios_from

HERE = Path(__file__).parent
BENCHMARKS = ("training_speed", "inference_speed", "endpoint_speed")
DOCUMENT = HERE.parents[1] / "docs" / "benchmarks.md"
START, END = "<!-- make bench: start -->", "<!-- make bench: end -->"


def collect(names: list[str]) -> list[Ratio]:
    ratios: list[Ratio] = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        # Each in a process of its own, so that threads and caches of one do not meet those of another.
        done = subprocess.run([sys.executable, HERE / f"{name}.py"], stdout=subprocess.PIPE, text=True, check=True)
        ratios += ratios_from(done.stdout.strip().splitlines()[-1])
    return ratios


def table(ratios: list[Ratio]) -> str:
    rows = "\n".join(ratio.row() for ratio in ratios)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. Medians of alternating rounds in one run.\n\n"
        "| figure | first | second | unit | ratio | wanted |\n|---|---|---|---|---|---|\n" + rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--dry-run", action="store_true", help="print the table, leave the document alone")
    arguments = parser.parse_args()
    text = table(collect(arguments.only))
    print(text)
    if arguments.dry_run or arguments.only != list(BENCHMARKS):
        return
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
