"""The loop under torchrun, without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cytoray_services.datasets import Dataset


@pytest.mark.ray  # no Ray, but as slow: three processes that import torch
def test_two_processes_of_torchrun_train_together(tmp_path: Path, cells: Dataset) -> None:
    recipe = {
        "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}},
        "data": {"root": str(cells.root), "channels": "grey"},
        "training": {"epochs": 1, "crops_per_epoch": 16, "crop_size": 64, "batch_size": 4, "engine": "torch"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "cytoray_training.standalone", str(path), "--set", "training.seed=3"],
        env=os.environ | {"CYTORAY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["best"]["epoch"] == 0
    assert len(list(Path(answer["folder"]).glob("checkpoint-*"))) == 1
