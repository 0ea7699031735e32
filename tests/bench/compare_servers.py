"""Cytoray against MLflow's scoring server, BentoML and LitServe: images a second and latencies, in one run.

python tests/bench/compare_servers.py [--bundle FOLDER] [--images FOLDER] [--rounds N] [--only NAME …]

Every server gets the same image files from the same client, a second process, and answers with label TIFFs. The others
answer in two ways: by our own Predictor, and by the plain network (see serving_comparison/answering.py). All servers
are up at the same time, only one is under load; rounds alternate. The others run in an environment of their own, made
at the first run.

BentoML and LitServe have the batching of their documentation switched on; MLflow's scoring server has none, and
answers requests in threads beside each other. Each server gets the file in the cheapest form that it takes: as it is
(Cytoray, LitServe), in a multipart form (BentoML), as base64 in JSON (MLflow). The table says so, and names the
precision of the network: the plain one computes in fp32, the predictor in what it chooses for the machine.

A quantile is reported where ten answers or more took longer (p99 from 1,000 answers), with its interval; that of
latencies under load is a little too narrow, because answers wait for each other.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from inference_speed import untrained_bundle
from load import Load, measure_load, percentile
from measure import Ratio, machine
from servers import Server, start_cytoray, stop_servers_when_told_to, wait_until_up
from sureness import highest_quantile, quantile, quantile_ratio

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.files import write_whole
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import make_segmentation

HERE = Path(__file__).parent
PEERS = HERE / "serving_comparison"
REPOSITORY = HERE.parents[1]
TORCH = "torch==2.13.0"
CONNECTIONS = {256: 16, 1024: 4}
MODES = ("predictor", "plain")
CYTORAY, BARE = "cytoray", "bare Predictor"
BOUNDARY = "between-the-parts-of-the-form"


@dataclass(frozen=True)
class Peer:
    """How another server is started, and asked.

    Attributes
    ----------
    command
        With places for its port and for a folder of its own.
    path
        Where it answers.
    encoding
        How it gets the file, and how it gives the answer.
    field
        Name of the field that holds the file; empty where the file itself is the body.
    """

    command: str
    path: str
    encoding: str
    field: str = ""


PEERS_BY_NAME = {
    "bentoml": Peer(
        "bentoml serve serving_comparison.bentoml_service:Labels --host 127.0.0.1 --port {port}",
        "/predict",
        "multipart → base64 in JSON",
        "images",
    ),
    "litserve": Peer("python -m serving_comparison.litserve_server {port}", "/predict", "file → file"),
    "mlflow": Peer(
        "mlflow models serve -m {folder}/model --env-manager local --host 127.0.0.1 --port {port}",
        "/invocations",
        "base64 in JSON → the same",
        "inputs",
    ),
}


@dataclass
class Measured:
    """What the rounds of one server at one size gave."""

    server: str
    side: int
    precision: str
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)

    def add(self, load: Load, processor: float) -> None:
        self.rates.append(load.rate)
        self.latencies += load.latencies
        self.processor.append(processor / len(load.latencies))
        self.client.append(load.client_cpu / len(load.latencies))

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def encoding(self) -> str:
        peer = PEERS_BY_NAME.get(self.server.partition(",")[0])
        return "decoded image → labels" if self.server == BARE else "file → file" if peer is None else peer.encoding

    def row(self) -> str:
        p50 = percentile(self.latencies, 0.5)
        cost, client = statistics.median(self.processor), statistics.median(self.client)
        return (
            f"| {self.side} × {self.side} | {self.server} | {self.precision} | {self.encoding} | {self.rate:.2f} | "
            f"{len(self.latencies):,} | {p50 * 1e3:.0f} | {show_tail(self.latencies)} | {cost * 1e3:.1f} | "
            f"{client * 1e3:.1f} |"
        )


def show_tail(latencies: Sequence[float]) -> str:
    """Show the highest quantile that the answers are enough for, with its interval, in milliseconds."""
    share = highest_quantile(latencies)
    found = None if share is None else quantile(latencies, share)
    if share is None or found is None:
        return "–"
    return f"p{100 * share:g} {found.value * 1e3:.0f} ({found.low * 1e3:.0f} to {found.high * 1e3:.0f})"


def peers_environment(cache: Path) -> Path:
    """Make the environment of the other servers, once for each state of their requirements; returns its ``bin``."""
    wanted = (PEERS / "requirements.txt").read_text() + (REPOSITORY / "constraints.txt").read_text()
    folder, done = cache / "environment", cache / "installed.txt"
    if done.exists() and done.read_text() == wanted:
        return folder / "bin"
    print(f"installing the other servers into {folder} …", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    pins, builds = str(REPOSITORY / "constraints.txt"), str(REPOSITORY / "build-constraints.txt")
    for words in (
        ["pip==26.3"],
        [TORCH],
        ["--constraint", pins, "--build-constraint", builds, "--editable", str(REPOSITORY)],
        ["--requirement", str(PEERS / "requirements.txt")],
    ):
        subprocess.run([*pip, *words], check=True)
    write_whole(done, wanted.encode())
    return folder / "bin"


def start_peer(name: str, mode: str, binaries: Path, bundle: Path, folder: Path) -> Server:
    """Start one of the others."""
    peer = PEERS_BY_NAME[name]
    folder.mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "PYTHONPATH")}
    environment |= {
        "COMPARED_MODE": mode,
        "COMPARED_BUNDLE": str(bundle),
        "COMPARED_THREADS": str(os.cpu_count()),
        "PYTHONPATH": str(HERE),
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "BENTOML_DO_NOT_TRACK": "1",
        "BENTOML_HOME": str(folder / "bentoml"),
    }
    if name == "mlflow":
        saving = [str(binaries / "python"), "-m", "serving_comparison.mlflow_model", str(folder / "model")]
        subprocess.run(saving, env=environment, check=True, cwd=folder, stdout=sys.stderr)
    program, *rest = peer.command.format(port="{port}", folder=folder).split()
    return wait_until_up(f"{name}, {mode}", [str(binaries / program), *rest], peer.path, environment, folder)


def bodies_for(server: str, images: Sequence[Path], folder: Path) -> tuple[list[Path], str]:
    """Write the bodies that a server takes, and name their content type."""
    peer = PEERS_BY_NAME.get(server.partition(",")[0])
    if peer is None or not peer.field:
        return list(images), "image/tiff"
    if peer.encoding.startswith("multipart"):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{peer.field}"; filename="image.tif"\r\n'
        head += "Content-Type: image/tiff\r\n\r\n"
        forms = [
            write_whole(
                folder / f"form-{image.stem}", head.encode() + image.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
            )
            for image in images
        ]
        return forms, f"multipart/form-data; boundary={BOUNDARY}"
    written = []
    for image in images:
        body = json.dumps({peer.field: [base64.b64encode(image.read_bytes()).decode()]})
        written.append(write_whole(folder / f"{peer.field}-{image.stem}.json", body.encode()))
    return written, "application/json"


def bare_predictor(predictor: Predictor, images: Sequence[Path], seconds: float) -> tuple[Load, float]:
    """Predict decoded images in this process, one after the other: what no server can come near to."""
    decoded = [
        image_from_array(image.read(), image.axes) for image in (read_image(path).select("CYX") for path in images)
    ]
    predictor.predict(decoded[0])
    begun, processor = time.perf_counter(), time.process_time()
    latencies: list[float] = []
    while time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        predictor.predict(decoded[len(latencies) % len(decoded)])
        latencies.append(time.perf_counter() - start)
    return Load(time.perf_counter() - begun, tuple(latencies), (), 0.0), time.process_time() - processor


def processor_seconds(server: Server) -> float:
    """Processor time that a server and everything below it has taken."""
    spent = 0.0
    for process in (server.process, *server.process.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent += times.user + times.system
    return spent


def idle_cost(server: Server, seconds: float = 3.0) -> float:
    """Cores that a server takes while nobody asks."""
    before = processor_seconds(server)
    time.sleep(seconds)
    return (processor_seconds(server) - before) / seconds


def compare(words: argparse.Namespace, bundle: Bundle, images: dict[int, list[Path]], work: Path) -> list[Measured]:
    """Start everything, and take the rounds."""
    predictor = Predictor(bundle)
    predictor.warm_up()
    measured: list[Measured] = []
    with ExitStack() as running:
        servers = []
        if CYTORAY in words.only:
            servers.append(running.enter_context(start_cytoray([str(bundle.folder)], home=work / "home", name=CYTORAY)))
        if others := [name for name in PEERS_BY_NAME if name in words.only]:
            binaries = peers_environment(words.cache)
            for name in others:
                for mode in words.modes:
                    server = start_peer(name, mode, binaries, bundle.folder, work / f"{name}-{mode}")
                    servers.append(running.enter_context(server))
        for server in servers:
            print(f"  {server.name}: {idle_cost(server):.3f} cores idle", file=sys.stderr, flush=True)
        for side, files in images.items():
            connections = words.connections or CONNECTIONS[side]
            rows = {
                name: Measured(name, side, "fp32" if name.endswith(", plain") else predictor.precision)
                for name in [*(server.name for server in servers), BARE]
            }
            measured += rows.values()
            asked = {server.name: bodies_for(server.name, files, work) for server in servers}
            for server in servers:
                measure_load(server.url, *asked[server.name], connections, words.warm_up)
            for number in range(words.rounds):
                for server in servers:
                    before = processor_seconds(server)
                    load = measure_load(server.url, *asked[server.name], connections, words.seconds)
                    rows[server.name].add(load, processor_seconds(server) - before)
                    print(f"  {side}, round {number + 1}, {server.name}: {load.rate:.2f}", file=sys.stderr, flush=True)
                rows[BARE].add(*bare_predictor(predictor, files, words.seconds))
                print(f"  {side}, round {number + 1}, {BARE}: {rows[BARE].rates[-1]:.2f}", file=sys.stderr, flush=True)
    return measured


def ratios_of(measured: Sequence[Measured]) -> list[Ratio]:
    """Compare Cytoray with the best of the others, and with the bare predictor."""
    ratios = []
    for ours in (one for one in measured if one.server == CYTORAY):
        side = f"{ours.side} × {ours.side}"
        rows = [one for one in measured if one.side == ours.side]
        for mode, target in (("predictor", 1.0), ("plain", 1.5)):
            others = [one for one in rows if one.server.endswith(f", {mode}")]
            if not others:
                continue
            best = max(others, key=lambda one: one.rate)
            ratios.append(
                Ratio(f"cytoray over {best.server}, {side}", tuple(ours.rates), tuple(best.rates), "images/s", target)
            )
            share = highest_quantile(ours.latencies, *(one.latencies for one in others))
            if share is not None:
                ratios.append(slowest_answers(ours, others, share))
        bare = next(one for one in rows if one.server == BARE)
        wanted = 0.90 if ours.side == 1024 else None
        ratios.append(
            Ratio(f"cytoray over the {BARE}, {side}", tuple(ours.rates), tuple(bare.rates), "images/s", wanted)
        )
    return ratios


def slowest_answers(ours: Measured, others: Sequence[Measured], share: float) -> Ratio:
    """Compare a quantile of Cytoray's latencies with the smallest of the others', the inverse of each."""
    quick = min(others, key=lambda one: percentile(one.latencies, share))
    found = quantile_ratio(quick.latencies, ours.latencies, share)
    name = f"1/p{100 * share:g} of cytoray over {quick.server}, {ours.side} × {ours.side}"
    own, other = (1 / percentile(one.latencies, share) for one in (ours, quick))
    return Ratio(name, (own,), (other,), "1/s", 1.0, (found.low, found.high))


def table(measured: Sequence[Measured], ratios: Sequence[Ratio], words: argparse.Namespace) -> str:
    """Describe the run in Markdown."""
    head = (
        f"{machine()}. {words.rounds} alternating rounds of {words.seconds:g} seconds; images/s are medians over "
        "rounds, latencies those of all answers, in milliseconds, with 95 % intervals; the processor time of the "
        "server and of the client is in milliseconds per image.\n\n"
        "| image | server | precision | encoding | images/s | answers | p50 | slowest | server's CPU | client's CPU |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = "\n".join(one.row() for one in measured)
    figures = "\n".join(ratio.row() for ratio in ratios)
    return (
        f"{head}{rows}\n\n| figure | first | second | unit | ratio | wanted |\n|---|---|---|---|---|---|\n{figures}\n"
    )


def chosen_images(words: argparse.Namespace, work: Path) -> dict[int, list[Path]]:
    """Return image files by side: synthetic ones, or square ones cut from real ones."""
    images: dict[int, list[Path]] = {}
    for side in words.sides:
        if words.images is None:
            dataset = make_segmentation(work / f"data-{side}", images=words.count, size=side)
            images[side] = [item.image for item in dataset.items]
        else:
            images[side] = cut_squares(words.images, side, words.count, work / f"cut-{side}")
    return images


def cut_squares(folder: Path, side: int, count: int, target: Path) -> list[Path]:
    """Cut squares from the first images of a folder that are large enough, and write them as TIFFs like theirs."""
    import tifffile

    target.mkdir()
    squares: list[Path] = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        image = read_image(path)
        if len(squares) == count:
            break
        if min(image.size("Y"), image.size("X")) < side:
            continue
        pixels = image.select("CYX").read()[:, :side, :side]
        squares.append(target / f"{path.stem}.tif")
        tifffile.imwrite(squares[-1], pixels, metadata={"axes": "CYX"}, ome=True, compression="zlib")
    if not squares:
        sys.exit(f"no image in {folder} is {side} pixels wide and high")
    return squares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundle", type=Path, help="the model; by default the network of the shipped recipe, untrained"
    )
    parser.add_argument("--images", type=Path, help="a folder of real images to cut from; synthetic ones by default")
    parser.add_argument("--count", type=int, default=8, help="different images")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024], choices=list(CONNECTIONS))
    parser.add_argument("--connections", type=int, help=f"by default {CONNECTIONS}, by side")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=15.0, help="of load, per server and round")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds of load before the rounds")
    parser.add_argument("--only", nargs="+", choices=[CYTORAY, *PEERS_BY_NAME], default=[CYTORAY, *PEERS_BY_NAME])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "cytoray-peers")
    parser.add_argument("--out", type=Path, help="folder for serving_comparison.json and serving_comparison.md")
    words = parser.parse_args()
    stop_servers_when_told_to()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        work = Path(folder)
        bundle = untrained_bundle(work / "bundle") if words.bundle is None else Bundle.load(words.bundle.absolute())
        measured = compare(words, bundle, chosen_images(words, work), work)
    ratios = ratios_of(measured)
    text = table(measured, ratios, words)
    print(text)
    if words.out is not None:
        words.out.mkdir(parents=True, exist_ok=True)
        values = {
            "machine": machine(),
            "measured": [asdict(one) for one in measured],
            "ratios": [asdict(r) for r in ratios],
        }
        write_whole(words.out / "serving_comparison.json", json.dumps(values).encode())
        write_whole(words.out / "serving_comparison.md", text.encode())


if __name__ == "__main__":
    main()
