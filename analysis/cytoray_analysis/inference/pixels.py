"""An answer for every pixel, in tiles and blocks whose size follows from a memory budget.

Tiles carry a halo as wide as the network sees and start where the network's cells start, blocks carry a margin as
wide as decoding sees, and objects are named by their place in the whole image: the answer does not depend on how the
image was cut.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.devices import return_freed_memory
from cytoray_analysis.errors import CytorayError, ImageError, RequestError
from cytoray_analysis.image_grid import ImageGrid
from cytoray_analysis.images import Image
from cytoray_analysis.images.resample import resample_image_to
from cytoray_analysis.inference.blocks import Blocks, block_core, create_answer
from cytoray_analysis.inference.dense_outputs import dense_outputs
from cytoray_analysis.inference.protocol import Inference, Prediction, Progress, Seconds
from cytoray_analysis.model_input import NetworkImage, blank_image, prepare
from cytoray_analysis.numbering import Numbering, own_numbers
from cytoray_analysis.object_width import usual_width
from cytoray_analysis.resampled_pixels import ResampledPixels
from cytoray_analysis.selection import AUTO
from cytoray_analysis.tasks import Block, Decoded
from cytoray_analysis.tasks.protocol import Scale
from cytoray_analysis.tiles import Region, Tile, core_for_budget, extent, per_axis, round_up, tile_region, whole, within

_MEASUREMENTS = 3  # at most, of the width of objects: each is better than the one before
_ALIKE = 0.1  # of two measured widths, as a difference of logarithms


class PixelInference(Inference):
    """Dense outputs for an image, decoded into labels or an image; the memory budget sets the tile size."""

    @property
    def stride(self) -> tuple[int, ...]:
        """Pixels of a cell of the network along each axis."""
        return self.runner.stride

    @property
    def halo(self) -> tuple[int, ...]:
        """How far the network sees along each axis."""
        return self.runner.halo

    @cached_property
    def margin(self) -> tuple[int, ...]:
        """How far decoding sees along each axis, in whole cells of the network."""
        return tuple(round_up(width, cell) for width, cell in zip(self._margin(None), self.stride, strict=True))

    def _margin(self, scale: Scale) -> tuple[int, ...]:
        return per_axis(self.task.output.margin(self.parameters, scale), self.runner.dimensions)

    @cached_property
    def blank(self) -> Decoded:
        """The answer about nothing, which shows what answers look like: that is the task's to say."""
        shape = (self.task.output.channels, *(8 * cell for cell in self.stride))
        return self.task.decode(np.zeros(shape, np.float32), self.parameters, None)

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of an answer; () where it has none."""
        values = self.blank.values
        return tuple(values.shape[: values.ndim - self.runner.dimensions])

    def answer(self, image: Image, objects: Any) -> Prediction:
        """Answer for one image that fits into memory."""
        _require_none(objects)
        start = time.perf_counter()
        image = self._measured(image)
        source = prepare(image, self.spec.input)
        return self._answer(image, source, {"read": time.perf_counter() - start, "network": 0.0, "decode": 0.0})

    def answer_batch(self, images: Sequence[Image], objects: Sequence[Any]) -> list[Prediction | CytorayError]:
        """Answer for several images; those of one shape go through the network together."""
        results: list[Prediction | CytorayError | None] = [None] * len(images)
        images = list(images)
        sources: dict[tuple[int, ...], list[tuple[int, NetworkImage, float]]] = {}
        for index, image in enumerate(images):
            start = time.perf_counter()
            try:
                _require_none(objects[index])
                images[index] = self._measured(image)
                source = prepare(images[index], self.spec.input)
                sources.setdefault(source.shape, []).append((index, source, time.perf_counter() - start))
            except CytorayError as error:
                results[index] = error
        for shape, members in sources.items():
            together = max(1, self.tile_pixels() // max(math.prod(shape), 1))
            for first in range(0, len(members), together):
                self._answer_together(images, members[first : first + together], results)
        return [result for result in results if result is not None]

    def _measured(self, image: Image) -> Image:
        """Return an image with the width of its objects, as the model itself finds them, if it is to be measured."""
        counts = self.blank.identities is not None
        if image.diameter != AUTO or not counts or self.spec.input.diameter is None:
            return image
        width: float | None = None
        for _ in range(_MEASUREMENTS):
            found = usual_width(self.answer(replace(image, diameter=width), None).answer)
            if found is None:
                break
            near = width is not None and abs(math.log(found / width)) < _ALIKE
            width = found
            if near:
                break
        if width is None:
            return replace(image, diameter=None)
        sentence = f"{image.source}: objects were measured as {width:.3g} pixels wide"
        return replace(image, diameter=width, warnings=(*image.warnings, AnswerWarning("diameter-measured", sentence)))

    def outputs(self, image: Image, objects: Any) -> NDArray[np.float32]:
        """Return the network's dense outputs for an image, (channels, spatial…) float32, before decoding."""
        _require_none(objects)
        source = prepare(image, self.spec.input)
        return self._outputs(source, {"read": 0.0, "network": 0.0})

    def store(self, image: Image, path: Path, progress: Progress | None) -> Prediction:
        """Answer block by block into an OME-Zarr, which must not exist."""
        start = time.perf_counter()
        source = prepare(image, self.spec.input, in_memory=False)
        seconds = {"read": time.perf_counter() - start, "network": 0.0, "decode": 0.0, "write": 0.0}
        axes = self.spec.input.axes.replace("C", "")

        frame = self._cutting(source).frame

        def create(channels: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
            return create_answer(path, axes, frame, channels, dtype, image.pixel_size)

        numbering, answer = self._fill(source, create, seconds, progress, path.parent)
        return self._prediction(image, answer, numbering.count, seconds, source.warnings)

    def blocks(self, image: Image, core: tuple[int, ...] | None) -> Blocks:
        """Cut an image into blocks that are answered one by one; by default as large as the budget allows."""
        source = prepare(image, self.spec.input, in_memory=False)
        cut = self._cutting(source)
        core = core or block_core(cut.frame, cut.margin, cut.stride, cut.pixels)
        decoded = self.blank
        return Blocks(
            source,
            cut.frame,
            self.spec.input.axes.replace("C", ""),
            core,
            tuple(tile_region(whole(cut.frame), cut.frame, core, cut.margin, stride=cut.stride)),
            self.channels,
            decoded.values.dtype,
            decoded.identities is not None,
            image.pixel_size,
        )

    def answer_block(self, blocks: Blocks, index: int) -> Decoded:
        """Answer for one block: the network over the margin of decoding, then the core with its own numbers."""
        seconds = {"read": 0.0, "network": 0.0, "decode": 0.0}
        block = blocks.tiles[index]
        grid = self._grid(blocks.source)
        if grid is None:
            outputs = self._outputs(blocks.source, seconds, block.outer)
        else:
            needed = grid.needed(block.outer)
            cells = _in_cells(needed, self.stride, grid.seen)
            outputs = self._outputs(blocks.source, seconds, cells)[(slice(None), *within(needed, cells))]
            outputs = grid.resample(outputs, block.outer)
        return_freed_memory()  # arrays of decoding have other sizes, and would need additional memory
        values, decoded = self._decode_block(outputs, block, blocks.shape, seconds, grid.scale if grid else None)
        if decoded.identities is None:
            return Decoded(values)
        return Decoded(*own_numbers(values, decoded.identities, decoded.confidence))

    def warm_up(self) -> None:
        """Predict a blank image."""
        self.answer(blank_image(self.spec.input, tuple(8 * cell for cell in self.stride)), None)

    def tile_core(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of the tiles, without their halo, that an image of this spatial shape is predicted in."""
        return core_for_budget(shape, self.halo, self.tile_pixels(), stride=self.stride)

    def tile_pixels(self) -> int:
        """Pixels that one pass through the network may take."""
        return max(self.memory_budget // self.runner.bytes_per_pixel, 1)

    def block_pixels(self) -> int:
        """Pixels whose dense outputs (float32) and decoding take at most three quarters of the budget."""
        return max(self.memory_budget * 3 // 4 // (self.task.output.channels * 4 + 24), 1)

    def _answer(self, image: Image, source: NetworkImage, seconds: Seconds) -> Prediction:
        if max(math.prod(source.shape), math.prod(self._frame(source))) <= self.block_pixels():
            return self._decoded(image, source, self._outputs(source, seconds), seconds)

        def create(channels: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
            return np.zeros((*channels, *self._frame(source)), dtype)

        numbering, answer = self._fill(source, create, seconds, None, None)
        return self._predicted(image, source, Decoded(answer, None, numbering.confidence()), seconds)

    def _grid(self, source: NetworkImage) -> ImageGrid | None:
        """Return the grid that outputs are resampled to before they are decoded; None where none is needed.

        Labels and classes are decided at the image's own pixels. Stains are resampled after decoding, which smooths
        where pixels are larger.
        """
        counted = self.blank.values.dtype.kind == "i"
        different = source.shape != source.original_shape
        return ImageGrid(source.shape, source.original_shape) if counted and different else None

    def _frame(self, source: NetworkImage) -> tuple[int, ...]:
        """Return the spatial shape that outputs are decoded at."""
        return source.original_shape if self._grid(source) else source.shape

    def _cutting(self, source: NetworkImage) -> _Cutting:
        """Return how an image that is answered block by block is cut.

        Raises
        ------
        ImageError
            It is resampled, and its answer is an image.
        """
        grid = self._grid(source)
        if grid is not None:
            larger = max(1.0, math.prod(grid.seen) / math.prod(grid.shape))
            stride = (1,) * len(grid.shape)
            return _Cutting(grid, grid.shape, self._margin(grid.scale), stride, int(self.block_pixels() / larger))
        if source.shape != source.original_shape and isinstance(source.image.data, ResampledPixels):
            raise ImageError(
                f"{source.image.source}: its pixel size differs from the model's, and its predicted image is too large "
                "to be resampled in memory",
                hint="store it at the model's pixel size first, or increase --memory",
            )
        return _Cutting(None, source.shape, self.margin, self.stride, self.block_pixels())

    def _decoded(
        self, image: Image, source: NetworkImage, outputs: NDArray[np.float32], seconds: Seconds
    ) -> Prediction:
        """Decode the outputs for a whole image."""
        grid, block = self._grid(source), None
        if grid is not None:
            start = time.perf_counter()
            outputs = grid.resample(outputs)
            seconds["decode"] += time.perf_counter() - start
            block = Block((0,) * len(grid.shape), grid.shape, grid.scale)
        return self._predicted(image, source, self._decode(outputs, seconds, block), seconds)

    def _predicted(self, image: Image, source: NetworkImage, decoded: Decoded, seconds: Seconds) -> Prediction:
        answer = decoded.values
        counted = answer.dtype.kind == "i"
        if answer.shape[answer.ndim - len(source.shape) :] != source.original_shape:
            answer = resample_image_to(answer, source.original_shape)
        objects = int(answer.max(initial=0)) if counted else 0
        return self._prediction(image, answer, objects, seconds, source.warnings, confidence=decoded.confidence)

    def _answer_together(
        self,
        images: Sequence[Image],
        members: Sequence[tuple[int, NetworkImage, float]],
        results: list[Prediction | CytorayError | None],
    ) -> None:
        if len(members) == 1 or math.prod(members[0][1].shape) > min(self.tile_pixels(), self.block_pixels()):
            for index, source, spent in members:
                seconds = {"read": spent, "network": 0.0, "decode": 0.0}
                results[index] = self._answer(images[index], source, seconds)
            return
        start = time.perf_counter()
        pixels = np.stack([source.read(whole(source.shape)) for _, source, _ in members])
        read = (time.perf_counter() - start) / len(members)
        start = time.perf_counter()
        outputs = self.runner.forward_padded(pixels)
        network = (time.perf_counter() - start) / len(members)
        for (index, source, spent), output in zip(members, outputs, strict=True):
            seconds = {"read": spent + read, "network": network, "decode": 0.0}
            results[index] = self._decoded(images[index], source, output, seconds)

    def _fill(
        self,
        source: NetworkImage,
        create: Callable[[tuple[int, ...], np.dtype[Any]], Any],
        seconds: Seconds,
        progress: Progress | None,
        folder: Path | None,
    ) -> tuple[Numbering, Any]:
        """Make the answer block by block; `create` gives the place for it, once its channels and type are known."""
        cut = self._cutting(source)
        grid, frame = cut.grid, cut.frame
        # Half as large as may be: a second computation of margins costs little here, and little memory is left over.
        core = core_for_budget(frame, cut.margin, cut.pixels // 2, stride=cut.stride)
        blocks = list(tile_region(whole(frame), frame, core, cut.margin, stride=cut.stride))
        tiles = list(self._tiles(source.shape))
        done = itertools.count(1)

        def advance() -> None:
            if progress:
                progress(next(done), len(tiles) + len(blocks))

        numbering, target = Numbering(), None
        place = (self.task.output.channels, *source.shape)
        with dense_outputs(place, in_memory=self.memory_budget // 4, folder=folder) as view:
            for tile in tiles:
                view()[(slice(None), *tile.core)] = self._tile_outputs(source, tile, seconds)
                advance()
            return_freed_memory()  # arrays of decoding have other sizes, and would need additional memory
            for block in blocks:
                start = time.perf_counter()
                needed = block.outer if grid is None else grid.needed(block.outer)
                outputs = np.array(view()[(slice(None), *needed)])
                if grid is not None:
                    outputs = grid.resample(outputs, block.outer)
                seconds["read"] += time.perf_counter() - start
                values, decoded = self._decode_block(outputs, block, frame, seconds, grid.scale if grid else None)
                del outputs
                start = time.perf_counter()
                if target is None:
                    target = create(values.shape[: values.ndim - len(frame)], values.dtype)
                target[(Ellipsis, *block.core)] = numbering.number(values, decoded.identities, decoded.confidence)
                seconds["write"] = seconds.get("write", 0.0) + time.perf_counter() - start
                advance()
        start = time.perf_counter()
        ranks = numbering.ranks()
        if ranks is not None and target is not None:
            for block in blocks:  # objects were numbered as they were met; now in order of their place
                target[block.core] = ranks[target[block.core]]
        return_freed_memory()
        seconds["write"] = seconds.get("write", 0.0) + time.perf_counter() - start
        return numbering, target

    def _decode(self, outputs: NDArray[np.float32], seconds: Seconds, block: Block | None = None) -> Decoded:
        start = time.perf_counter()
        decoded = self.task.decode(outputs, self.parameters, block)
        seconds["decode"] += time.perf_counter() - start
        return decoded

    def _decode_block(
        self,
        outputs: NDArray[np.float32],
        block: Tile,
        frame: tuple[int, ...],
        seconds: Seconds,
        scale: Scale = None,
    ) -> tuple[NDArray[Any], Decoded]:
        """Decode the outputs of all that a block reads: the values of its core, and what was decoded."""
        decoded = self._decode(outputs, seconds, Block(tuple(part.start for part in block.outer), frame, scale))
        return decoded.values[(Ellipsis, *block.inner)], decoded

    def _outputs(self, source: NetworkImage, seconds: Seconds, region: Region | None = None) -> NDArray[np.float32]:
        """Run the network over a region that starts at a cell, by default the whole image, tile by tile."""
        region = region or whole(source.shape)
        tiles = list(self._tiles(source.shape, region))
        if len(tiles) == 1:
            return self._tile_outputs(source, tiles[0], seconds)
        outputs = np.empty((self.task.output.channels, *extent(region)), np.float32)
        for tile in tiles:
            outputs[(slice(None), *within(tile.core, region))] = self._tile_outputs(source, tile, seconds)
        return outputs

    def _tiles(self, shape: tuple[int, ...], region: Region | None = None) -> Iterator[Tile]:
        region = region or whole(shape)
        return tile_region(region, shape, self.tile_core(extent(region)), self.halo, stride=self.stride)

    def _tile_outputs(self, source: NetworkImage, tile: Tile, seconds: Seconds) -> NDArray[np.float32]:
        """Return the outputs of a tile's core."""
        start = time.perf_counter()
        pixels = source.read(tile.outer)
        read = time.perf_counter()
        answer: NDArray[np.float32] = self.runner.forward_padded(pixels[None])[0]
        seconds["read"] += read - start
        seconds["network"] += time.perf_counter() - read
        return answer[(slice(None), *tile.inner)]


@dataclass(frozen=True)
class _Cutting:
    """How an image is cut: the grid it is decoded at, the shape there, margin, stride and pixels of a block."""

    grid: ImageGrid | None
    frame: tuple[int, ...]
    margin: tuple[int, ...]
    stride: tuple[int, ...]
    pixels: int


def _in_cells(region: Region, stride: tuple[int, ...], shape: tuple[int, ...]) -> Region:
    """Widen a region to whole cells of the network, within the image."""
    return tuple(
        slice(part.start // cell * cell, min(round_up(part.stop, cell), length))
        for part, cell, length in zip(region, stride, shape, strict=True)
    )


def _require_none(objects: Any) -> None:
    if objects is not None:
        raise RequestError(
            "expected only an image, got additional objects",
            field="objects",
            hint="this model answers for every pixel and needs no masks or boxes",
        )
