"""The objects of every input of ``cytoray predict``: masks, boxes, or a segmentation model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_analysis.images.names import IMAGE_SUFFIXES, image_stem, normal_name, truth_stem
from cytoray_serving.inputs import holds_masks, is_zarr
from cytoray_serving.predict.box_table import BoxTable, read_boxes
from cytoray_serving.predict.path_matching import PathMatcher, absolute, parts_of


@dataclass(frozen=True)
class GivenObjects:
    """The options of the caller that give the objects; None if not given.

    Attributes
    ----------
    masks
        A label image, or for a movie all masks as a file or a folder of numbered masks; or a folder with masks that
        have the name of each input, or its path if several inputs have the same name.
    boxes
        A CSV file, see :func:`cytoray_serving.predict.box_table.read_boxes`.
    segmentation
        Reference of a model that finds the objects.
    """

    masks: Path | None = None
    boxes: Path | None = None
    segmentation: str | None = None

    def of(self, inputs: Sequence[Path], spatial_axes: str = "YX") -> InputObjects:
        """Return the objects of these inputs.

        Parameters
        ----------
        spatial_axes
            Spatial axes of a frame: ``ZYX`` if the masks of a movie are stacks.

        Raises
        ------
        MissingFileError
            The masks or boxes do not exist.
        RequestError
            The boxes are not a table.
        """
        if self.masks is not None and not self.masks.exists():
            raise MissingFileError(f"{self.masks} does not exist", field="masks", hint="check the path")
        boxes = None if self.boxes is None else read_boxes(self.boxes)
        found: dict[Path, list[Path]] | None = None
        if self.masks is not None and self.masks.is_dir() and not is_zarr(self.masks):
            masks = [one.relative_to(self.masks) for one in _masks_below(self.masks, spatial_axes)]
            matched = match_masks(masks, [absolute(path) for path in inputs])
            found = {path: [self.masks / mask for mask in matched[absolute(path)]] for path in inputs}
        return InputObjects(self, tuple(inputs), PathMatcher(inputs), found, boxes, spatial_axes)


@dataclass(frozen=True)
class InputObjects:
    """The objects of each of several inputs; created by :meth:`GivenObjects.of`."""

    given: GivenObjects
    inputs: tuple[Path, ...]
    matcher: PathMatcher
    found: dict[Path, list[Path]] | None
    table: BoxTable | None
    spatial_axes: str = "YX"

    def masks_of(self, path: Path) -> Path | None:
        """Return the path of the masks of an input.

        Raises
        ------
        MissingFileError
            There are no masks for this input.
        RequestError
            There is one file of masks for several inputs, or the masks of the input are ambiguous.
        """
        masks, alone = self.given.masks, len(self.inputs) == 1
        if masks is None:
            return None
        if self.found is None:
            if alone:
                return masks
            raise RequestError(
                f"expected a folder of masks for several inputs, got the file {masks}",
                field="masks",
                hint="give a folder of masks with the names of the images",
            )
        found = self.found.get(path, [])
        if len(found) > 1:
            raise RequestError(
                f"several masks in {masks} match {path}, which is ambiguous: "
                f"{' and '.join(str(one.relative_to(masks)) for one in found)}",
                field="masks",
                hint="keep one of them, or use the same subfolders as the images",
            )
        if found:
            others = [other for other, masks_there in self.found.items() if found[0] in masks_there and other != path]
            if others:
                raise RequestError(
                    f"the masks {found[0]} match {path} and {' and '.join(map(str, others))}, which is "
                    "ambiguous: these inputs have the same name",
                    field="masks",
                    hint=f"use the same subfolders as the images: {'/'.join(parts_of(path)[-2:])}",
                )
            return found[0]
        if alone and holds_masks(masks, spatial_axes=self.spatial_axes):
            return masks
        raise MissingFileError(
            f"the folder {masks} has no masks named {image_stem(path)}",
            field="masks",
            hint="give masks the name of their image; masks of a movie are numbered, such as mask000.tif",
        )

    def files(self) -> list[Path]:
        """Return all files and folders of masks and boxes."""
        masks = self.given.masks
        whole = masks is not None and (self.found is None or holds_masks(masks, spatial_axes=self.spatial_axes))
        matched = [mask for found in (self.found or {}).values() for mask in found]
        return [one for one in (masks if whole else None, self.given.boxes, *matched) if one is not None]

    def boxes_of(self, path: Path) -> list[list[float]] | None:
        """Return the boxes of an input, X first."""
        return None if self.table is None else self.table.boxes_by(self.matcher, path, alone=len(self.inputs) == 1)


def match_masks(masks: Iterable[PurePath], inputs: Sequence[PurePath]) -> dict[PurePath, list[PurePath]]:
    """Find the masks of each input by its name.

    The masks of ``plate/A/img.tif`` are at ``A/img.tif`` in their folder, or at ``img.tif``. A mask with the full name
    of the input has priority over masks with its stem, and these over names such as ``img_mask.tif``.

    Parameters
    ----------
    masks
        Paths of masks relative to their folder.
    inputs
        Paths of the inputs, from the root.

    Returns
    -------
    dict
        The matching masks of every input; more than one if ambiguous.
    """
    known = [(one, parts_of(one.parent)) for one in masks]
    found: dict[PurePath, list[PurePath]] = {path: [] for path in inputs}
    left, taken = list(found), set[PurePath]()
    for name_of_mask, name_of_image in ((normal_name, normal_name), (image_stem, image_stem), (truth_stem, image_stem)):
        by_name: dict[str, list[tuple[PurePath, tuple[str, ...]]]] = {}
        for mask, above in known:
            if mask not in taken:
                by_name.setdefault(name_of_mask(mask.name), []).append((mask, above))
        for path in left:
            own = parts_of(path)[:-1]
            fitting = by_name.get(name_of_image(path.name), ())
            found[path] = [mask for mask, above in fitting if not above or own[-len(above) :] == above]
        taken.update(mask for path in left for mask in found[path])
        left = [path for path in left if not found[path]]
    return found


def _masks_below(folder: Path, spatial_axes: str) -> Iterator[Path]:
    """Yield the files, OME-Zarrs and folders of numbered masks in a folder and its subfolders."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if entry.name.lower().endswith(IMAGE_SUFFIXES):
                yield entry
        elif is_zarr(entry) or holds_masks(entry, spatial_axes=spatial_axes):
            yield entry
        elif not entry.is_symlink():
            yield from _masks_below(entry, spatial_axes)
