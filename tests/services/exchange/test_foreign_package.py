"""A package that others made is run as ONNX where that can be answered for, and its code only by somebody's word."""

from __future__ import annotations

import hashlib
import io
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import BundleError, CytorayError, RequestError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.inference.pixels import PixelInference
from cytoray_analysis.predictor import Predictor
from cytoray_services.exchange import Consent, opened
from cytoray_services.exchange.onnx_export import trace_graph

WORD = Consent("ada@analytical-engine")
SOURCE = """
import pathlib
import torch

pathlib.Path(__file__).with_name("ran").touch()


class Edges(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, 2, 3, padding=1)
        )

    def forward(self, image):
        return self.layers(image)
"""


class Edges(nn.Module):
    """What somebody else might have trained: two outputs per pixel, a halo of two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layers(image)
        return answer


Change = Callable[[dict[str, Any]], None]
Maker = Callable[..., Path]


@pytest.fixture
def network() -> Edges:
    torch.manual_seed(3)
    return Edges().eval()


@pytest.fixture
def package(tmp_path: Path, network: Edges) -> Maker:
    """Write a package by hand, as the format's documentation has it; nothing of our exporter's descriptions."""

    def make(weights: str = "onnx", change: Change | None = None) -> Path:
        folder = tmp_path / "package"
        folder.mkdir()
        pixels = np.random.default_rng(5).integers(100, 4000, (1, 1, 32, 40)).astype(np.float32)
        np.save(folder / "in.npy", pixels)
        np.save(folder / "out.npy", answer_of(network, pixels[0, 0])[None])
        entry = write_weights(folder, weights, network)
        space = [{"type": "space", "id": name, "size": {"min": 8, "step": 4}} for name in "yx"]
        back = [
            {"type": "space", "id": name, "halo": 2, "size": {"tensor_id": "raw", "axis_id": name}} for name in "yx"
        ]
        document: dict[str, Any] = {
            "type": "model",
            "format_version": "0.5.4",
            "name": "Edges of others",
            "description": "made by hand",
            "authors": [{"name": "Grace Hopper"}],
            "license": "MIT",
            "inputs": [
                {
                    "id": "raw",
                    "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["grey"]}, *space],
                    "data": {"type": "float32"},
                    "test_tensor": {"source": "in.npy", "sha256": sha256(folder / "in.npy")},
                    "preprocessing": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}],
                }
            ],
            "outputs": [
                {
                    "id": "edges",
                    "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["inner", "outer"]}, *back],
                    "test_tensor": {"source": "out.npy", "sha256": sha256(folder / "out.npy")},
                    "postprocessing": [{"id": "sigmoid"}],
                }
            ],
            "weights": {weights: entry},
        }
        if change is not None:
            change(document)
        (folder / "bioimageio.yaml").write_text(yaml.safe_dump(document))
        return folder

    return make


def answer_of(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled = (image - image.mean()) / (image.std() + 1e-6)
    with torch.inference_mode():
        answer: NDArray[np.float32] = network(torch.from_numpy(scaled)[None, None]).sigmoid()[0].numpy()
    return answer


def write_weights(folder: Path, kind: str, network: nn.Module) -> dict[str, Any]:
    example = torch.zeros(1, 1, 32, 40)
    extra: dict[str, Any] = {"pytorch_version": "2.0"}
    if kind == "onnx":
        (folder / "weights").write_bytes(trace_graph(network, example))
        extra = {"opset_version": 18}
    elif kind == "torchscript":
        torch.jit.script(network).save(str(folder / "weights"))  # type: ignore[no-untyped-call]
    else:
        torch.save(network.state_dict(), folder / "weights")
        (folder / "edges.py").write_text(textwrap.dedent(SOURCE))
        where = {"source": "edges.py", "sha256": sha256(folder / "edges.py")}
        extra |= {"architecture": {**where, "callable": "Edges", "kwargs": {"width": 4}}}
    return {"source": "weights", "sha256": sha256(folder / "weights"), **extra}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_answers(bundle: Bundle, network: nn.Module) -> None:
    pixels = (100 + 20_000 * gaussian_filter(np.random.default_rng(6).random((61, 57)), 2)).astype(np.uint16)
    found = Predictor(bundle, device="cpu", precision="fp32").predict(image_from_array(pixels, "YX"))
    expected = answer_of(network, pixels.astype(np.float32))
    assert (found.kind, found.answer.shape) == ("image", (2, 61, 57))
    # Beyond the halo from the side that is padded to a multiple of the stride.
    np.testing.assert_allclose(found.answer[:, :-2, :-2], expected[:, :-2, :-2], atol=1e-4)


@pytest.mark.slow
def test_onnx_weights_become_a_bundle_that_answers_the_same(package: Maker, network: Edges) -> None:
    with opened(package()) as imported:
        assert (imported.origin, imported.tags) == ("foreign package", {})
        assert imported.bundle.spec.provenance["authors"] == ["Grace Hopper"]
        assert imported.bundle.spec.provenance["licence"] == "MIT"
        assert imported.bundle.spec.network.arguments["halo"] == [4, 4]  # two, rounded up to the stride
        check_answers(imported.bundle, network)


@pytest.mark.slow
def test_an_answer_does_not_depend_on_tiles(package: Maker) -> None:
    pixels = gaussian_filter(np.random.default_rng(7).random((1, 96, 88), dtype=np.float32), (0, 1.5, 1.5))
    image = image_from_array(pixels, "CYX")
    with opened(package()) as imported:
        whole = Predictor(imported.bundle, device="cpu", precision="fp32").predict(image).answer
        tiled = Predictor(imported.bundle, device="cpu", precision="fp32", memory_budget=2**20)
        assert isinstance(tiled.inference, PixelInference)
        assert tiled.inference.tile_core((96, 88)) != (96, 88)
        np.testing.assert_allclose(tiled.predict(image).answer, whole, atol=1e-5)


@pytest.mark.parametrize("kind", ["torchscript", "pytorch_state_dict"])
def test_code_runs_only_by_someones_word_and_that_is_recorded(package: Maker, network: Edges, kind: str) -> None:
    folder = package(kind)
    with (
        pytest.raises(RequestError, match=f"weights as {kind} only: its code must run on this machine") as caught,
        opened(folder),
    ):
        pass
    assert "--allow-code" in str(caught.value.hint)
    assert not (folder / "ran").exists()
    with opened(folder, WORD) as imported:
        assert imported.tags["import.code_allowed_by"] == "ada@analytical-engine"
        assert imported.tags["import.code_allowed_at"].startswith("20")
        assert sha256(folder / "weights") in imported.tags["import.code"]
        assert imported.bundle.spec.network.name == "onnx"  # the code itself stays behind
        check_answers(imported.bundle, network)
    assert (folder / "ran").exists() == (kind == "pytorch_state_dict")


def test_onnx_is_preferred_to_code_even_when_code_is_allowed(package: Maker, tmp_path: Path, network: Edges) -> None:
    folder = package("pytorch_state_dict")
    document = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    (folder / "weights.onnx").write_bytes(trace_graph(network, torch.zeros(1, 1, 32, 40)))
    document["weights"]["onnx"] = {"source": "weights.onnx", "opset_version": 18, "parent": "pytorch_state_dict"}
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(document))
    with opened(folder, WORD) as imported:
        assert imported.tags == {}
    assert not (folder / "ran").exists()


def clip(document: dict[str, Any]) -> None:
    document["inputs"][0]["preprocessing"].append({"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}})


def binarize(document: dict[str, Any]) -> None:
    document["outputs"][0]["postprocessing"] = [{"id": "binarize", "kwargs": {"threshold": 0.5}}]


def fixed_size(document: dict[str, Any]) -> None:
    for place, size in ((2, 32), (3, 40)):
        document["inputs"][0]["axes"][place]["size"] = size


def address(document: dict[str, Any]) -> None:
    document["weights"]["onnx"]["source"] = "https://example.org/weights.onnx"


def outside(document: dict[str, Any]) -> None:
    document["weights"]["onnx"]["source"] = "../weights"


def other_hash(document: dict[str, Any]) -> None:
    document["weights"]["onnx"]["sha256"] = "0" * 64


def other_scaling(document: dict[str, Any]) -> None:
    document["inputs"][0]["preprocessing"] = [{"id": "scale_range", "kwargs": {"axes": ["y", "x"]}}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (clip, "expected no step before the network, or one"),
        (binarize, "expected no step after the network"),
        (fixed_size, "multiple of a step"),
        (address, "weights"),
        (outside, "weights"),
        (other_hash, "the hash of weights differs from the description"),
        (
            other_scaling,
            r"expected the test output of the package, got .*% of its values with a deviation of more than 0\.001",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_answered_for_is_refused_with_the_reason(package: Maker, change: Change, reason: str) -> None:
    with pytest.raises(CytorayError, match=reason) as caught, opened(package(change=change)):
        pass
    assert caught.value.exit_status == 2


def test_a_graph_with_weights_in_other_files_is_refused(package: Maker) -> None:
    folder = package()
    model = onnx.load_model_from_string((folder / "weights").read_bytes())
    onnx.save_model(model, folder / "weights", save_as_external_data=True, location="beside.data", size_threshold=0)
    rehash(folder)
    with pytest.raises(BundleError, match="in other files"), opened(folder):
        pass


def test_a_pickle_among_state_weights_is_not_run_even_when_code_is_allowed(package: Maker, tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.mkdir, (str(tmp_path / "planted"),)

    folder = package("pytorch_state_dict")
    buffer = io.BytesIO()
    torch.save({"layers.0.weight": Planted()}, buffer)
    (folder / "weights").write_bytes(buffer.getvalue())
    rehash(folder)
    with pytest.raises(BundleError, match="cannot be built"), opened(folder, WORD):
        pass
    assert not (tmp_path / "planted").exists()


def test_a_description_that_would_build_objects_is_refused(package: Maker, tmp_path: Path) -> None:
    folder = package()
    (folder / "bioimageio.yaml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']")
    with pytest.raises(BundleError, match="YAML"), opened(folder):
        pass
    assert not (tmp_path / "ran").exists()


def test_a_link_in_a_package_folder_is_refused(package: Maker, tmp_path: Path) -> None:
    folder = package()
    (folder / "weights").rename(tmp_path / "elsewhere")
    (folder / "weights").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="link"), opened(folder):
        pass


def rehash(folder: Path) -> None:
    document = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    for entry in document["weights"].values():
        entry["sha256"] = sha256(folder / "weights")
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(document))
