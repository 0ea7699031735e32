"""How many requests and hours a canary takes until a fault is noticed, and how often an equal version is withdrawn.

``python tests/bench/canary_rates.py [RUNS]``: whole rollouts with the shipped limits, requests as in
``tests/simulated_canaries.py``; at the end, hours in which everything takes longer, whichever version answers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulated_canaries import Draw, requests, simulate


def show(
    name: str, draw: Draw, per_second: float, runs: int, load: Sequence[float] = (), usual: Draw | None = None
) -> None:
    ended = [simulate(draw, seed=seed, per_second=per_second, load=load, usual=usual) for seed in range(runs)]
    gone = [one for one in ended if one.what == "withdraw"]
    line = f"{name:44s} withdrawn {len(gone)}/{runs}, hours to the end {np.median([one.hours for one in ended]):.2f}"
    if gone:
        own = [one.canary_requests for one in gone]
        line += f"; requests until then {np.median([one.requests for one in gone]):.0f}"
        line += f", the canary's {np.median(own):.0f} (most {max(own)})"
        line += f", at the first step {sum(one.step == 0 for one in gone)}; {gone[0].reason}"
    print(line, flush=True)


def main(runs: int) -> None:
    for per_second, said in ((100 / 3600, "100 an hour"), (1.0, "1 a second")):
        show(f"equal, {said}", requests(), per_second, runs)
        show(f"twice as slow, {said}", requests(slower=2.0), per_second, runs)
        show(f"1.5 times as slow, {said}", requests(slower=1.5), per_second, runs)
        show(f"5 points more errors, {said}", requests(failures=0.052), per_second, runs)
    for slower in (1.1, 1.2, 1.3, 1.7):
        show(f"{slower} times as slow", requests(slower=slower), 1.0, runs)
    for last in (1.2, 1.3, 1.4, 1.5):
        show(f"equal, {last} times as slow in the last step", requests(), 1.0, runs, (1.0, 1.0, last))
    many = requests(failures=0.3)
    show("equal, 30 % of both fail", many, 1.0, runs, usual=many)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
