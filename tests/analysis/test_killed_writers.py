"""A process that is killed while it replaces a folder leaves one that is whole: the old one or the new one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# It forks from a process that has one thread, so that 150 deaths take seconds.
_KILLING = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
import torch
from cytoray_analysis import files
from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.networks import build_network

torch.set_num_threads(1)
place, kills, exchanging = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "exchanging"
if not exchanging:  # as on NFS
    files._exchanged = lambda one, other: False
network = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 4, "widths": [4, 8]})
weights = build_network(network.name, network.arguments).state_dict()

def write(name):
    spec = BundleSpec(name=name, task=TaskChoice(), input=ModelInput(), network=network)
    return write_bundle(place, spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="#").digest

known = {write(name) for name in ("one", "two", "one")}
begun = time.perf_counter()
write("two")
usual = time.perf_counter() - begun
chance, broken = random.Random(7), []
for number in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            write("one")
            write("two")
    time.sleep(chance.uniform(0.1, 1.5) * usual)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        bundle = Bundle.load(place)
        bundle.network()
        if bundle.digest not in known:
            broken.append(f"kill {number}: another bundle")
    except Exception as error:
        broken.append(f"kill {number}: {error}")
        if not place.exists():
            write("one")
write("one")  # and another one can be written
assert Bundle.load(place).spec.name == "one"
print(len(broken), *broken[:3], sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("way", "kills"), [("exchanging", 50), ("moving aside", 20)])
def test_all_kills_while_a_bundle_is_replaced_leave_one_whole(tmp_path: Path, way: str, kills: int) -> None:
    command = [sys.executable, "-c", _KILLING, str(tmp_path / "bundle"), str(kills), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "0", done.stdout
