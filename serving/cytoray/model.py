"""A model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from cytoray.answer import Answer
from cytoray.given_image import Source, image_of, is_file
from cytoray_analysis.devices import MEMORY_BUDGET
from cytoray_analysis.images.choose import choose
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.selection import Choices, selection_of
from cytoray_services.registry import load_predictor
from cytoray_services.settings import Settings, load_settings
from cytoray_serving.answers import choose_form
from cytoray_serving.inputs import open_input, open_masks
from cytoray_serving.predict.answering import answer_one


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A loaded model; created by :func:`load_model`."""

    predictor: Predictor
    settings: Settings

    @property
    def name(self) -> str:
        """Its name in the registry, or in its bundle."""
        return self.predictor.identity.name

    @property
    def version(self) -> str | None:
        """Its version in the registry; None for a bundle folder."""
        return self.predictor.identity.version

    def predict(
        self,
        image: Source,
        *,
        axes: str | None = None,
        masks: Source | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        segmentation: str | Model | None = None,
        **choices: Unpack[Choices],
    ) -> Answer:
        """Predict one image or movie.

        Parameters
        ----------
        image
            A file, a folder of frames, an array, or an image that :func:`cytoray.read_image` read.
        axes
            Axes of an array, such as ``"CYX"``; see :func:`cytoray.given_image.image_of`.
        masks
            A label image of the objects; for a movie the masks of all frames. The same types as `image`; an array has
            the axes of the image without C.
        boxes
            Boxes of the cells: ``[[xmin, ymin, xmax, ymax], …]`` in pixels.
        segmentation
            A model that finds the objects, such as ``"nuclei@champion"``.
        choices
            The part of the image to use, such as ``channel="DAPI"``, ``plane="max"`` or ``frame=3``: the fields of
            :class:`~cytoray_analysis.selection.Selection`.

        Raises
        ------
        InputError
            The image cannot be read, or the model cannot use it.

        Examples
        --------
        >>> model.predict("cells.tif", channel="DAPI").table()  # doctest: +SKIP
        >>> model.predict(pixels, axes="ZYX").labels  # doctest: +SKIP
        """
        selection = selection_of(choices)
        opened = open_input(Path(image), selection) if is_file(image) else choose(image_of(image, axes), selection)
        labelled = None
        if masks is not None:
            plain = None if axes is None else axes.replace("C", "")
            labelled = open_masks(Path(masks)) if is_file(masks) else image_of(masks, plain)
        if isinstance(segmentation, str):
            segmentation = load_model(segmentation, settings=self.settings)
        prediction = answer_one(
            self.predictor,
            opened,
            selection,
            masks=labelled,
            boxes=boxes,
            segmenter=None if segmentation is None else segmentation.predictor,
        )
        return Answer(
            model=self.name,
            version=self.version,
            digest=prediction.model.digest,
            kind=prediction.kind,
            objects=prediction.objects,
            warnings=prediction.warnings,
            _ask=lambda media_type: choose_form(media_type, prediction.kind).encode(prediction),
        )

    def __repr__(self) -> str:
        name = self.name if self.version is None else f"{self.name}/{self.version}"
        return f"<Model {name}: {self.predictor.bundle.spec.task.name}, on {self.predictor.device}>"


def load_model(
    reference: str | Path,
    *,
    device: str | None = None,
    memory: int = MEMORY_BUDGET,
    settings: Settings | None = None,
) -> Model:
    """Load a model from the registry or from a bundle folder.

    Parameters
    ----------
    reference
        ``"nuclei"``, ``"nuclei@champion"``, ``"nuclei/3"`` or a folder.
    device
        Such as ``"cpu"`` or ``"cuda:0"``; by default an accelerator, if there is one.
    memory
        Memory budget of one answer in bytes, in addition to the image.
    settings
        Location of the registry; by default from the environment.

    Raises
    ------
    ModelNotFoundError, BundleError, PlatformError
        The model does not exist or is damaged, or the registry does not answer.

    Examples
    --------
    >>> cytoray.load_model("nuclei@champion").predict("cells.tif")  # doctest: +SKIP
    """
    settings = settings or load_settings()
    return Model(load_predictor(str(reference), settings, device=device, memory_budget=memory), settings)
