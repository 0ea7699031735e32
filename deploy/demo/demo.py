"""The complete workflow once: from labelled images to a served answer.

Runs the ``cytoray`` command line step by step, as a user would: outline the nuclei of a real picture with the model
that comes with Cytoray, make or use a data set, check it, train on two workers with DeepSpeed, evaluate, promote,
serve, request predictions. At the end it prints a short table and stops the service.

It writes to one folder, which the next run replaces.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = REPOSITORY / "training" / "recipes" / "synthetic.yaml"
CYTORAY = Path(sys.executable).with_name("cytoray")
MARK = ".made-by-the-demo"
IMAGES_ASKED = 6
SECONDS_TO_STOP = 60
SHOWN_SCORES = ("ap50", "ap70", "f1_50", "pq")
MINUTES = 10.0  # at most; the epochs of the synthetic cells take one or two minutes on two cores
MINUTES_OF_OTHER_DATA = 1.5
LEAST_AP50 = 0.1  # below it a model has learned too little to show

console = Console(stderr=True)


@dataclass
class Demo:
    """One run of the demo: its folder, and the seconds of each stage."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands: a separate state folder, and no other registry."""
        kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        return kept | {"CYTORAY_HOME": str(self.folder / "state")}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and measure its seconds."""
        console.rule(f"[bold]{name}", align="left")
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def cytoray(self, *words: str | Path) -> dict[str, Any]:
        """Run one command and return its answer; progress and errors go to the terminal."""
        command = [str(CYTORAY), *map(str, words), "--json"]
        _say(*words)
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout, file=sys.stderr)
            sys.exit(done.returncode)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    @contextmanager
    def service(self, reference: str) -> Iterator[str]:
        """Serve a model in the background while the block runs, and yield the address."""
        command = [str(CYTORAY), "serve", reference, "--insecure-local", "--port", "0", "--json"]
        _say("serve", reference, "--insecure-local", "--port", "0", "&")
        log = self.folder / "serve.log"
        with (
            log.open("w") as errors,
            subprocess.Popen(
                command,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            try:
                started = json.loads((process.stdout and process.stdout.readline()) or "{}")
                if "url" not in started:
                    sys.exit(f"{started.get('message', 'the service did not start')}; see {log}")
                yield started["url"]
            finally:
                _stop(process)


def main() -> None:
    """Run the demo and print its table."""
    parser = argparse.ArgumentParser(description="From labelled images to a served answer.")
    parser.add_argument("--data", type=Path, help="a data set folder; default: new synthetic cells")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="output folder; replaced by the next run")
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"maximum training time in minutes; default {MINUTES:g}, with --data {MINUTES_OF_OTHER_DATA:g}",
    )
    words = parser.parse_args()

    minutes = words.minutes or (MINUTES if words.data is None else MINUTES_OF_OTHER_DATA)
    start = time.perf_counter()
    demo = Demo(_fresh(words.folder))
    with demo.stage("predict without training"):
        picture = _stained_nuclei(demo.folder / "nuclei-of-tissue.tif")
        first = demo.cytoray("predict", "nuclei", picture, "--format", "overlay", "--out", demo.folder / "first")
    changes: dict[str, object]
    if words.data is None:
        data = demo.folder / "data"
        with demo.stage("make data"):
            demo.cytoray("data", "make", "segmentation", data)
        changes = {"data.channels": "grey"}
    else:
        data = words.data
        # Grey images are read as colour images with equal channels, so both kinds work.
        changes = {
            "model.name": "demo",
            "data.channels": "rgb",
            "training.epochs": 60,
            "training.validate_every": 20,
        }
    with demo.stage("check data"):
        demo.cytoray("data", "check", data)
    with demo.stage("train"):
        trained = demo.cytoray("train", RECIPE, *_settings(data, minutes, changes))
    model, version = trained["model"], f"{trained['model']}/{trained['version']}"
    split = _judging_split(data)
    with demo.stage("evaluate"):
        scores = demo.cytoray("evaluate", version, data, "--split", split)
    if too_little := nothing_learned(scores, demo.seconds["train"], minutes):
        sys.exit(too_little)
    with demo.stage("promote"):
        # A small data set has no split test: the demo continues and states the reason.
        force = () if split == "test" else ("--force", "--reason", "a demo on too few images for a split test")
        demo.cytoray("models", "promote", version, *force)
    with ExitStack() as running:
        with demo.stage("start the service"):
            url = running.enter_context(demo.service(f"{model}@champion"))
        with demo.stage("predict"):
            overlays = demo.folder / "overlays"
            asked = ("--url", url, "--format", "overlay", "--out", overlays)
            answered = demo.cytoray("predict", model, *_images(data), *asked)
        stopping = time.perf_counter()
    demo.seconds["stop the service"] = time.perf_counter() - stopping
    _print_table(demo, model, scores, first, answered, time.perf_counter() - start)


def _stained_nuclei(path: Path) -> Path:
    """Write the nuclear stain of a real picture: tissue of a colon with a brown antibody, which scikit-image contains.

    Colour deconvolution (Ruifrok and Johnston 2001) separates haematoxylin, which stains nuclei.
    """
    import numpy as np
    from skimage.color import rgb2hed
    from skimage.data import immunohistochemistry

    from cytoray_analysis.images import image_from_array, write_image

    stain = rgb2hed(immunohistochemistry())[..., 0]  # type: ignore[no-untyped-call]
    grey = (255 * np.clip(stain / np.percentile(stain, 99.9), 0, 1)).astype(np.uint8)
    write_image(path, image_from_array(grey, "YX"))
    return path


def nothing_learned(scores: dict[str, Any], seconds: float, minutes: float) -> str | None:
    """Return a message with a remedy if the model has learned next to nothing, otherwise None."""
    found = scores["metrics"].get("ap50")
    if found is not None and found >= LEAST_AP50:
        return None
    shown = "no score at all" if found is None else f"ap50 {found:.3f}"
    return (
        f"the demo ends here: the model has learned next to nothing ({shown} on {scores['items']} images after "
        f"{seconds / 60:.1f} minutes). This machine is slow or busy, or the images are difficult: train longer with\n"
        f"    make demo MINUTES={max(10, round(4 * minutes))}"
    )


def _settings(data: Path, minutes: float, changes: dict[str, object]) -> list[str]:
    chosen: dict[str, object] = {
        "data.root": data,
        "training.minutes": minutes,
        "training.engine": "deepspeed",
        "scale.workers": 2,
        **changes,
    }
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


def _fresh(folder: Path) -> Path:
    """Empty the folder of the last demo; never a folder that no demo has made."""
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        sys.exit(f"{folder} has files that no demo made; name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


def _judging_split(data: Path) -> str:
    """Return the split that chose nothing for the model, or ``val`` if there is none."""
    from cytoray_services.datasets import open_dataset

    return "test" if "test" in open_dataset(data).splits else "val"


def _images(data: Path) -> list[Path]:
    """Return some images of the validation split."""
    from cytoray_services.datasets import open_dataset

    return [item.image for item in open_dataset(data).split("val").items[:IMAGES_ASKED]]


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _print_table(
    demo: Demo, model: str, scores: dict[str, Any], first: dict[str, Any], answered: dict[str, Any], total: float
) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    metrics = scores["metrics"]
    table.add_row("scores", "  ".join(f"{name} {metrics[name]:.3f}" for name in SHOWN_SCORES))
    table.add_row("", f"on the {scores['items']} images of the {scores['split']} split")
    for name, seconds in demo.seconds.items():
        table.add_row(name, f"{seconds:.1f} s")
    table.add_row("total", f"{total:.1f} s")
    (shown,) = first["outputs"]
    table.add_row("without training", f"{shown['objects']} nuclei outlined in {_short(shown['output'])}")
    outputs = answered["outputs"]
    objects = sum(one["objects"] for one in outputs)
    table.add_row("answers", f"{objects} cells outlined in {len(outputs)} images")
    table.add_row("pictures", "\n".join(_short(one["output"]) for one in outputs))
    state, command = _short(demo.folder / "state"), _short(CYTORAY)
    table.add_row("registry", f"CYTORAY_HOME={state} {command} models show {model}")
    table.add_row("service log", _short(demo.folder / "serve.log"))
    console.rule("[bold]done", align="left")
    Console().print(table)


def _say(*words: str | Path) -> None:
    """Print a command as a user would type it."""
    line = " ".join(["$ cytoray", *(_short(word) if isinstance(word, Path) else word for word in words)])
    console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


def _short(path: str | Path) -> str:
    """Return a path relative to the working directory if it is inside, otherwise unchanged."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
