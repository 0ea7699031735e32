"""Does compiling pay? Seconds per call of our U-Net as it is, through torch.compile and through AOTInductor.

python tests/bench/compiled_network.py [--bundle FOLDER] [--rounds N] [--only bf16 …]

For bf16 and fp32, channels last, batch norms folded as the predictor folds them: an image of 256 × 256, sixteen of
them, and one of 1024 × 1024. Rounds alternate. The outputs are compared too, by the largest difference in units of the
outputs' standard deviation. `compile` is compiled anew for each shape, as a service of few shapes would have it;
`exported` is compiled once, for any batch and side, by torch.export and AOTInductor, and saved as a file of machine
code.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from inference_speed import untrained_bundle
from measure import machine

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.devices import Precision
from cytoray_analysis.inference.runner import NetworkRunner

SHAPES = ((1, 256), (16, 256), (1, 1024))
Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Figure:
    """What one way of running the network gives at one shape.

    Attributes
    ----------
    build
        Seconds to compile, once.
    seconds
        Per call, median over rounds.
    processor
        Processor seconds per call, the least of all rounds: what others on the machine disturb least.
    difference
        Largest difference from the eager outputs over their standard deviation.
    """

    precision: Precision
    images: int
    side: int
    way: str
    build: float
    seconds: float
    processor: float
    difference: float


def compiled(network: torch.nn.Module, inputs: torch.Tensor) -> Network:
    torch.compiler.reset()
    built: Network = torch.compile(network, dynamic=False)
    built(inputs)
    return built


def exported(network: torch.nn.Module, inputs: torch.Tensor, file: Path) -> Network:
    from torch._inductor import aoti_compile_and_package, aoti_load_package
    from torch.export import Dim, export

    # Sides are multiples of the stride; the example must not be of the smallest sizes, which would be specialised.
    stride = 32
    rows, columns = Dim("rows", min=2, max=128), Dim("columns", min=2, max=128)
    shapes = {0: Dim("images", min=1, max=64), 2: stride * rows, 3: stride * columns}
    example = torch.rand((2, inputs.shape[1], 256, 320), dtype=inputs.dtype).contiguous(
        memory_format=torch.channels_last
    )
    program = export(network, (example,), dynamic_shapes=(shapes,))
    loaded: Any = aoti_load_package(aoti_compile_and_package(program, package_path=str(file)))
    return lambda tensor: loaded(tensor)


def measure(network: torch.nn.Module, precision: Precision, rounds: int, folder: Path, channels: int) -> list[Figure]:
    """Measure every way at every shape, in turn."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    figures = []
    file = folder / f"{precision}.pt2"
    ahead: tuple[Network, float] | None = None
    for images, side in SHAPES:
        torch.manual_seed(0)
        inputs = torch.rand((images, channels, side, side)).to(dtype).contiguous(memory_format=torch.channels_last)
        ways: dict[str, tuple[Network, float]] = {"eager": (network, 0.0)}
        start = time.perf_counter()
        ways["compile"] = compiled(network, inputs), time.perf_counter() - start
        if ahead is None:
            start = time.perf_counter()
            try:
                ahead = exported(network, inputs, file), time.perf_counter() - start
            except Exception as error:  # noqa: BLE001 - whether it can be exported at all is a result, too
                print(f"  {precision} cannot be exported: {type(error).__name__}: {error}", file=sys.stderr)
        if ahead is not None:
            ways["exported"] = ahead
        expected = network(inputs).float()
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for call, _ in ways.values():
            for _ in range(3):
                call(inputs)
        for _ in range(rounds):
            for way, (call, _) in ways.items():
                start, processor = time.perf_counter(), time.process_time()
                for _ in range(repeats := max(1, 2**20 // (images * side * side))):
                    call(inputs)
                spent = time.process_time() - processor
                taken[way].append(((time.perf_counter() - start) / repeats, spent / repeats))
        for way, (call, build) in ways.items():
            difference = float(((call(inputs).float() - expected).abs().max() / expected.std()).item())
            seconds = statistics.median(wall for wall, _ in taken[way])
            processor = min(spent for _, spent in taken[way])
            figures.append(Figure(precision, images, side, way, build, seconds, processor, difference))
            print(f"  {figures[-1]}", file=sys.stderr, flush=True)
    return figures


def table(figures: list[Figure]) -> str:
    eager = {(one.precision, one.images, one.side): one.seconds for one in figures if one.way == "eager"}
    rows = "\n".join(
        f"| {one.precision} | {one.images} × {one.side}² | {one.way} | {one.build:.1f} | {one.seconds * 1e3:.1f} | "
        f"{one.processor * 1e3:.1f} | "
        f"**{eager[one.precision, one.images, one.side] / one.seconds:.2f}** | {one.difference:.1e} |"
        for one in figures
    )
    head = "| precision | images | way | build, s | ms a call | of CPU | times as fast | difference / deviation |\n"
    return f"{machine()}\n\n{head}|---|---|---|---|---|---|---|---|\n{rows}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="by default the network of the shipped recipe, untrained")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, help="all cores by default")
    parser.add_argument("--only", nargs="+", choices=["bf16", "fp32"], default=["bf16", "fp32"])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    words = parser.parse_args()
    if words.threads is not None:
        torch.set_num_threads(words.threads)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="cytoray-") as name, torch.inference_mode():
        folder = Path(name)
        bundle = untrained_bundle(folder / "bundle") if words.bundle is None else Bundle.load(words.bundle)
        for precision in words.only:
            runner = NetworkRunner(bundle, "cpu", precision)
            figures += measure(runner.network, precision, words.rounds, folder, bundle.spec.input.inputs)
    print(json.dumps([asdict(one) for one in figures]) if words.json else table(figures))


if __name__ == "__main__":
    main()
