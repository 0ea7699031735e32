"""How often a canary within the limits is withdrawn, and how soon one beyond them.

``python tests/bench/canary_rates.py [RUNS]``: whole rollouts with the shipped limits, a request a second, requests as
in ``tests/simulated_canaries.py``; shares with their exact 95 % intervals. Under *load* everything takes longer in the
last step, whichever version answers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sureness import show_share

from simulated_canaries import Draw, requests, simulate

SLOWER = (1.1, 1.2, 1.25, 1.3, 1.5, 1.7, 2.0)
FAULTS: Mapping[str, Draw] = {
    "the same": requests(),
    **{f"{times:g} times as slow": requests(slower=times) for times in SLOWER},
    "ten times as slow for 15 %": requests(stuck=0.15),
    "0.7 % fail instead of 0.2 %": requests(failures=0.007),
    "3 % fail instead of 0.2 %": requests(failures=0.03),
    "5.2 % fail instead of 0.2 %": requests(failures=0.052),
    "10 % fewer objects": requests(objects=0.9),
    "30 % fewer objects": requests(objects=0.7),
    "one standard deviation brighter": requests(brighter=1.0),
}
LOADS = (1.2, 1.3, 1.4, 1.5)


def show(name: str, draw: Draw, runs: int, load: Sequence[float] = (), usual: Draw | None = None) -> None:
    ended = [simulate(draw, seed=seed, per_second=1.0, load=load, usual=usual) for seed in range(runs)]
    gone = [one for one in ended if one.what == "withdraw"]
    steps = "/".join(str(sum(one.step == step for one in gone)) for step in range(3))
    line = f"{name:34s} withdrawn {show_share(len(gone), runs)}, at 5/25/90 %: {steps}"
    if gone:
        own = [one.canary_requests for one in gone]
        line += f"; requests until then {np.median([one.requests for one in gone]):.0f}"
        line += f", the canary's {np.median(own):.0f} (most {max(own)}); {gone[0].reason}"
    print(line, flush=True)


def main(runs: int) -> None:
    for name, draw in FAULTS.items():
        show(name, draw, runs)
    for last in LOADS:
        show(f"the same, load {last:g}", requests(), runs, (1.0, 1.0, last))
    many = requests(failures=0.3)
    show("the same, 30 % of both fail", many, runs, usual=many)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
