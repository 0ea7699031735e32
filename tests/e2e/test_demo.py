"""The demo, as ``make demo`` runs it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "deploy" / "demo" / "demo.py"


def run_demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), "--folder", str(folder), *words]
    environment = {name: value for name, value in os.environ.items() if name != "CYTORAY_SHIPPED"}
    return subprocess.run(
        command, cwd=folder.parent, env=environment, capture_output=True, text=True, check=False, timeout=900
    )


@pytest.mark.e2e
@pytest.mark.long
def test_the_demo_ends_with_pictures_and_scores_and_leaves_no_process(tmp_path: Path) -> None:
    import psutil

    done = run_demo(tmp_path / "demo", "--minutes", "1")
    assert done.returncode == 0, done.stderr
    table = done.stdout
    for words in ("ap50", "train", "start the service", "total", "cells outlined in 6 images"):
        assert words in table
    (first,) = (tmp_path / "demo" / "first").glob("*.png")
    assert first.read_bytes().startswith(b"\x89PNG")
    pictures = sorted((tmp_path / "demo" / "overlays").glob("*.png"))
    assert len(pictures) == 6
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    left = [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info["cmdline"])]
    assert left == []


@pytest.mark.parametrize(
    ("metrics", "says"),
    [({"ap50": 0.85}, None), ({"ap50": 0.1}, None), ({"ap50": 0.02}, "ap50 0.020"), ({}, "no score at all")],
)
def test_a_model_that_has_learned_nothing_is_said_to_be_one(metrics: dict[str, float], says: str | None) -> None:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = demo  # where dataclasses look for the module of their class
    spec.loader.exec_module(demo)
    said = demo.nothing_learned({"metrics": metrics, "items": 6}, 90.0, 1.5)
    if says is None:
        assert said is None
    else:
        assert says in said
        assert "make demo MINUTES=" in said


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path) -> None:
    precious = tmp_path / "demo" / "precious"
    precious.parent.mkdir()
    precious.touch()
    done = run_demo(tmp_path / "demo")
    assert done.returncode == 1
    assert "no demo made" in done.stderr
    assert precious.exists()


@pytest.mark.e2e
def test_the_demo_stops_at_data_that_would_ruin_a_training(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "masks").mkdir()
    (tmp_path / "data" / "images" / "cells.tif").write_text("no image")
    (tmp_path / "data" / "masks" / "cells.tif").write_text("no image")
    done = run_demo(tmp_path / "demo", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "cells.tif" in done.stderr
