import numpy as np
import pytest

from cytoray_analysis.images import image_from_array
from cytoray_analysis.predictor import Predictor
from cytoray_serving.answers import answer_kinds, form_named, forms_of, read_arrays
from serving_samples import CELL_CLASSES, moving_squares, noise


def test_arrays_are_a_form_of_every_kind_and_never_the_default() -> None:
    for forms in map(forms_of, answer_kinds()):
        assert list(forms)[-1] == "arrays"
        assert len(forms) > 1


def test_labels_come_back_with_their_confidences(segmenter: Predictor) -> None:
    image = image_from_array(noise(64, 96), "YX")
    answered = segmenter.predict(image)
    found = read_arrays(form_named("arrays", "labels").encode(answered))
    assert found.about == {"kind": "labels", "model": "nuclei", "digest": answered.model.digest}
    assert found.arrays["labels"].dtype == np.int32
    np.testing.assert_array_equal(found.arrays["labels"], answered.answer)
    np.testing.assert_array_equal(found.arrays["confidence"], answered.confidence)


def test_predicted_images_come_back(stainer: Predictor) -> None:
    image = image_from_array(noise(64, 96), "YX")
    answered = stainer.predict(image)
    found = read_arrays(form_named("arrays", "image").encode(answered))
    assert list(found.arrays) == ["image"]
    assert found.arrays["image"].shape == (2, 64, 96)
    np.testing.assert_array_equal(found.arrays["image"], answered.answer)


@pytest.mark.parametrize("cells", [2, 0])
def test_classes_come_back_with_their_names(classifier: Predictor, cells: int) -> None:
    movie, masks = moving_squares()
    image = image_from_array(movie[0], "YX")
    prediction = classifier.predict(image, masks[0] if cells else np.zeros_like(masks[0]))
    found = read_arrays(form_named("arrays", "class").encode(prediction))
    assert found.classes == tuple(CELL_CLASSES)
    assert {name: array.shape for name, array in found.arrays.items()} == {
        "probabilities": (cells, 3),
        "boxes": (cells, 2, 2),
        "numbers": (cells,),
    }
    np.testing.assert_array_equal(found.arrays["boxes"], prediction.answer.cells.boxes)


def test_lineages_come_back_as_masks_and_tracks(linker: Predictor) -> None:
    movie, masks = moving_squares()
    image = image_from_array(movie, "TYX")
    prediction = linker.predict(image, image_from_array(masks, "TYX"))
    found = read_arrays(form_named("arrays", "lineage").encode(prediction))
    np.testing.assert_array_equal(found.arrays["masks"], prediction.answer.tracked[:])
    np.testing.assert_array_equal(found.arrays["tracks"], prediction.answer.table)
    assert len(found.arrays["confidence"]) in (0, len(prediction.answer.track_id))
