"""Answers per pixel, per cell and per link, from one predictor: what goes in, what comes out, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.cells import cells_from_boxes, cells_from_labels, read_window, window_around
from cytoray_analysis.errors import AxesError, CytorayError, ImageError, RequestError
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.inference.cells import CellInference
from cytoray_analysis.inference.links import segmented_frames
from cytoray_analysis.inference.pixels import PixelInference
from cytoray_analysis.model_input import prepare
from cytoray_analysis.networks import build_network
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import Classes
from cytoray_analysis.tracking.candidates import FEATURES
from cytoray_analysis.tracking.lineage import check_lineage

NOISE = np.random.default_rng(5)


def texture(shape: tuple[int, ...], most: float) -> NDArray[np.float64]:
    """Return blurred noise between 0 and `most`: noise alone would be taken for an empty image."""
    blurred = gaussian_filter(NOISE.random(shape), (0,) * (len(shape) - 2) + (1.5, 1.5))
    low, high = blurred.min(), blurred.max()
    return np.asarray((blurred - low) / (high - low) * most)


def bundle_of(
    folder: Path, task: str, arguments: dict[str, Any], network: NetworkChoice, model_input: ModelInput
) -> Bundle:
    """Write a bundle with random weights."""
    torch.manual_seed(1)
    weights = build_network(network.name, network.arguments).state_dict()
    spec = BundleSpec(
        name="random", task=TaskChoice(name=task, arguments=arguments), input=model_input, network=network
    )
    shape = model_input.window or (32,) * len(model_input.spatial_axes)
    inputs = np.zeros((int(network.arguments["inputs"]), *(shape if task != "tracking" else (8,))), np.float32)
    return write_bundle(folder / "bundle", spec, weights, test_input=inputs, card="# random\n")


def unet(inputs: int, outputs: int, dimensions: int = 2) -> NetworkChoice:
    arguments = {"inputs": inputs, "outputs": outputs, "dimensions": dimensions, "widths": [4, 8]}
    return NetworkChoice(name="unet", arguments=arguments)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    network = NetworkChoice(name="linear", arguments={"inputs": 1, "outputs": 3, "side": 8})
    bundle = bundle_of(
        tmp_path_factory.mktemp("cells"),
        "classification",
        {"classes": ["a", "b", "c"]},
        network,
        ModelInput(window=(16, 16)),
    )
    return Predictor(bundle, precision="fp32")


class TestCells:
    def field(self) -> NDArray[np.uint8]:
        return texture((60, 80), 255).astype(np.uint8)

    def test_every_box_gets_probabilities_in_its_order(self, classifier: Predictor) -> None:
        image = image_from_array(self.field(), "YX")
        boxes = [((2, 3), (18, 19)), ((30, 40), (46, 56)), ((50, 70), (70, 90))]
        together = classifier.predict(image, cells_from_boxes(boxes))
        assert isinstance(together.answer, Classes)
        assert (together.kind, together.objects, together.answer.names) == ("class", 3, ("a", "b", "c"))
        np.testing.assert_allclose(together.answer.probabilities.sum(axis=1), 1, rtol=1e-5)
        for row, box in enumerate(boxes):
            alone = classifier.predict(image, cells_from_boxes([box])).answer.probabilities[0]
            np.testing.assert_allclose(together.answer.probabilities[row], alone, rtol=1e-4)

    def test_a_label_image_says_where_the_cells_are(self, classifier: Predictor) -> None:
        field = self.field()
        labels = np.zeros(field.shape, np.int32)
        labels[5:15, 6:20], labels[30:50, 40:44] = 3, 8
        answer = classifier.predict(image_from_array(field, "YX"), labels).answer
        np.testing.assert_array_equal(answer.cells.numbers, [3, 8])
        np.testing.assert_array_equal(answer.cells.boxes[0], [[5, 6], [15, 20]])

    def test_an_image_alone_is_one_cell_seen_whole(self, classifier: Predictor) -> None:
        field = np.tile(np.linspace(0, 255, 48, dtype=np.uint8), (48, 1))
        whole = classifier.predict(image_from_array(field, "YX"))
        assert whole.objects == 1
        assert isinstance(classifier.inference, CellInference)
        assert classifier.inference.windows(image_from_array(field, "YX"), None).shape == (1, 1, 16, 16)

    def test_masks_of_another_size_and_empty_boxes_are_refused(self, classifier: Predictor) -> None:
        image = image_from_array(self.field(), "YX")
        with pytest.raises(ImageError, match=r"expected a label image of the image's size \(60, 80\)"):
            classifier.predict(image, np.ones((10, 10), np.int32))
        with pytest.raises(RequestError, match="end after their start"):
            cells_from_boxes([((5, 5), (5, 9))])
        with pytest.raises(RequestError, match="expected boxes with 2 axes"):
            classifier.predict(image, cells_from_boxes([((1, 1, 1), (9, 9, 9))]))

    def test_no_cells_are_no_answers(self, classifier: Predictor) -> None:
        empty = classifier.predict(image_from_array(self.field(), "YX"), np.zeros((60, 80), np.int32))
        assert (empty.objects, empty.answer.probabilities.shape) == (0, (0, 3))

    def test_one_bad_image_of_a_batch_is_its_own(self, classifier: Predictor) -> None:
        good = image_from_array(self.field(), "YX")
        bad = image_from_array(np.zeros((2, 30, 30), np.uint8), "CYX")
        first, second = classifier.predict_batch([bad, good])
        assert isinstance(first, CytorayError)
        assert not isinstance(second, CytorayError)

    def test_a_window_at_the_border_goes_on_with_the_border(self) -> None:
        field = np.arange(30, dtype=np.float32).reshape(5, 6)
        source = prepare(image_from_array(field, "YX"), ModelInput())
        window = read_window(source, window_around((0, 0), (4, 4)))
        assert window.shape == (1, 4, 4)
        inside = source.read((slice(0, 2), slice(0, 2)))
        np.testing.assert_array_equal(window[0, 2:, 2:], inside[0])
        assert (window[0, :3, :3] == inside[0, 0, 0]).all()

    def test_boxes_are_those_of_the_objects(self) -> None:
        volume = np.zeros((4, 9, 9), np.int32)
        volume[1:3, 2:5, 4:9] = 2
        cells = cells_from_labels(volume)
        np.testing.assert_array_equal(cells.boxes, [[[1, 2, 4], [3, 5, 9]]])
        np.testing.assert_array_equal(cells.centres, [[2, 3.5, 6.5]])


class TestImages:
    def stain(self, folder: Path, dimensions: int = 2, **input_changes: Any) -> Bundle:
        axes = "CYX" if dimensions == 2 else "CZYX"
        inputs = ModelInput(axes=axes, **input_changes)
        arguments = {"dimensions": dimensions, "channels": ["dapi"], "offset": [500.0], "scale": [0.01]}
        return bundle_of(folder, "label_free", arguments, unet(inputs.inputs, 1, dimensions), inputs)

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_tiles_do_not_show_in_a_predicted_stain(self, tmp_path: Path, dimensions: int) -> None:
        bundle = self.stain(tmp_path, dimensions)
        shape = (230, 270) if dimensions == 2 else (26, 90, 100)
        image = image_from_array(texture(shape, 4_000).astype(np.uint16), bundle.spec.input.spatial_axes)
        whole = Predictor(bundle, precision="fp32").predict(image)
        assert (whole.kind, whole.answer.shape, whole.objects) == ("image", (1, *shape), 0)
        tiled = Predictor(bundle, precision="fp32", memory_budget=2**20 if dimensions == 2 else 2**22)
        assert isinstance(tiled.inference, PixelInference)
        assert tiled.inference.tile_core(shape) != shape
        np.testing.assert_allclose(tiled.predict(image).answer, whole.answer, rtol=1e-5, atol=1e-3)

    def test_a_large_answer_is_written_as_an_image_of_its_channels(self, tmp_path: Path) -> None:
        bundle = self.stain(tmp_path)
        image = image_from_array(texture((130, 150), 4_000).astype(np.uint16), "YX")
        predictor = Predictor(bundle, precision="fp32", memory_budget=2**21)
        predictor.predict_to_zarr(image, tmp_path / "stain.ome.zarr")
        written = read_image(tmp_path / "stain.ome.zarr").select("CYX").read()
        np.testing.assert_allclose(written, predictor.predict(image).answer, rtol=1e-6)

    def test_a_stack_enters_a_flat_network_plane_by_plane(self, tmp_path: Path) -> None:
        bundle = self.stain(tmp_path, planes=3)
        stack = texture((3, 40, 50), 4_000).astype(np.uint16)
        predictor = Predictor(bundle, precision="fp32")
        predictor.warm_up()
        answer = predictor.predict(image_from_array(stack, "ZYX")).answer
        assert answer.shape == (1, 40, 50)
        shuffled = predictor.predict(image_from_array(stack[::-1].copy(), "ZYX")).answer
        assert not np.allclose(answer, shuffled)
        with pytest.raises(AxesError, match="expected a stack of 3 planes, got 5"):
            predictor.predict(image_from_array(np.zeros((5, 40, 50), np.uint8), "ZYX"))

    def test_masks_are_refused_where_none_are_needed(self, tmp_path: Path) -> None:
        predictor = Predictor(self.stain(tmp_path))
        with pytest.raises(RequestError, match="expected only an image"):
            predictor.predict(image_from_array(np.zeros((40, 40), np.uint8), "YX"), np.ones((40, 40), np.int32))

    @pytest.mark.parametrize(("dimensions", "shape"), [(2, (5, 40, 40)), (3, (40, 40))])
    def test_flat_images_and_volumes_are_distinguished(
        self, tmp_path: Path, dimensions: int, shape: tuple[int, ...]
    ) -> None:
        predictor = Predictor(self.stain(tmp_path, dimensions))
        with pytest.raises(AxesError) as caught:
            predictor.predict(image_from_array(np.zeros(shape, np.uint8), "ZYX"[-len(shape) :]))
        assert caught.value.hint


class TestLinks:
    @pytest.fixture(scope="class")
    def linker(self, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
        network = NetworkChoice(name="pair", arguments={"inputs": FEATURES, "outputs": 2, "widths": [8]})
        bundle = bundle_of(tmp_path_factory.mktemp("links"), "tracking", {}, network, ModelInput(axes="TYX"))
        return Predictor(bundle, precision="fp32")

    def masks(self) -> NDArray[np.int32]:
        masks = np.zeros((5, 60, 60), np.int32)
        for frame in range(5):
            masks[frame, 5 + frame : 15 + frame, 10:20] = 4
            masks[frame, 40:50, 30 - frame : 40 - frame] = 5 + frame
        return masks

    def test_masks_become_a_valid_lineage_of_the_same_objects(self, linker: Predictor) -> None:
        linker.warm_up()
        masks = self.masks()
        movie = image_from_array((masks > 0) * np.uint8(200), "TYX")
        prediction = linker.predict(movie, masks)
        assert (prediction.kind, prediction.objects) == ("lineage", len(prediction.answer.track_id))
        check_lineage(prediction.answer, gap=None)
        assert len(prediction.answer.frame) == 10
        np.testing.assert_array_equal(np.asarray(prediction.answer.tracked[:] > 0), masks > 0)

    def test_a_movie_without_masks_is_refused_with_what_to_do(self, linker: Predictor) -> None:
        with pytest.raises(RequestError, match="expected masks") as caught:
            linker.predict(image_from_array(np.zeros((4, 30, 30), np.uint8), "TYX"))
        assert "segmentation" in (caught.value.hint or "")

    def test_frames_are_segmented_when_they_are_read(self, tmp_path: Path) -> None:
        model = ModelInput()
        seen: list[str] = []

        class Watched(Predictor):
            def predict(self, image: Any, objects: Any = None) -> Any:
                seen.append(image.source)
                return super().predict(image, objects)

        segmenter = Watched(bundle_of(tmp_path, "segmentation", {}, unet(1, 3), model))
        movie = image_from_array(texture((4, 32, 40), 255).astype(np.uint8), "TYX", source="movie")
        masks = segmented_frames(movie, segmenter)
        assert (masks.axes, masks.shape, seen) == ("TYX", (4, 32, 40), [])
        masks.read((slice(2, 3), slice(None), slice(None)))
        assert seen == ["movie, frame 2"]
