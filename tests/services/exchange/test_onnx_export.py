"""An ONNX file answers as its bundle does, on any size, and one that does not is never written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import BundleError, RequestError
from cytoray_analysis.networks import build_network
from cytoray_services.exchange.onnx_export import OPSET, TOLERANCE, check_graph, export_onnx


@pytest.mark.slow
def test_onnx_answers_as_the_bundle_on_several_sizes(
    kind: str, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of(kind)
    facts = export_onnx(bundle, tmp_path / "model.onnx", reference=f"{kind}/7")
    assert len(set(facts.shapes)) >= 4
    assert facts.deviation <= TOLERANCE

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    network = bundle.network()
    random = np.random.default_rng(1)
    shape = np.load(bundle.folder / "test_input.npy").shape
    for batch, grown in ((1, 1), (3, 2)):  # sizes that the export itself did not look at
        pixels = random.normal(size=(batch, shape[0], *(side * grown for side in shape[1:]))).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(pixels)).numpy()
        (answer,) = session.run(["output"], {"input": pixels})
        assert answer.shape == expected.shape
        assert np.abs(answer - expected).max() <= TOLERANCE * np.ptp(expected)


def test_the_file_says_what_it_is(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = bundle_of("unet")
    export_onnx(bundle, tmp_path / "model.onnx", reference="unet/7")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert (facts["name"], facts["version"], facts["digest"]) == ("unet", "unet/7", bundle.digest)
    assert facts["stride"] == "4 4"
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    sizes = [size.dim_param or size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 1, "side0", "side1"]


def test_a_graph_of_other_weights_is_refused(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = bundle_of("unet")
    export_onnx(bundle, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    changed = onnx.numpy_helper.to_array(weights) * 1.01
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))
    with pytest.raises(BundleError, match="deviates from the bundle"):
        check_graph(model.SerializeToString(), bundle)


def test_a_bundle_that_fails_the_check_leaves_no_file(tmp_path: Path, bundle_of: Callable[[str], Bundle]) -> None:
    bundle = bundle_of("linear")
    # NaN is not even equal to itself.
    np.save(bundle.folder / "test_input.npy", np.full((2, 20, 24), np.nan, np.float32))
    with pytest.raises(BundleError):
        export_onnx(bundle, tmp_path / "out" / "model.onnx")
    assert not (tmp_path / "out").exists()


def test_a_network_over_pairs_is_refused_with_the_reason(tmp_path: Path) -> None:
    arguments = {"inputs": 5, "outputs": 2}
    spec = BundleSpec(
        name="links",
        task=TaskChoice(name="tracking"),
        input=ModelInput(axes="TYX", channels=()),
        network=NetworkChoice(name="pair", arguments=arguments),
    )
    bundle = write_bundle(
        tmp_path / "links",
        spec,
        build_network("pair", arguments).state_dict(),
        test_input=np.zeros((5, 7), np.float32),
        card="",
    )
    with pytest.raises(RequestError, match="features that only Cytoray computes"):
        export_onnx(bundle, tmp_path / "links.onnx")
    assert not (tmp_path / "links.onnx").exists()
