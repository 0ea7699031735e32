"""How often a diagnosis is wrong: its rules over simulated training runs, healthy ones and 50 of each fault.

Prints for each rule how many of the healthy training runs it accuses, and of how many with its fault planted it tells.
Usage: ``python tests/bench/diagnosis_errors.py [HEALTHY] [OF_EACH_FAULT]``.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # beside the tests, which simulate the same

from cytoray_training.diagnosis.findings import find
from simulated_curves import FAULTS, simulated


def main(healthy: int, of_each: int) -> None:
    """Simulate, diagnose and count."""
    false = Counter(finding.name for seed in range(healthy) for finding in find(simulated(seed)))
    print(f"{'rule':24s} false alarms of {healthy}    found of {of_each}    named beside it")
    for fault in FAULTS:
        told = Counter(finding.name for seed in range(of_each) for finding in find(simulated(seed, fault)))
        others = ", ".join(f"{name} {count}" for name, count in told.most_common() if name != fault)
        alarms, found = false[fault], told[fault]
        print(
            f"{fault:24s} {alarms:4d} ({alarms / healthy:5.1%})       {found:4d} ({found / of_each:4.0%})    {others}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3] or (200, 50)))
