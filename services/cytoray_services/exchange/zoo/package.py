"""Export to a BioImage Model Zoo package: weights as ONNX, and the bundle itself as an attachment.

Other tools run the ONNX weights by the description; Cytoray imports the attached bundle, byte for byte.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cytoray_analysis.bundle import CARD, TEST_INPUT, Bundle
from cytoray_analysis.errors import BundleError, RequestError
from cytoray_analysis.networks import DenseNetwork, dense
from cytoray_analysis.tasks import get_task
from cytoray_analysis.tiles import per_axis
from cytoray_services.exchange.archive import appears_whole, write_archive
from cytoray_services.exchange.onnx_export import OnnxFacts, export_onnx
from cytoray_services.exchange.zoo.description import (
    Credits,
    apply,
    input_tensor,
    output_channels,
    output_tensor,
    postprocessing,
    preprocessing,
    stated_halo,
    unsaid,
)
from cytoray_services.registry.card_record import without_record

DESCRIPTION = "bioimageio.yaml"
BUNDLE = "cytoray_bundle.zip"
WEIGHTS, INPUT, OUTPUT, COVER, DOCUMENTATION = (
    "weights.onnx",
    "test_input.npy",
    "test_output.npy",
    "cover.png",
    "README.md",
)
_VISIBLE = 1e-3  # outputs of a blank test input have no information, and the format rejects them


@dataclass(frozen=True)
class PackageFacts:
    """The written package.

    Attributes
    ----------
    path
        The folder or the archive.
    format_version
        Version of the model description.
    onnx
        The result of the check of the weights.
    """

    path: Path
    format_version: str
    onnx: OnnxFacts


def export_bundle(bundle: Bundle, target: Path) -> Path:
    """Write the bundle as a reproducible ZIP archive: the same bundle always gives the same bytes.

    Raises
    ------
    BundleError
        The bundle fails its self-test.
    """
    bundle.self_test()
    write_archive(bundle.folder, target)
    return target


def export_package(bundle: Bundle, target: Path, named: Credits, *, reference: str | None = None) -> PackageFacts:
    """Write a package and validate it with ``bioimageio.spec``.

    Parameters
    ----------
    target
        A folder, or an archive if the name ends in ``.zip``.
    named
        Authors, licence and citations.
    reference
        Name and version in the registry.

    Raises
    ------
    RequestError
        The model is for movies, or its network cannot be written as ONNX.
    BundleError
        The ONNX weights and the bundle give different outputs, or the package is not valid; nothing is written.
    """
    if "T" in bundle.spec.input.axes:
        raise RequestError(
            f"expected a model for images or cells, got one for {bundle.spec.task.name}",
            field="format",
            hint="the Model Zoo cannot describe links between objects; export the bundle itself: --format bundle",
        )
    with tempfile.TemporaryDirectory(prefix="cytoray-export-") as scratch:
        folder = Path(scratch, "package")
        folder.mkdir()
        onnx = export_onnx(bundle, folder / WEIGHTS, reference=reference)
        write_archive(bundle.folder, folder / BUNDLE)
        _write_tests(bundle, folder)
        (folder / DOCUMENTATION).write_text(_documentation(bundle, onnx), encoding="utf-8")
        version = _write_description(bundle, folder, named, onnx)
        validate(folder)
        if target.suffix == ".zip":
            write_archive(folder, target)
        else:
            with appears_whole(target) as draft:
                shutil.copytree(folder, draft)
    return PackageFacts(target, version, onnx)


def validate(folder: Path) -> None:
    """Validate a package with ``bioimageio.spec``, including files and hashes, without network access.

    Raises
    ------
    BundleError
        It is not valid; the message names the field.
    """
    from bioimageio.spec import InvalidDescr, ValidationContext, load_description

    with ValidationContext(perform_io_checks=True, log_warnings=False, progressbar=False):
        found = load_description(folder / DESCRIPTION)
    if isinstance(found, InvalidDescr):
        raise BundleError(
            f"bioimageio.spec rejects the package: {found.get_reason()}",
            field=DESCRIPTION,
            hint="nothing was written; correct the field in the message",
        )


def _write_description(bundle: Bundle, folder: Path, named: Credits, onnx: OnnxFacts) -> str:
    from bioimageio.spec import ValidationContext, save_bioimageio_yaml_only
    from bioimageio.spec.model import v0_5
    from pydantic import ValidationError

    spec, network = bundle.spec, dense(bundle.network())
    with ValidationContext(root=folder, perform_io_checks=True, log_warnings=False, progressbar=False):
        try:
            described = v0_5.ModelDescr(
                name=f"Cytoray {spec.name}",
                description=f"{spec.task.name.replace('_', ' ')} on {spec.input.axes} images, trained with Cytoray.",
                authors=[v0_5.Author(name=name) for name in named.authors],
                license=named.licence,
                cite=[v0_5.CiteEntry(text=f"doi:{doi}", doi=v0_5.Doi(doi)) for doi in named.cite],
                documentation=_file(DOCUMENTATION),
                covers=[_file(COVER)],
                attachments=[_file(BUNDLE)],
                inputs=[input_tensor(spec, network, _file(INPUT))],
                outputs=[output_tensor(spec, network, _file(OUTPUT))],
                tags=_tags(bundle),
                weights=v0_5.WeightsDescr(
                    onnx=v0_5.OnnxWeightsDescr(source=_file(WEIGHTS).source, opset_version=onnx.opset)
                ),
                config=v0_5.Config(
                    bioimageio=v0_5.BioimageioConfig(reproducibility_tolerance=_tolerance(folder)),
                    cytoray={"digest": bundle.digest, "bundle": BUNDLE, "task": spec.task.name},
                ),
            )
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise BundleError(
                f"the format of the Model Zoo rejects {place}: {first['msg']}",
                field=place,
                hint="a licence is an identifier of https://spdx.org/licenses, a citation a DOI such as 10.1038/…",
            ) from error
        save_bioimageio_yaml_only(described, file=folder / DESCRIPTION)
    return str(described.format_version)


def _tolerance(folder: Path) -> list[Any]:
    """Return the tolerance of the test output for others; the format allows a hundredth of its largest value."""
    from bioimageio.spec.model import v0_5

    largest = float(np.load(folder / OUTPUT, allow_pickle=False).max())
    if largest <= 0:
        return []
    return [v0_5.ReproducibilityTolerance(absolute_tolerance=min(1e-3, 0.009 * largest))]


def _file(name: str) -> Any:
    from bioimageio.spec.common import FileDescr, RelativeFilePath

    return FileDescr(source=RelativeFilePath(name))


def _tags(bundle: Bundle) -> list[str]:
    spec = bundle.spec
    tag = get_task(spec.task.name, spec.task.arguments).output.alone.tag
    return [
        f"{len(spec.input.spatial_axes)}d",
        tag or spec.task.name.replace("_", "-"),
        "pytorch",
        spec.network.name,
        "cytoray",
    ]


def _write_tests(bundle: Bundle, folder: Path) -> None:
    """Write the test tensors of the format: an image before preprocessing, an answer after postprocessing."""
    scaled = np.load(bundle.folder / TEST_INPUT, allow_pickle=False).astype(np.float32)
    if float(np.ptp(scaled)) < _VISIBLE:
        scaled = np.random.default_rng(0).random(scaled.shape, dtype=np.float32)
    network = bundle.network()
    scaled = _grown(scaled, [2 * width for width in stated_halo(bundle.spec.input, dense(network))], dense(network))
    with torch.inference_mode():
        answer = network(torch.from_numpy(apply(preprocessing(bundle.spec.input), scaled))[None])[0].numpy()
    answer = apply(postprocessing(bundle.spec), answer)
    np.save(folder / INPUT, scaled[None], allow_pickle=False)
    np.save(folder / OUTPUT, answer[None], allow_pickle=False)
    _draw_cover(scaled, answer, output_channels(bundle.spec), folder / COVER)


def _grown(pixels: NDArray[np.float32], margins: list[int], network: DenseNetwork) -> NDArray[np.float32]:
    """Mirror a test input until it has the smallest size in the description."""
    steps = per_axis(network.stride, len(margins))
    missing = [
        (0, max(margin + step - side, 0)) for margin, step, side in zip(margins, steps, pixels.shape[1:], strict=True)
    ]
    return np.pad(pixels, [(0, 0), *missing], mode="symmetric")


def _draw_cover(image: NDArray[np.float32], answer: NDArray[np.float32], names: tuple[str, ...], path: Path) -> None:
    """Draw the test input next to the output of the network, twice as wide as high."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), dpi=100)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.02, 0.02, 0.98, 0.9, wspace=0.04)
    left.imshow(_flat(image[0]), cmap="gray")
    left.set_title("input", fontsize=9)
    if answer.ndim == 1:
        right.barh(range(len(answer)), answer)
        for place, name in enumerate(names):
            right.text(float(min(answer.min(), 0)), place, f" {name}", va="center", fontsize=8)
        right.set_title("logits", fontsize=9)
    else:
        strongest = int(np.argmax([np.ptp(channel) for channel in answer]))
        right.imshow(_flat(answer[strongest]), cmap="viridis")
        right.set_title(names[strongest], fontsize=9)
    for axes in (left, right):
        axes.set_axis_off()
    figure.savefig(path, metadata={"Software": None})


def _flat(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Project a volume along Z."""
    return pixels.max(axis=0) if pixels.ndim == 3 else pixels


def _documentation(bundle: Bundle, onnx: OnnxFacts) -> str:
    card = without_record((bundle.folder / CARD).read_text(encoding="utf-8")).rstrip()
    gaps = "\n".join(f"- {line}" for line in unsaid(bundle.spec, dense(bundle.network())))
    shapes = ", ".join(" × ".join(map(str, shape)) for shape in onnx.shapes)
    return f"""{card}

## What this description cannot express

{gaps}
- Cytoray handles all of this itself: `cytoray models import` uses the attached `{BUNDLE}`, the exported model
  (SHA-256 of specification and weights: `{bundle.digest}`).

## Validation

The ONNX weights (opset {onnx.opset}) were compared with the original network, on inputs of {shapes}
(batch × channels × sides): the largest difference was {onnx.deviation:.1e} of the range of the outputs.
"""
