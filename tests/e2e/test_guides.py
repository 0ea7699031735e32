"""The guides run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a reader is told to run; blocks marked ``norun`` wait for Ctrl-C or need a model of the reader's own.
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Enough to show that each step works; how good a model becomes in full is measured in docs/benchmarks.md.
MINUTES = 0.2
LONGER = {"tracking": 0.6}  # a linker that has learned nothing takes minutes to fit: many links are as likely
GUIDES = ("classification", "label-free", "segmentation-3d", "tracking")


def commands(guide: Path) -> list[str]:
    """Return the commands of a guide in order, their training runs made short."""
    lines = [line for block in BLOCK.findall(guide.read_text(encoding="utf-8")) for line in block.splitlines() if line]
    minutes = LONGER.get(guide.stem, MINUTES)
    return [f"{line} --set training.minutes={minutes}" if "cytoray train" in line else line for line in lines]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One registry for all guides, as a reader has: making its database takes many seconds."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.e2e
@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_runs_as_it_is_written(name: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "training").symlink_to(ROOT / "training")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CYTORAY_HOME": str(home),
    }
    lines = commands(ROOT / "docs" / "guides" / f"{name}.md")
    assert any("cytoray train" in line for line in lines)
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr[-3000:]}"
    assert list((tmp_path / "pictures").glob("*.png"))
